"""The Euclidean norm of groups, safe for every magnitude, and its gradient."""

from typing import NamedTuple

from arspec._axes import Axes
from arspec._bounded import in_range
from arspec._namespace import SMALLEST_NORMAL, Array, Namespace


def large_scales(exponent: int) -> tuple[tuple[float, float], ...]:
    """Return pairs: beyond the first number, x is multiplied by the second, a power of two.

    That does not round, and what is left lies within 2^±exponent, so that even fourth powers
    neither overflow nor underflow. The reciprocals serve x that is too small.
    """
    return (
        (2.0**exponent, 2.0 ** (1 - 2 * exponent)),
        (2.0 ** (3 * exponent - 1), 2.0 ** (2 - 4 * exponent)),
    )


class Norm(NamedTuple):
    """‖x‖₂ of each group, ‖scale · x‖₂, and the power of two `scale`."""

    length: Array
    scaled: Array
    scale: Array | float


def reduced(shape: tuple[int, ...], index: tuple[int, ...]) -> tuple[int, ...]:
    """Return `shape` with size 1 at the axes of `index`."""
    return tuple(1 if i in index else n for i, n in enumerate(shape))


def scale_of(x: Array, index: tuple[int, ...], *, xp: Namespace, axes: Axes) -> Array | float:
    """Return the power of two by which a group is multiplied so that its squares are representable.

    A float32 lifted to float64 needs none: its squares fit.
    """
    if in_range(axes.dtype, xp):
        return 1.0
    largest = xp.max(xp.abs(x), index)
    scale = xp.where(largest == largest, 1.0, 1.0)
    for bound, factor in large_scales(xp.exponent):
        scale = xp.where(largest > bound, factor, scale)
        scale = xp.where(largest < 1 / bound, 1 / factor, scale)
    return scale


def times(x: Array, scale: Array | float, xp: Namespace) -> Array:
    """Return x · scale, at no cost where the scale is 1."""
    return x if isinstance(scale, float) and scale == 1.0 else xp.multiply(x, scale)


def norm(x: Array, index: tuple[int, ...], *, xp: Namespace, axes: Axes) -> Norm:
    """Return ‖x‖₂ over the axes `index`, kept with size 1."""
    scale = scale_of(x, index, xp=xp, axes=axes)
    scaled = root(xp.sum(xp.square(times(x, scale, xp)), index), xp)
    length = scaled if isinstance(scale, float) else xp.multiply(scaled, xp.reciprocal(scale))
    return Norm(length, scaled, scale)


def root(x: Array, xp: Namespace) -> Array:
    """Return √x with a derivative that stays finite at 0."""
    return xp.where(x == 0, 0.0, xp.sqrt(xp.where(x == 0, 1.0, x)))


def norm_gradient(x: Array, of: Norm, weight: Array | float, xp: Namespace) -> Array:
    """Return weight · x / ‖x‖, and 0 where the norm is 0."""
    inverse = xp.reciprocal(xp.where(of.scaled == 0, 1.0, of.scaled))
    unit = times(xp.multiply(x, inverse), of.scale, xp)
    # A subnormal share of the norm counts as 0 everywhere: TensorFlow makes it 0, and ∞ · 0 is NaN.
    unit = unit if isinstance(of.scale, float) else xp.flush(unit, SMALLEST_NORMAL["float64"])
    return xp.multiply(weight, unit)
