"""The value from sums in whatever order is fastest, where every order gives the same number.

The definition sums in one order. Rounded to float32, the total is nearly always the same in
every other order, too, and that can be proved from the sum at hand: n terms >= 0, added in
any order, give their exact sum within n·2⁻⁵³ of it, and within k·2⁻⁵³ if no term passes through
more than k additions (N. Higham, Accuracy and Stability of Numerical Algorithms, 4.2). If both
ends of that interval round to one number, so does the sum in the order of the definition. Else
there is no answer here and the definition decides.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from arspec._axes import Axes
from arspec._blocks import blocks_of
from arspec._errors import SpecError
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
    if not all(part.penalty.non_negative for part in parts):
        return None
    low = high = 0.0
    for part in parts:
        summed, bound = _sum(part, x, block, xp, axes)
        shape = part.penalty.terms_shape(tuple(x.shape), axes=axes)
        share = part.coefficient / max(mean_count(shape, axes), 1)
        low += summed * (1.0 - bound) * share
        high += summed * (1.0 + bound) * share
    return rounded(low, high)


def slack(roundings: Any) -> Any:
    """Return a relative bound between two sums of terms >= 0, each of which passes through so many additions.

    Twice the roundings of one order, twice again for those of the products and sums that follow.
    """
    return 4.0 * (roundings + 8) * UNIT


def rounded(low: float, high: float) -> np.float32 | None:
    """Return the float32 that every number between two of float64 rounds to, or None."""
    if not high <= LARGEST:  # or NaN
        return None
    nearest = np.float32(low)
    return nearest if nearest == np.float32(high) else None


def _sum(part: Component, x: Array, block: int, xp: Namespace, axes: Axes) -> tuple[float, float]:
    """Return the sum of the terms and a relative bound between it and that of any other order."""
    penalty, total, most, count = part.penalty, 0.0, 1, 0
    lift = xp.narrow if penalty.exact else xp.lift
    for row in _rows(part, x, block, xp, axes):
        row = lift(row)
        terms = penalty.terms(row, xp=xp, axes=axes)
        check_terms(penalty, terms, row, axes)
        total += xp.unordered_sum(terms)
        most, count = max(most, xp.unordered_roundings(math.prod(terms.shape))), count + 1
    return total, slack(most + count)


def _rows(part: Component, x: Array, block: int, xp: Namespace, axes: Axes) -> Iterable[Array]:
    """Return x in pieces: of the flat tensor for an elementwise penalty, else along an axis that is not coupled."""
    if part.penalty.elementwise:
        flat = xp.reshape(x, (-1,))
        size = int(flat.shape[0])
        return (cut(flat, 0, start, min(start + block, size)) for start in range(0, size, block))
    blocks = blocks_of((part,), x, axes, xp)
    return (x,) if blocks is None else blocks.of(x)


def check_terms(penalty: Any, terms: Array, x: Array, axes: Axes) -> None:
    """Raise SpecError unless a penalty returned terms of the shape it says."""
    shape = tuple(x.shape)
    expected = tuple(penalty.terms_shape(shape, axes=axes))
    got = tuple(terms.shape) if hasattr(terms, "shape") else type(terms).__name__
    if got != expected:
        raise SpecError(
            f"{type(penalty).__name__}.terms returned {got} for x of shape {shape}; expected {expected}. "
            "Terms keep every axis of x; arspec does the summing. If they really reduce one (to size 1), "
            "set elementwise = False and define terms_shape."
        )
