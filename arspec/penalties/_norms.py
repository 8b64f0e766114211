"""The Euclidean norm of groups, safe for every magnitude, and its gradient."""

from arspec._axes import Axes
from arspec._namespace import Array, Namespace

LARGE = 1e140  # squares of float64 between 1/LARGE and LARGE neither overflow nor underflow


def reduced(shape: tuple[int, ...], index: tuple[int, ...]) -> tuple[int, ...]:
    """Return `shape` with size 1 at the axes of `index`."""
    return tuple(1 if i in index else n for i, n in enumerate(shape))


def unit(x: Array, index: tuple[int, ...], *, xp: Namespace, axes: Axes) -> Array:
    """Return what to divide a group by so that its squares are representable: 1, or its maximum.

    A lifted float32 needs nothing; only float64 reaches magnitudes whose squares do not fit.
    """
    largest = xp.max(xp.abs(x), index)
    extreme = ((largest > LARGE) | (largest < 1 / LARGE)) & (largest > 0.0) & (largest < float("inf"))
    # A quarter, so that the reciprocal of the largest float64 is not subnormal.
    return xp.where(extreme, xp.where(largest > LARGE, 0.25 * largest, largest), 1.0)


def norm(x: Array, index: tuple[int, ...], *, xp: Namespace, axes: Axes) -> Array:
    """Return ‖x‖₂ over the axes `index`, kept with size 1."""
    if axes.dtype != "float64":
        return root(xp.sum(xp.square(x), index), xp)
    scale = unit(x, index, xp=xp, axes=axes)
    return xp.multiply(scale, root(xp.sum(xp.square(xp.divide(x, scale)), index), xp))


def root(x: Array, xp: Namespace) -> Array:
    """Return √x with a derivative that stays finite at 0."""
    return xp.where(x == 0, 0.0, xp.sqrt(xp.where(x == 0, 1.0, x)))


def norm_gradient(x: Array, length: Array, weight: Array | float, xp: Namespace) -> Array:
    """Return weight · x / ‖x‖, and 0 where the norm is 0."""
    inverse = xp.reciprocal(xp.where(length == 0, 1.0, length))
    return xp.multiply(weight, xp.multiply(x, inverse))
