"""The operations a penalty may use, hardened so that every framework gives the same bits.

`Namespace` writes each of them once over `lib`, a module with NumPy's names. An engine
gives `lib` and the few methods that are about its framework: reading and changing a
dtype, and a guard where its compiler fuses a product into a following sum. Comments name
the rules R1-R13 of docs/numerics.md.
"""

from typing import Any

import numpy as np

Array = Any

FLOAT_DTYPES = ("float16", "bfloat16", "float32", "float64")
SMALLEST_NORMAL = {"bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1022}


class Namespace:
    """Hardened array operations over one array library."""

    lib: Any
    mutable_arrays = False

    # What an engine must give.

    def dtype_name(self, x: Array) -> str:
        """Return the dtype of `x` by NumPy's name, such as "bfloat16"."""
        raise NotImplementedError

    def cast(self, x: Array, dtype: str) -> Array:
        """Convert `x` to the dtype of that name, rounding once to nearest even."""
        raise NotImplementedError

    # What an engine may have to change.

    def guard(self, product: Array) -> Array:
        """Return `product` unchanged, opaque to a compiler that fuses it into a sum (R2)."""
        return product

    def block_size(self, x: Array) -> int | None:
        """Elements to work on at a time where that is faster, else None (R12)."""
        return None

    def shape(self, x: Array) -> tuple[Any, ...]:
        """Return the sizes of `x`; an engine may give a scalar array for one known only at run time."""
        return tuple(x.shape)

    def share(self, coefficient: float, count: Any) -> Array | float:
        """Return coefficient / count in float64, and coefficient where there is nothing to count."""
        return coefficient / max(count, 1)

    def zeros(self, like: Array, shape: tuple[int, ...]) -> Array:
        """Zeros of `shape` with the dtype and device of `like`."""
        return self.lib.zeros_like(like, shape=shape)

    def where(self, condition: Array, x: Array | float, y: Array | float) -> Array:
        return self.lib.where(condition, x, y)

    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array:
        return self.lib.reshape(x, shape)

    def concat(self, parts: list[Array], axis: int) -> Array:
        return self.lib.concatenate(parts, axis=axis)

    def broadcast_to(self, x: Array, shape: tuple[int, ...]) -> Array:
        return self.lib.broadcast_to(x, shape)

    # Dtypes.

    def lift(self, x: Array) -> Array:
        """Convert to float64; a subnormal float32, bfloat16 or float64 counts as 0 (R1, R7)."""
        name = self.dtype_name(x)
        x = self.cast(x, "float32") if name in ("float16", "bfloat16") else x
        wide = self.cast(x, "float64")
        return self.flush(wide, SMALLEST_NORMAL[name]) if name in SMALLEST_NORMAL else wide

    def lower(self, x: Array, dtype: str) -> Array:
        """Round float64 to `dtype`; half precision goes through float32 everywhere (R1)."""
        x = self.cast(x, "float32") if dtype in ("float16", "bfloat16") else x
        return self.cast(x, dtype)

    def flush(self, x: Array, smallest: float) -> Array:
        """Replace what is smaller in magnitude than `smallest` by 0; NaN stays."""
        return self.where(self.abs(x) < smallest, 0.0, x)

    # Elementwise.

    def abs(self, x: Array) -> Array:
        return self.lib.abs(x)

    def sign(self, x: Array) -> Array:
        """-1, 0 or 1, and NaN at NaN (R6)."""
        return self.where(x != x, x, self.lib.sign(x))

    def multiply(self, x: Array | float, y: Array | float) -> Array:
        """x·y, safe to add to something (R2)."""
        return self.guard(x * y)

    def square(self, x: Array) -> Array:
        """x·x, safe to add to something (R2, R5)."""
        return self.guard(x * x)

    def reciprocal(self, x: Array) -> Array:
        """1/x by an IEEE division that no compiler turns into an estimate (R3)."""
        one = self.where(x == x, 1.0, x)
        return self.guard(one / self.guard(x))

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
            low, high = cut(x, axis, 0, half), cut(x, axis, half, size)
            paired = cut(low, axis, 0, size - half) + high
            rest = cut(low, axis, size - half, half)
            x = paired if size == 2 * half else self.concat([paired, rest], axis)
            size = half
        return x


class NumpyNamespace(Namespace):
    """The reference: plain NumPy, float64 inside."""

    lib = np
    mutable_arrays = True

    def dtype_name(self, x: Array) -> str:
        return x.dtype.name

    def cast(self, x: Array, dtype: str) -> Array:
        if dtype == "bfloat16":
            return round_to_bfloat16(x)
        return np.asarray(x).astype(dtype)

    def block_size(self, x: Array) -> int | None:
        return BLOCK


BLOCK = 1 << 17


def power_of_two_below(size: int) -> int:
    """Return the largest power of two that is smaller than `size` (which is at least 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def cut(x: Array, axis: int, start: int, stop: int) -> Array:
    """Return x[..., start:stop, ...] along `axis`."""
    return x[(slice(None),) * axis + (slice(start, stop),)]


def round_to_bfloat16(x: Array) -> Array:
    """Round to bfloat16 with the dtype that `ml_dtypes` registers (a JAX or TensorFlow need)."""
    import ml_dtypes

    return np.asarray(x).astype(ml_dtypes.bfloat16)
