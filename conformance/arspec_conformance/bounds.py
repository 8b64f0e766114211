"""How far two right engines may lie apart: a running error analysis of the formula itself.

The core's formula is run on pairs (value, bound on its error). Each operation adds its own
rounding, u = 2⁻⁵³ relative for the IEEE ones and a few u for log, exp, tanh and pow (the
largest errors seen in NumPy, torch, TensorFlow and XLA, in units in the last place), and
hands on what its operands already carry. So the bound knows about cancellation, and needs
no tolerance of its own. It is for float64, where no wider type hides these errors.

J. H. Wilkinson, Rounding errors in algebraic processes, 1963 (running error analysis).
"""

from dataclasses import replace
from typing import Any

import numpy as np

from arspec import _evaluate
from arspec._axes import Axes
from arspec._namespace import Namespace

U = 2.0**-53
UNDERFLOW = 2.0**-1022  # whatever is flushed to zero is smaller
SLICED = 16  # roundings of adding up the products of slices
ULPS = {"exp": 3, "log": 3, "log1p": 4, "tanh": 7, "power": 3}


class Bounded:
    """Float64 numbers, and for each a bound on its distance to the exact result."""

    __array_ufunc__ = None

    def __init__(self, value: Any, error: Any = 0.0) -> None:
        self.value = np.asarray(value, np.float64)
        self.error = np.broadcast_to(np.asarray(error, np.float64), self.value.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def __getitem__(self, index: Any) -> "Bounded":
        return Bounded(self.value[index], self.error[index])

    def __neg__(self) -> "Bounded":
        return Bounded(-self.value, self.error)

    def __add__(self, other: Any) -> "Bounded":
        other = _lifted(other)
        return _rounded(self.value + other.value, self.error + other.error)

    def __sub__(self, other: Any) -> "Bounded":
        return self + -_lifted(other)

    def __rsub__(self, other: Any) -> "Bounded":
        return -self + other

    def __mul__(self, other: Any) -> "Bounded":
        other = _lifted(other)
        carried = np.abs(self.value) * other.error + (np.abs(other.value) + other.error) * self.error
        return _rounded(self.value * other.value, carried)

    def __truediv__(self, other: Any) -> "Bounded":
        other = _lifted(other)
        value = self.value / other.value
        certain = np.maximum(np.abs(other.value) - other.error, 0.0)
        return _rounded(value, (self.error + np.abs(value) * other.error) / certain)

    def __rtruediv__(self, other: Any) -> "Bounded":
        return _lifted(other) / self

    __radd__, __rmul__ = __add__, __mul__

    # Comparisons steer `where`; the branches of a formula meet continuously at their border.

    def __eq__(self, other: Any) -> Any:
        return self.value == _lifted(other).value

    def __ne__(self, other: Any) -> Any:
        return self.value != _lifted(other).value

    def __lt__(self, other: Any) -> Any:
        return self.value < _lifted(other).value

    def __gt__(self, other: Any) -> Any:
        return self.value > _lifted(other).value

    def __le__(self, other: Any) -> Any:
        return self.value <= _lifted(other).value

    def __ge__(self, other: Any) -> Any:
        return self.value >= _lifted(other).value

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def _lifted(x: Any) -> Bounded:
    return x if isinstance(x, Bounded) else Bounded(x)


def _rounded(value: np.ndarray, carried: np.ndarray, ulps: float = 0.5) -> Bounded:
    return Bounded(value, carried + 2 * ulps * U * np.abs(value) + UNDERFLOW)


class BoundingNamespace(Namespace):
    """The operations of a formula on `Bounded` numbers."""

    def dtype_name(self, x: Any) -> str:
        return "float64" if isinstance(x, Bounded) else x.dtype.name

    def cast(self, x: Any, dtype: str) -> Bounded:
        return _lifted(x)

    def zeros(self, like: Any, shape: tuple[int, ...]) -> Bounded:
        return Bounded(np.zeros(shape))

    def constant(self, array: np.ndarray, like: Any) -> Any:
        return array

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        x, y = _lifted(x), _lifted(y)
        return Bounded(np.where(condition, x.value, y.value), np.where(condition, x.error, y.error))

    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        return Bounded(x.value.reshape(shape), x.error.reshape(shape)) if isinstance(x, Bounded) else x.reshape(shape)

    def concat(self, parts: list[Bounded], axis: int) -> Bounded:
        return Bounded(np.concatenate([p.value for p in parts], axis), np.concatenate([p.error for p in parts], axis))

    def broadcast_to(self, x: Any, shape: tuple[int, ...]) -> Any:
        if not isinstance(x, Bounded):
            return np.broadcast_to(x, shape)
        return Bounded(np.broadcast_to(x.value, shape), np.broadcast_to(x.error, shape))

    def abs(self, x: Bounded) -> Bounded:
        return Bounded(np.abs(x.value), x.error)

    def sign(self, x: Bounded) -> Bounded:
        uncertain = (x.error > 0) & (np.abs(x.value) <= x.error)
        return Bounded(np.sign(x.value), np.where(uncertain, 2.0, 0.0))

    def sqrt(self, x: Bounded) -> Bounded:
        root = np.sqrt(x.value)
        return _rounded(root, np.where(x.error > 0, x.error / np.where(root > 0, root, 1.0), 0.0))

    def exp(self, x: Bounded) -> Bounded:
        value = np.exp(x.value)
        return _rounded(value, value * np.expm1(x.error), ULPS["exp"])

    def log(self, x: Bounded) -> Bounded:
        return _rounded(np.log(x.value), x.error / np.maximum(x.value - x.error, 0.0), ULPS["log"])

    def log1p(self, x: Bounded) -> Bounded:
        return _rounded(np.log1p(x.value), x.error / np.maximum(1.0 + x.value - x.error, 0.0), ULPS["log1p"])

    def tanh(self, x: Bounded) -> Bounded:
        steepest = 1.0 / np.square(np.cosh(np.maximum(np.abs(x.value) - x.error, 0.0)))
        return _rounded(np.tanh(x.value), x.error * steepest, ULPS["tanh"])

    def raw_power(self, x: Bounded, exponent: float) -> Bounded:
        value = np.power(x.value, exponent)
        relative = x.error / np.maximum(x.value - x.error, UNDERFLOW)
        return _rounded(value, np.abs(value * exponent) * relative, ULPS["power"])

    def raw_max(self, x: Bounded, axis: tuple[int, ...]) -> Bounded:
        if not axis:
            return x
        return Bounded(x.value.max(axis, keepdims=True), x.error.max(axis, keepdims=True))

    def matmul(self, x: Bounded, y: Bounded, minus: Any = 0.0) -> Bounded:
        inner, left, right, minus = x.shape[1], np.abs(x.value), np.abs(y.value), _lifted(minus)
        carried = (left + x.error) @ y.error + x.error @ right + minus.error
        largest = 1.0 + np.max(left, initial=0.0) + np.max(right, initial=0.0)
        # For any order of the sum, and of the products of slices it is made of.
        rounded = (2 * inner + SLICED) * U * (left @ right + np.abs(minus.value))
        return Bounded(x.value @ y.value - minus.value, carried + rounded + inner * largest * UNDERFLOW)

    def permute(self, x: Any, order: tuple[int, ...]) -> Any:
        if not isinstance(x, Bounded):
            return np.transpose(x, order)
        return Bounded(np.transpose(x.value, order), np.transpose(x.error, order))


_XP = BoundingNamespace()


def allowed_distance(penalty: Any, x: np.ndarray, axes: Axes, cotangent: float) -> tuple[np.ndarray, np.ndarray]:
    """Return how far apart two right engines may be: for the value, and per entry of the gradient.

    Each of the two lies within the bound of the exact result, hence twice the bound. Where
    the analysis itself overflows, next to the largest numbers, the bound is infinite.

    Parameters
    ----------
    x : float64 array.
    axes : resolved axes, with their mask.
    """
    axes = replace(axes, dtype="float64")
    with np.errstate(all="ignore"):
        value = _evaluate.value(penalty, Bounded(x), xp=_XP, axes=axes)
        gradient = _evaluate.gradient(penalty, Bounded(x), Bounded(cotangent), xp=_XP, axes=axes)
    errors = (_lifted(value).error, _lifted(gradient).error)
    of_value, of_gradient = (2 * np.where(np.isnan(error), np.inf, error) for error in errors)
    return of_value, of_gradient
