"""How far two right engines may lie apart: a running error analysis of the formula itself.

The core's formula is run on pairs (value, bound on its error). Each operation adds its own
rounding, u relative for the IEEE ones and a few u for log, exp, tanh and pow (the
largest errors seen in NumPy, torch, TensorFlow and XLA, in units in the last place), and
hands on what its operands already carry. So the bound knows about cancellation, and needs
no tolerance of its own. u = 2⁻⁵³ serves float64, where no wider type hides these errors;
u = 2⁻²⁴ says what a right engine may be off that works in float32.

J. H. Wilkinson, Rounding errors in algebraic processes, 1963 (running error analysis).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from arspec import _evaluate
from arspec._axes import Axes
from arspec._namespace import Namespace

SLICED = 16  # roundings of adding up the products of slices


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What an engine computes in.

    Attributes
    ----------
    dtype : its name.
    u : the unit roundoff.
    underflow : whatever is flushed to zero is smaller.
    ulps : the errors of elementary functions, in units in the last place.
    """

    dtype: str
    u: float
    underflow: float
    ulps: Mapping[str, int] = field(compare=False)

    def rounded(self, value: np.ndarray) -> Any:
        """Return how far a given number, such as a coefficient, lies from the nearest of this arithmetic."""
        with np.errstate(all="ignore"):
            error = np.abs(value.astype(self.dtype).astype(np.float64) - value)
        return np.where(np.isfinite(error), error, 0.0)


FLOAT64 = Arithmetic("float64", 2.0**-53, 2.0**-1022, {"exp": 3, "log": 3, "log1p": 4, "tanh": 7, "power": 3})
FLOAT32 = Arithmetic("float32", 2.0**-24, 2.0**-126, {"exp": 4, "log": 4, "log1p": 5, "tanh": 6, "power": 3})


class Bounded:
    """Float64 numbers, and for each a bound on its distance to the exact result."""

    __array_ufunc__ = None

    def __init__(self, value: Any, error: Any, within: Arithmetic) -> None:
        self.value = np.asarray(value, np.float64)
        self.error = np.broadcast_to(np.asarray(error, np.float64), self.value.shape)
        self.within = within

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def __getitem__(self, index: Any) -> "Bounded":
        return Bounded(self.value[index], self.error[index], self.within)

    def __neg__(self) -> "Bounded":
        return Bounded(-self.value, self.error, self.within)

    def __add__(self, other: Any) -> "Bounded":
        other = _lifted(other, self.within)
        value, carried = self.value + other.value, self.error + other.error
        # The difference of equal numbers is exactly 0, and so its sign is known.
        return Bounded(
            value, np.where((value == 0) & (carried == 0), 0.0, _error(value, carried, self.within)), self.within
        )

    def __sub__(self, other: Any) -> "Bounded":
        return self + -_lifted(other, self.within)

    def __rsub__(self, other: Any) -> "Bounded":
        return -self + other

    def __mul__(self, other: Any) -> "Bounded":
        other = _lifted(other, self.within)
        carried = np.abs(self.value) * other.error + (np.abs(other.value) + other.error) * self.error
        product = _rounded(self.value * other.value, carried, self.within)
        # An infinite entry stays infinite whatever it is multiplied by, if that is surely not 0.
        certain = _surely_infinite(self) & _surely_not_zero(other) | _surely_infinite(other) & _surely_not_zero(self)
        return Bounded(product.value, np.where(certain, 0.0, product.error), self.within)

    def __truediv__(self, other: Any) -> "Bounded":
        other = _lifted(other, self.within)
        value = self.value / other.value
        certain = np.maximum(np.abs(other.value) - other.error, 0.0)
        return _rounded(value, (self.error + np.abs(value) * other.error) / certain, self.within)

    def __rtruediv__(self, other: Any) -> "Bounded":
        return _lifted(other, self.within) / self

    __radd__, __rmul__ = __add__, __mul__

    # Comparisons steer `where`; the branches of a formula meet continuously at their border.

    def __eq__(self, other: Any) -> Any:
        return self.value == _lifted(other, self.within).value

    def __ne__(self, other: Any) -> Any:
        return self.value != _lifted(other, self.within).value

    def __lt__(self, other: Any) -> Any:
        return self.value < _lifted(other, self.within).value

    def __gt__(self, other: Any) -> Any:
        return self.value > _lifted(other, self.within).value

    def __le__(self, other: Any) -> Any:
        return self.value <= _lifted(other, self.within).value

    def __ge__(self, other: Any) -> Any:
        return self.value >= _lifted(other, self.within).value

    __hash__ = None  # pyright: ignore[reportAssignmentType]


def _surely_infinite(x: Bounded) -> np.ndarray:
    return np.isinf(x.value) & (x.error == 0)


def _surely_not_zero(x: Bounded) -> np.ndarray:
    return np.abs(x.value) > x.error


def _lifted(x: Any, within: Arithmetic) -> Bounded:
    if isinstance(x, Bounded):
        return x
    number = np.asarray(x, np.float64)
    return Bounded(number, within.rounded(number), within)


def _rounded(value: np.ndarray, carried: np.ndarray, within: Arithmetic, ulps: float = 0.5) -> Bounded:
    return Bounded(value, _error(value, carried, within, ulps), within)


def _error(value: np.ndarray, carried: np.ndarray, within: Arithmetic, ulps: float = 0.5) -> np.ndarray:
    return carried + 2 * ulps * within.u * np.abs(value) + within.underflow


class BoundingNamespace(Namespace):
    """The operations of a formula on `Bounded` numbers."""

    def __init__(self, within: Arithmetic = FLOAT64) -> None:
        self.arithmetic = within

    def dtype_name(self, x: Any) -> str:
        return "float64" if isinstance(x, Bounded) else x.dtype.name

    def cast(self, x: Any, dtype: str) -> Bounded:
        return _lifted(x, self.arithmetic)

    def flush(self, x: Any, smallest: float) -> Bounded:
        x = _lifted(x, self.arithmetic)
        return Bounded(np.where(np.abs(x.value) < smallest, 0.0, x.value), x.error, self.arithmetic)

    def zeros(self, like: Any, shape: tuple[int, ...]) -> Bounded:
        return Bounded(np.zeros(shape), 0.0, self.arithmetic)

    def constant(self, array: np.ndarray, like: Any) -> Any:
        return array

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        x, y = _lifted(x, self.arithmetic), _lifted(y, self.arithmetic)
        value, error = np.where(condition, x.value, y.value), np.where(condition, x.error, y.error)
        return Bounded(value, error, self.arithmetic)

    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        if not isinstance(x, Bounded):
            return x.reshape(shape)
        return Bounded(x.value.reshape(shape), x.error.reshape(shape), self.arithmetic)

    def concat(self, parts: list[Bounded], axis: int) -> Bounded:
        values, errors = [p.value for p in parts], [p.error for p in parts]
        return Bounded(np.concatenate(values, axis), np.concatenate(errors, axis), self.arithmetic)

    def broadcast_to(self, x: Any, shape: tuple[int, ...]) -> Any:
        if not isinstance(x, Bounded):
            return np.broadcast_to(x, shape)
        return Bounded(np.broadcast_to(x.value, shape), np.broadcast_to(x.error, shape), self.arithmetic)

    def abs(self, x: Bounded) -> Bounded:
        return Bounded(np.abs(x.value), x.error, self.arithmetic)

    def sign(self, x: Bounded) -> Bounded:
        uncertain = (x.error > 0) & (np.abs(x.value) <= x.error)
        return Bounded(np.sign(x.value), np.where(uncertain, 2.0, 0.0), self.arithmetic)

    def sqrt(self, x: Bounded) -> Bounded:
        root = np.sqrt(x.value)
        carried = np.where(x.error > 0, x.error / np.where(root > 0, root, 1.0), 0.0)
        return _rounded(root, carried, self.arithmetic)

    def exp(self, x: Bounded) -> Bounded:
        value = np.exp(x.value)
        return self._elementary("exp", value, value * np.expm1(x.error))

    def log(self, x: Bounded) -> Bounded:
        return self._elementary("log", np.log(x.value), x.error / np.maximum(x.value - x.error, 0.0))

    def log1p(self, x: Bounded) -> Bounded:
        return self._elementary("log1p", np.log1p(x.value), x.error / np.maximum(1.0 + x.value - x.error, 0.0))

    def tanh(self, x: Bounded) -> Bounded:
        steepest = 1.0 / np.square(np.cosh(np.maximum(np.abs(x.value) - x.error, 0.0)))
        return self._elementary("tanh", np.tanh(x.value), x.error * steepest)

    def raw_power(self, x: Bounded, exponent: float) -> Bounded:
        value = np.power(x.value, exponent)
        relative = x.error / np.maximum(x.value - x.error, self.arithmetic.underflow)
        # The exponent is rounded as well: x^δ = exp(δ log x).
        logarithm = np.abs(np.log(np.where(x.value > 0, x.value, 1.0)))
        shifted = logarithm * self.arithmetic.rounded(np.asarray(exponent, np.float64))
        return self._elementary("power", value, np.abs(value) * (np.abs(exponent) * relative + shifted))

    def raw_max(self, x: Bounded, axis: tuple[int, ...]) -> Bounded:
        if not axis:
            return x
        return Bounded(x.value.max(axis, keepdims=True), x.error.max(axis, keepdims=True), self.arithmetic)

    def matmul(self, x: Bounded, y: Bounded, minus: Any = 0.0) -> Bounded:
        inner, left, right, minus = x.shape[1], np.abs(x.value), np.abs(y.value), _lifted(minus, self.arithmetic)
        carried = (left + x.error) @ y.error + x.error @ right + minus.error
        largest = 1.0 + np.max(left, initial=0.0) + np.max(right, initial=0.0)
        # For any order of the sum, and of the products of slices it is made of.
        rounded = (2 * inner + SLICED) * self.arithmetic.u * (left @ right + np.abs(minus.value))
        error = carried + rounded + inner * largest * self.arithmetic.underflow
        return Bounded(x.value @ y.value - minus.value, error, self.arithmetic)

    def permute(self, x: Any, order: tuple[int, ...]) -> Any:
        if not isinstance(x, Bounded):
            return np.transpose(x, order)
        return Bounded(np.transpose(x.value, order), np.transpose(x.error, order), self.arithmetic)

    def _elementary(self, name: str, value: np.ndarray, carried: np.ndarray) -> Bounded:
        return _rounded(value, carried, self.arithmetic, self.arithmetic.ulps[name])


class AnyOrder(BoundingNamespace):
    """As above, and a sum may be taken in any order, as the frameworks' own do."""

    def halve(self, x: Any, axis: int) -> Bounded:
        x = _lifted(x, self.arithmetic)
        steps = max(x.shape[axis] - 1, 0) * self.arithmetic.u
        carried = np.sum(x.error, axis=axis, keepdims=True)
        size = np.sum(np.abs(x.value) + x.error, axis=axis, keepdims=True)
        error = carried + steps / (1 - steps) * size + x.shape[axis] * self.arithmetic.underflow
        return Bounded(np.sum(x.value, axis=axis, keepdims=True), error, self.arithmetic)


_TREE = BoundingNamespace()


def allowed_distance(penalty: Any, x: np.ndarray, axes: Axes, cotangent: float) -> tuple[np.ndarray, np.ndarray]:
    """Return how far apart two right engines may be: for the value, and per entry of the gradient.

    Each of the two lies within the bound of the exact result, hence twice the bound. Where
    the analysis itself overflows, next to the largest numbers, the bound is infinite.

    Parameters
    ----------
    x : float64 array.
    axes : resolved axes, with their mask.
    """
    errors = distance_to_exact(penalty, x, axes, cotangent, _TREE)
    of_value, of_gradient = (2 * error for error in errors)
    return of_value, of_gradient


def distance_to_exact(
    penalty: Any, x: np.ndarray, axes: Axes, cotangent: float, xp: BoundingNamespace
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far the formula, computed as `xp` says, may be from its exact result; infinite if unknown."""
    axes = replace(axes, dtype="float64")
    number, upstream = (_lifted(np.asarray(a, np.float64), xp.arithmetic) for a in (x, cotangent))
    with np.errstate(all="ignore"):
        value = _evaluate.value(penalty, number, xp=xp, axes=axes)
        gradient = _evaluate.gradient(penalty, number, upstream, xp=xp, axes=axes)
    of_value, of_gradient = (_lifted(found, xp.arithmetic).error for found in (value, gradient))
    return np.where(np.isnan(of_value), np.inf, of_value), np.where(np.isnan(of_gradient), np.inf, of_gradient)
