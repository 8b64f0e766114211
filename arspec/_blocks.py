"""Blocks along an axis that no penalty couples, so that no float64 tensor of the full size exists.

A penalty of groups, of means or of steps in time computes with whole slices along its own
axes, and slice by slice along every other one: the same operations on the same numbers.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from arspec._axes import Axes
from arspec._namespace import Array, Namespace, cut

# Entries that are worth the calls of one more block.
SMALLEST = 1 << 18


@dataclass(frozen=True, slots=True)
class Blocks:
    """Where a tensor is cut: along `axis`, `length` entries at a time."""

    axis: int
    length: int
    size: int

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((start, min(start + self.length, self.size)) for start in range(0, self.size, self.length))

    def of(self, x: Array) -> Iterator[Array]:
        """Return the blocks of x."""
        return (cut(x, self.axis, start, stop) for start, stop in self)


def blocks_of(parts: tuple[Any, ...], x: Array, axes: Axes, xp: Namespace) -> Blocks | None:
    """Return how to cut x for all parts of a penalty, or None where it is to be taken whole."""
    block = xp.block_size(x) if xp.mutable_arrays else None
    if block is None or axes.mask is not None or not parts:
        return None
    block, size = max(block, SMALLEST), math.prod(x.shape)
    if size <= block:
        return None
    coupled = {index for part in parts for index in part.penalty.coupled(len(x.shape), axes=axes)}
    free = [index for index in range(len(x.shape)) if index not in coupled and x.shape[index] > 1]
    if not free:
        return None
    # The longest axis gives blocks of the right size; of two, the first, whose blocks lie in one piece.
    axis = max(free, key=lambda index: (int(x.shape[index]), -index))
    length = max(1, block * int(x.shape[axis]) // size)
    return Blocks(axis, length, int(x.shape[axis]))
