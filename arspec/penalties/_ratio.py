"""Both norms of a group at a common scale: what the Hoyer penalties divide."""

from typing import NamedTuple

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._norms import scale_of, times


class Norms(NamedTuple):
    """x multiplied by `scale`, its ‖·‖₁ and ‖·‖₂² (1 for a zero group), and where a group is zero."""

    x: Array
    l1: Array
    l2_squared: Array
    scale: Array | float
    is_zero: Array


def norms(x: Array, index: tuple[int, ...], *, xp: Namespace, axes: Axes) -> Norms:
    """Return the norms of x over the axes `index`, kept with size 1."""
    scale = scale_of(x, index, xp=xp, axes=axes)
    scaled = times(x, scale, xp)
    l2_squared = xp.sum(xp.square(scaled), index)
    is_zero = l2_squared == 0
    return Norms(scaled, xp.sum(xp.abs(scaled), index), xp.where(is_zero, 1.0, l2_squared), scale, is_zero)
