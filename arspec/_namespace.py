"""The operations a penalty may use, hardened so that every framework gives the same bits.

`Namespace` writes each of them once over `lib`, a module with NumPy's names. An engine
gives `lib` and the few methods that are about its framework: reading and changing a
dtype, and a guard where its compiler fuses a product into a following sum. Comments name
the rules R1-R13 of docs/numerics.md.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from arspec._errors import UnsupportedError

Array = Any

FLOAT_DTYPES = ("float16", "bfloat16", "float32", "float64")
SMALLEST_NORMAL = {"bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1022}


class Namespace:
    """Hardened array operations over one array library."""

    lib: Any
    mutable_arrays = False
    wide = "float64"
    exponent = 205  # powers of two up to 4 · 5 times this are representable in `wide`

    # What an engine must give.

    def dtype_name(self, x: Array) -> str:
        """Return the dtype of `x` by NumPy's name, such as "bfloat16"."""
        raise NotImplementedError

    def cast(self, x: Array, dtype: str) -> Array:
        """Convert `x` to the dtype of that name, rounding once to nearest even."""
        raise NotImplementedError

    # What an engine may have to change.

    def bounded(self, dtype: str) -> "Namespace":
        """Return the namespace for numerics="bounded" on tensors of `dtype`."""
        raise UnsupportedError("the reference has no bounded numerics; it is what they are measured against.")

    def guard(self, product: Array) -> Array:
        """Return `product` unchanged, opaque to a compiler that fuses it into a sum (R2)."""
        return product

    def block_size(self, x: Array) -> int | None:
        """Elements to work on at a time where that is faster, else None (R12)."""
        return None

    def unordered_block(self, x: Array) -> int | None:
        """Elements that `unordered_sum` is to take at a time, None where only the fixed order serves."""
        return None

    def unordered_sum(self, x: Array) -> float:
        """Sum in float64, in any order that adds every number once."""
        raise NotImplementedError

    def unordered_roundings(self, size: int) -> int:
        """Return how many additions of `unordered_sum` one of `size` entries can pass through."""
        return size

    def shape(self, x: Array) -> tuple[Any, ...]:
        """Return the sizes of `x`; an engine may give a scalar array for one known only at run time."""
        return tuple(x.shape)

    def share(self, coefficient: float, count: Any) -> Array | float:
        """Return coefficient / count in float64, and coefficient where there is nothing to count."""
        return coefficient / max(count, 1)

    def zeros(self, like: Array, shape: tuple[int, ...]) -> Array:
        """Zeros of `shape` with the dtype and device of `like`."""
        return self.lib.zeros_like(like, shape=shape)

    def empty(self, like: Array, shape: tuple[int, ...]) -> Array:
        """Return an array to be filled, with the dtype and device of `like`."""
        return self.zeros(like, shape)

    def where(self, condition: Array, x: Array | float, y: Array | float) -> Array:
        return self.lib.where(condition, x, y)

    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array:
        return self.lib.reshape(x, shape)

    def concat(self, parts: list[Array], axis: int) -> Array:
        return self.lib.concatenate(parts, axis=axis)

    def broadcast_to(self, x: Array, shape: tuple[int, ...]) -> Array:
        return self.lib.broadcast_to(x, shape)

    # Dtypes.

    def narrow(self, x: Array) -> Array:
        """Convert half precision to float32; a subnormal float32, bfloat16 or float64 counts as 0 (R1, R7)."""
        name = self.dtype_name(x)
        x = self.cast(x, "float32") if name in ("float16", "bfloat16") else x
        return self.flush(x, SMALLEST_NORMAL[name]) if name in SMALLEST_NORMAL else x

    def lift(self, x: Array) -> Array:
        """Convert to float64; a subnormal number counts as 0 (R1, R7)."""
        return self.cast(self.narrow(x), self.wide)

    def lower(self, x: Array, dtype: str) -> Array:
        """Round float64 to `dtype`; half precision goes through float32 everywhere (R1)."""
        x = self.cast(x, "float32") if dtype in ("float16", "bfloat16") else x
        return self.cast(x, dtype)

    def flush(self, x: Array, smallest: float) -> Array:
        """Replace what is smaller in magnitude than `smallest` by 0; NaN stays, and so does the derivative 1."""
        return x - self.stop_gradient(self.where(self.abs(x) < smallest, x, 0.0))

    def stop_gradient(self, x: Array) -> Array:
        """Return `x` as a constant for automatic differentiation."""
        return x

    # Elementwise.

    def abs(self, x: Array) -> Array:
        return self.lib.abs(x)

    def sign(self, x: Array) -> Array:
        """-1, 0 or 1, and NaN at NaN (R6)."""
        return self.where(x != x, x, self.lib.sign(x))

    def within(self, x: Array, low: float, high: float) -> Array:
        """x, and NaN where it lies outside of [low, high]."""
        return self.where((x < low) | (x > high), float("nan"), x)

    def ones(self, x: Array) -> Array | float:
        """1 where x is a number and NaN elsewhere: an array like x, or the number 1 where an engine sees no NaN."""
        return self.where(x == x, 1.0, x)

    def multiply(self, x: Array | float, y: Array | float) -> Array:
        """x·y, safe to add to something (R2)."""
        return self.guard(x * y)

    def square(self, x: Array) -> Array:
        """x·x, safe to add to something (R2, R5)."""
        return self.guard(x * x)

    def double(self, x: Array) -> Array:
        """2x; no compiler merges the 2 with a coefficient, which would hide an overflow (R4)."""
        return self.guard(x + x)

    def reciprocal(self, x: Array) -> Array:
        """1/x by an IEEE division that no compiler turns into an estimate (R3)."""
        one = self.where(x == x, 1.0, x)
        return self.guard(one / self.guard(x))

    def divide(self, x: Array, y: Array) -> Array:
        """x / y, safe to add to something; by 1/y where y is broadcast, as XLA does it anyway (R2, R3)."""
        if tuple(x.shape) == tuple(y.shape):
            return self.guard(x / self.guard(y))
        return self.multiply(x, self.reciprocal(y))

    def sqrt(self, x: Array) -> Array:
        """√x, correctly rounded (R10)."""
        return self.guard(self.lib.sqrt(x))

    def exp(self, x: Array) -> Array:
        return self.lib.exp(x)

    def log(self, x: Array) -> Array:
        return self.lib.log(x)

    def log1p(self, x: Array) -> Array:
        return self.lib.log1p(x)

    def log1p_by_log(self, x: Array) -> Array:
        """log(1 + x) within 1.5 units of the last place, from a good log (W. Kahan's rounded sum).

        For an engine whose own log1p is worse; XLA's is off by 120 units.
        """
        u = self.guard(1.0 + x)
        excess = self.guard(u - 1.0)
        lost = excess == 0
        corrected = self.log(u) * (x / self.where(lost, 1.0, excess))
        return self.where(lost, x, self.where(u == x, self.log(u), corrected))

    def tanh(self, x: Array) -> Array:
        return self.lib.tanh(x)

    def cos(self, x: Array) -> Array:
        return self.lib.cos(x)

    def power(self, x: Array, exponent: float) -> Array:
        """x^exponent for x >= 0; by products and one √ where 2·exponent is a small whole number (R5)."""
        doubled = 2.0 * abs(exponent)
        if not doubled.is_integer() or doubled > 16:
            return self.guard(self.raw_power(x, exponent))
        result = self.sqrt(x) if doubled % 2 else self.where(x == x, 1.0, x)
        for _ in range(int(doubled // 2)):
            result = self.multiply(result, x)
        return result if exponent >= 0 else self.reciprocal(result)

    def remainder_of_log1p(self, x: Array) -> Array:
        """x - log(1 + x), which is >= 0, without cancellation near 0.

        With z = x / (2 + x), log(1 + x) = 2 (z + z³/3 + z⁵/5 + ...), and x - 2z = x·z.
        """
        near = self.abs(x) < 0.125
        small = self.where(near, x, 0.0)
        z = self.divide(small, 2.0 + small)
        z_squared = self.square(z)
        series = self.where(x == x, 1 / 17, x)
        for odd in (15, 13, 11, 9, 7, 5, 3):
            series = self.multiply(series, z_squared) + 1 / odd
        cubic = self.multiply(self.multiply(z_squared, z), series)
        return self.where(near, self.multiply(small, z) - self.double(cubic), x - self.log1p(self.where(near, 0.0, x)))

    # Reductions other than the sum do not round.

    def max(self, x: Array, axis: tuple[int, ...]) -> Array:
        """Largest entry over `axis`, kept with size 1; NaN if there is one (R6)."""
        is_nan = x != x
        largest = self.raw_max(self.where(is_nan, 0.0, x), axis)
        return self.where(self.any(is_nan, axis), float("nan"), largest)

    def any(self, condition: Array, axis: tuple[int, ...]) -> Array:
        """Whether one entry over `axis`, kept with size 1, is true."""
        return self.raw_max(self.cast(condition, "float32"), axis) > 0.5

    def raw_max(self, x: Array, axis: tuple[int, ...]) -> Array:
        """Largest entry over `axis`, kept with size 1, where there is no NaN."""
        return self.lib.max(x, axis=axis, keepdims=True) if axis else x

    def raw_power(self, x: Array, exponent: float) -> Array:
        return self.lib.power(x, exponent)

    def raw_matmul(self, x: Array, y: Array) -> Array:
        return self.lib.matmul(x, y)

    def permute(self, x: Array, order: tuple[int, ...]) -> Array:
        return self.lib.transpose(x, order)

    def constant(self, array: np.ndarray, like: Array) -> Array:
        """Return a NumPy array as an array of this library, on the device of `like`."""
        return self.lib.asarray(array)

    def pullback(self, function: Callable[[Array], Array], x: Array, weight: Array | float) -> Array:
        """Return the gradient of Σ weight · function(x) by the framework's autodiff."""
        raise UnsupportedError(
            "this penalty defines no terms_gradient, and NumPy has no autodiff; "
            "define terms_gradient, or ask an adapter (torch, JAX, TensorFlow) for the gradient."
        )

    def matmul(self, x: Array, y: Array, minus: Array | float = 0.0) -> Array:
        """Product of two matrices, less `minus`, with the same bits whatever the order of its sums.

        Both factors are cut into slices so short that a product of two slices has no
        rounding at all (K. Ozaki et al., Numerical Algorithms 59, 2012). What is left below
        the last slice, 2⁻⁵⁴ of the largest entry of a row or column, is added inexactly.
        `minus` meets the product of the first slices, so that it may cancel all leading digits.
        """
        bits, slices = (18, 3) if isinstance(x.shape[1], int) and x.shape[1] <= 1 << 15 else (13, 5)
        left, left_rest = self._slices(x, 1, bits, slices)
        right, right_rest = self._slices(y, 0, bits, slices)
        total = self._product(left_rest, y) + self._product(x - left_rest, right_rest)
        for order in reversed(range(1, 2 * slices - 1)):
            for i in range(max(0, order - slices + 1), min(order, slices - 1) + 1):
                total = total + self._product(left[i], right[order - i])
        return total + (self._product(left[0], right[0]) - minus)

    def _product(self, x: Array, y: Array) -> Array:
        # Guarded, or a compiler makes one operation of the product and the following sum.
        return self.guard(self.raw_matmul(x, y))

    def _slices(self, x: Array, axis: int, bits: int, slices: int) -> tuple[list[Array], Array]:
        found = []
        for _ in range(slices):
            shift = self.max(self.abs(x), (axis,)) * 2.0 ** (53 - bits)
            found.append(self.guard(x + shift) - shift)
            x = x - found[-1]
        return found, x

    # Sums have one order everywhere.

    def sum(self, x: Array, axis: tuple[int, ...] | None = None) -> Array:
        """Sum by a halving tree: over each axis of `axis`, kept with size 1, or all to 0-d."""
        if axis is None:
            return self.reshape(self.halve(self.reshape(x, (-1,)), 0), ())
        for index in axis:
            x = self.halve(x, index)
        return x

    def halve(self, x: Array, axis: int) -> Array:
        """Add the upper half of an axis onto the lower until one entry is left.

        The halves meet at the largest power of two below the size, so a short upper half
        leaves the rest of the lower half as it is: the same bits as padding with zeros.
        """
        size = int(x.shape[axis])
        if size == 0:
            return self.zeros(x, (*x.shape[:axis], 1, *x.shape[axis + 1 :]))
        while size > 1:
            half = power_of_two_below(size)
            met, high = cut(x, axis, 0, size - half), cut(x, axis, half, size)
            x = met + high if size == 2 * half else self.concat([met + high, cut(x, axis, size - half, half)], axis)
            size = half
        return x


def power_of_two_below(size: int) -> int:
    """Return the largest power of two that is smaller than `size` (which is at least 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def cut(x: Array, axis: int, start: int, stop: int) -> Array:
    """Return x[..., start:stop, ...] along `axis`."""
    return x[(slice(None),) * axis + (slice(start, stop),)]
