"""Counting what a mean divides by, with and without a mask."""

from math import prod
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
    counted = valid_count(valid, shape, axes.averaged, xp)
    return xp.where(counted == 0, 0.0, xp.reciprocal(xp.where(counted == 0, 1.0, counted)))


def valid_count(valid: Array, shape: tuple[Any, ...], index: tuple[int, ...], xp: Namespace) -> Array:
    """Return the number of valid entries over the axes `index` of a tensor of `shape`, in the working dtype."""
    sizes = enumerate(zip(shape, xp.shape(valid), strict=True))
    full = tuple(n if i in index else m for i, (n, m) in sizes)
    return xp.sum(xp.cast(xp.broadcast_to(valid, full), xp.wide), index)


def group_count(x: Array, index: tuple[int, ...], xp: Namespace, axes: Axes) -> Array | float:
    """Return the number of entries, or of valid ones, over the axes `index` of x, as float64."""
    if axes.mask is not None:
        return valid_count(axes.mask, xp.shape(x), index, xp)
    sizes = [xp.shape(x)[i] for i in index]
    if all(isinstance(n, int) for n in sizes):
        return float(prod(sizes))
    return xp.sum(xp.where(x == x, 1.0, 1.0), index)
