"""The value from sums in whatever order is fastest, where every order gives the same number.

The definition sums in one order. Rounded to float32, the total is nearly always the same in
every other order, too, and that can be proved from the sum at hand: n terms >= 0, added in
any order, give their exact sum within n·2⁻⁵³ of it (N. Higham, Accuracy and Stability of
Numerical Algorithms, 4.2). If both ends of that interval round to one number, so does the
sum in the order of the definition. Else there is no answer here and the definition decides.
"""

from typing import Any

import numpy as np

from arspec._axes import Axes
from arspec._means import mean_count
from arspec._namespace import Array, Namespace, cut
from arspec.penalties._base import Component

UNIT = 2.0**-53

LARGEST = float(np.finfo(np.float32).max)


def value(parts: tuple[Component, ...], x: Array, xp: Namespace, axes: Axes) -> np.float32 | None:
    """Return the value of a penalty of these parts, if any order of the sums proves it, else None."""
    block = xp.unordered_block(x)
    if block is None or axes.dtype == "float64" or axes.mask is not None or 0 in x.shape or not parts:
        return None
    if not all(part.penalty.elementwise and part.penalty.non_negative for part in parts):
        return None
    flat = xp.reshape(x, (-1,))
    low = high = 0.0
    for part in parts:
        summed, slack = _sum(part.penalty, flat, block, xp, axes)
        share = part.coefficient / mean_count(x.shape, axes)
        low += summed * (1.0 - slack) * share
        high += summed * (1.0 + slack) * share
    if not high <= LARGEST:  # or NaN
        return None
    rounded = np.float32(low)
    return rounded if rounded == np.float32(high) else None


def _sum(penalty: Any, flat: Array, block: int, xp: Namespace, axes: Axes) -> tuple[float, float]:
    """Return the sum of the terms and a relative bound between it and that of any other order."""
    lift = xp.narrow if penalty.exact else xp.lift
    size, total = int(flat.shape[0]), 0.0
    for start in range(0, size, block):
        row = lift(cut(flat, 0, start, min(start + block, size)))
        total += xp.unordered_sum(penalty.terms(row, xp=xp, axes=axes))
    # Twice the roundings of one order, twice again for those of the two products and sums that follow.
    return total, 4.0 * (min(size, block) + -(-size // block) + 8) * UNIT
