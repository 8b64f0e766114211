"""Value and gradient of an array in CPU memory by fused loops, for eager engines whose users installed numba.

An elementwise penalty is one loop for the value and one for the gradient, prepared once per
shape and coefficient. Any other penalty runs the pipeline of `_evaluate` over `FusedNamespace`.
None says that there is no fused form: the caller asks the definition, whose bits are the same.
"""

import operator
from collections.abc import Callable
from functools import lru_cache, reduce
from typing import Any

import numpy as np

from arspec import _evaluate
from arspec._axes import Axes
from arspec._certified import rounded, slack
from arspec._fused_loops import Prepared, prepared_fill, prepared_total, roundings
from arspec._fusion import FusedNamespace
from arspec._recorded import Expression, Unfusable
from arspec.penalties import Penalty
from arspec.penalties._base import components
from arspec.penalties._custom import uses_autodiff

# A penalty that is not elementwise is recorded anew each time; below, that costs more than it saves.
SMALLEST = 1 << 13

# What recording meets where a penalty does more than a namespace offers; the definition then runs, or complains.
_NO_FORM = (Unfusable, AttributeError, TypeError)


Known = dict[Any, np.ndarray]


def value(penalty: Penalty, x: np.ndarray, axes: Axes, threads: int, known: Known) -> float | None:
    """Return the value of a contiguous float32 or float64 array that is not empty, or None.

    Parameters
    ----------
    axes : of x; what they say of its dtype is the dtype before it was widened to float32.
    threads : that share the work.
    known : sums of x over some axes, which the value needs and the gradient needs again; filled and read.
    """
    sums = _prepared_value(penalty, x.shape, axes) if axes.mask is None else None
    if sums is not None:
        summed = sums.total(x.reshape(-1), threads)
        bound = slack(roundings(x.size))
        found = rounded(summed * (1.0 - bound), summed * (1.0 + bound))
        if found is not None:
            return float(found)
    return _general(_evaluate.value, penalty, x, (), axes, FusedNamespace(threads, known), float)


def gradient(
    penalty: Penalty, x: np.ndarray, upstream: float, axes: Axes, threads: int, known: Known
) -> np.ndarray | None:
    """Return upstream · d value / d x with the dtype of x, or None; arguments as for `value`."""
    loop = _prepared_gradient(penalty, x.shape, axes, upstream) if axes.mask is None else None
    if loop is not None:
        out = np.empty(x.shape, x.dtype)
        loop.fill(x.reshape(-1), out.reshape(-1), 0, threads)
        return out
    cotangent = (np.float64(upstream),)
    return _general(_evaluate.gradient, penalty, x, cotangent, axes, FusedNamespace(threads, known), np.asarray)


def _general(
    run: Callable[..., Any],
    penalty: Penalty,
    x: np.ndarray,
    cotangent: tuple[Any, ...],
    axes: Axes,
    xp: FusedNamespace,
    read: Callable[[Any], Any],
) -> Any:
    if x.size < SMALLEST or axes.mask is not None or uses_autodiff(penalty):
        return None
    try:
        with np.errstate(all="ignore"):
            return read(run(penalty, Expression.of(x), *cotangent, xp=xp, axes=axes))
    except _NO_FORM:
        return None


@lru_cache(maxsize=1024)
def _prepared_value(penalty: Penalty, shape: tuple[int, ...], axes: Axes) -> Prepared | None:
    """Prepare the sum of all terms, each times its coefficient, where any order of it serves."""
    parts = components(penalty)
    if axes.dtype == "float64" or not parts or not all(p.penalty.elementwise and p.penalty.non_negative for p in parts):
        return None
    xp, x = FusedNamespace(), _stand_in(shape, "float32")
    try:
        found: list[Any] = [_evaluate.weighted_terms(part, xp.lift(x), xp, axes) for part in parts]
        return prepared_total(reduce(operator.add, found))
    except _NO_FORM:
        return None


@lru_cache(maxsize=1024)
def _prepared_gradient(penalty: Penalty, shape: tuple[int, ...], axes: Axes, upstream: float) -> Prepared | None:
    parts = components(penalty)
    if not parts or uses_autodiff(penalty) or not all(part.penalty.elementwise for part in parts):
        return None
    x, cotangent = _stand_in(shape, axes.dtype), np.float64(upstream)
    try:
        with np.errstate(all="ignore"):
            return prepared_fill(_evaluate.wide_gradient(penalty, x, cotangent, xp=FusedNamespace(), axes=axes))
    except _NO_FORM:
        return None


def _stand_in(shape: tuple[int, ...], dtype: str) -> Expression:
    """Return an expression like an array of this shape, without its memory."""
    return Expression.of(np.broadcast_to(np.zeros((), "float64" if dtype == "float64" else "float32"), shape))
