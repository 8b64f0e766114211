"""Counting what a mean divides by, with and without a mask."""

from typing import Any

from arspec._axes import Axes
from arspec._namespace import Array, Namespace


def mean_count(shape: tuple[Any, ...], axes: Axes) -> Any:
    """Return the number of entries averaged over in a tensor of `shape`."""
    count = 1
    for index in axes.averaged:
        count *= shape[index]
    return count


def mean_weight(valid: Array, shape: tuple[Any, ...], xp: Namespace, axes: Axes) -> Array:
    """Return 1 / (number of valid entries averaged over) per position, 0 where there is none."""
    sizes = enumerate(zip(shape, xp.shape(valid), strict=True))
    full = tuple(n if i in axes.averaged else m for i, (n, m) in sizes)
    counted = xp.sum(xp.cast(xp.broadcast_to(valid, full), "float64"), axes.averaged)
    return xp.where(counted == 0, 0.0, xp.reciprocal(xp.where(counted == 0, 1.0, counted)))
