"""Value and gradient in the fewest passes, for eager engines: the same bits by another route.

A penalty may say its sum and its gradient in fused operations (`Kernels`) of an engine. The
sum is then taken in any order; the definition in NumPy rounds to the same number if both ends
of an interval around it do (see `_certified`), and is asked itself where they do not.
"""

import math
from typing import Any, Protocol

from arspec._axes import Axes
from arspec._certified import LARGEST, rounded, slack
from arspec._means import mean_count
from arspec._namespace import Array
from arspec.penalties._base import Penalty


class Kernels(Protocol):
    """The fused operations of an engine, on tensors in their own dtype.

    Sums are float64, in any order, and need not flush subnormal numbers. With exact=False
    (numerics="bounded") sums and products may round to float32 on the way.
    """

    exact: bool
    block: int

    def rows(self, x: Array) -> "list[Array]":
        """Cut x into blocks that stay in cache; one that is small stays as it is."""
        ...

    def filled(self, x: Array) -> "tuple[Array, list[Array]]":
        """Return a tensor like x to be filled, and its blocks, which match those of `rows`."""
        ...

    def sum_of_magnitudes(self, x: Array) -> float:
        """Σ |x|."""
        ...

    def sum_of_squares(self, x: Array) -> float:
        """Σ x²."""
        ...

    def signs(self, x: Array, weight: float, out: Array) -> None:
        """weight · sign x into `out`, where a subnormal x counts as 0 and NaN stays; |weight| <= 2."""
        ...

    def scaled(self, x: Array, weight: float, out: Array) -> None:
        """weight · x into `out`, rounded once; a subnormal x may count as 0 where that makes no normal result."""
        ...


def value(penalty: Penalty, x: Array, kernels: Kernels, axes: Axes) -> float | None:
    """Return the value of a penalty of a tensor that is not empty, or None where only the definition serves."""
    parts = _parts(penalty, axes)
    if not parts:
        return None
    low = high = 0.0
    rows, size = kernels.rows(x), math.prod(x.shape)
    bound = slack(min(size, kernels.block) + len(rows)) if kernels.exact else 0.0
    for coefficient, part in parts:
        share = coefficient / mean_count(x.shape, axes)
        summed = sum([part.quick_sum(row, kernels) for row in rows])
        low += max(summed - size * part.subnormal_term, 0.0) * (1.0 - bound) * share
        high += summed * (1.0 + bound) * share
    if not kernels.exact:
        return high if high <= LARGEST else None  # nor NaN
    found = rounded(low, high)
    return None if found is None else float(found)


def gradient(penalty: Penalty, x: Array, upstream: float, kernels: Kernels, axes: Axes) -> Array | None:
    """Return upstream · d value / d x, or None where only the definition serves."""
    parts = _parts(penalty, axes)
    if len(parts) != 1:
        return None
    coefficient, part = parts[0]
    weight = upstream * (coefficient / mean_count(x.shape, axes))
    if not _is_moderate(weight):
        return None
    out, filled = kernels.filled(x)
    for row, target in zip(kernels.rows(x), filled, strict=True):
        part.quick_gradient(row, weight, kernels, target)
    return out


def _parts(penalty: Penalty, axes: Axes) -> tuple[Any, ...]:
    if axes.mask is not None or axes.dtype == "float64":
        return ()
    parts = tuple([part for part in penalty.components() if part[0] != 0])
    return parts if all(part.quick for _, part in parts) else ()


def _is_moderate(weight: float) -> bool:
    """Return whether a weight is 0, or neither it nor its double leaves the normal numbers of float32 below 2."""
    return weight == 0 or 2.0**-126 <= abs(weight) <= 1.0
