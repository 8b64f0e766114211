"""What a trial must give, and how far an answer may be off.

The oracle is the definition in float64 on the input as its dtype holds it, before any
rounding to the output's dtype. Never is one backend compared with another.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import ml_dtypes
import numpy as np

import arspec as ar
from arspec._axes import resolve_axes
from arspec._evaluate import with_mask
from arspec._numpy import NumpyNamespace
from arspec_conformance.bits import canonical
from arspec_conformance.bounds import FLOAT32, FLOAT64, AnyOrder, distance_to_exact
from arspec_conformance.cases import DTYPES, Case, options
from arspec_conformance.trials import Trial

_FLOAT64, _FLOAT32 = AnyOrder(FLOAT64), AnyOrder(FLOAT32)
_SAFE64, _SAFE32 = (AnyOrder(replace(within, underflow=0.0)) for within in (FLOAT64, FLOAT32))


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What is expected of a value or a gradient.

    Attributes
    ----------
    exact : in float64, of the shape that is expected.
    dtype : the dtype that is expected.
    limit : what `allowed` is computed with, when an entry is not what `rounded` says.
    judged : which entries are compared; of the others there is only dtype and shape.
    """

    exact: np.ndarray
    dtype: np.dtype[Any]
    limit: Callable[[], Any]
    judged: np.ndarray

    @property
    def allowed(self) -> np.ndarray:
        """How far an entry may be from `exact`; 0 demands the bits of `exact`, rounded once."""
        known = self.limit()
        return np.broadcast_to(np.where(np.isnan(known), np.inf, known), self.exact.shape)

    @property
    def rounded(self) -> np.ndarray:
        """`exact` in the dtype that is expected, half precision by way of float32."""
        with np.errstate(all="ignore"):
            narrow = self.exact if self.dtype == np.float64 else self.exact.astype(np.float32)
            return narrow.astype(self.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """What is expected of a trial."""

    value: Part
    gradient: Part

    def items(self) -> tuple[tuple[str, Part], ...]:
        return ("value", self.value), ("gradient", self.gradient)


def exact(trial: Trial) -> Expected:
    """Demand every bit of the definition, rounded once to the output's dtype."""
    return _expected(trial, _nothing, _nothing)


def bounded(trial: Trial) -> Expected:
    """Allow what arithmetic in float32 (float64 for float64) may lose, with sums in any order."""
    return _within(trial, _FLOAT32, _FLOAT64)


def scaled(trial: Trial) -> Expected:
    """Allow the same, but that nothing underflows on the way: only the result itself may.

    In float64, than which no type is wider, the term of each entry may be flushed as well; what
    a norm divides by may not.
    """
    found = _within(trial, _SAFE32, _SAFE64)
    if trial.case.x.dtype != np.float64:
        return found
    flushed = trial.case.x.size * FLOAT64.underflow
    return Expected(*(replace(p, limit=lambda p=p: p.allowed + flushed) for _, p in found.items()))


def _within(trial: Trial, narrow: AnyOrder, double: AnyOrder) -> Expected:
    wide, oracle = trial.case.x.dtype == np.float64, _oracle(trial)
    if not trial.case.x.size:
        return _expected(trial, _nothing, _nothing, oracle)

    @cache
    def distances() -> tuple[np.ndarray, ...]:
        given = _flushed(trial.case.x), _axes(trial.case), trial.case.cotangent
        errors = distance_to_exact(trial.penalty, *given, double if wide else narrow)
        # In float64 the oracle itself is only as good as the engine.
        factor = 2 if wide else 1
        return tuple(factor * e + _rounding(o, d) for e, o, d in zip(errors, oracle, _dtypes(trial), strict=True))

    return _expected(trial, lambda: distances()[0], lambda: distances()[1], oracle)


def exact_value(trial: Trial) -> Expected:
    """Demand every bit of the value; of the gradient, whose numbers are not dyadic, the bound."""
    return Expected(exact(trial).value, bounded(trial).gradient)


def nan_is_kept(trial: Trial) -> Expected:
    """Demand NaN in the value and in the gradient wherever x is NaN, and nothing of other entries."""
    nan, (value, gradient) = np.float64(np.nan), _dtypes(trial)
    at = np.isnan(_wide(trial.case.x))
    return Expected(_part(nan, value, _nothing), _part(np.full(at.shape, np.nan), gradient, _nothing, at))


def quality(trial: Trial) -> Expected:
    """Allow the value (log₂ n + 8) · u · S, which a pairwise or wider sum keeps; S is the value itself."""
    n = max(trial.case.x.size, 1)
    value, _ = _dtypes(trial)
    allowed = (np.log2(n) + 8) * float(ml_dtypes.finfo(value).eps) / 2 * np.abs(_oracle(trial)[0])
    found = _expected(trial, lambda: allowed, _nothing)
    return Expected(found.value, replace(found.gradient, judged=np.zeros(trial.case.x.shape, bool)))


JUDGES = {judge.__name__: judge for judge in (exact, bounded, scaled, exact_value, nan_is_kept, quality)}


def expected_of(trial: Trial, judge: Callable[[Trial], Expected]) -> Expected:
    """Return what a judge expects; modes and dtypes ask the same again and again."""
    return _expected_of(judge, _Key(trial))


class _Key:
    """A trial that is equal to every other one with the same numbers."""

    def __init__(self, trial: Trial) -> None:
        case, self.trial = trial.case, trial
        mask = None if case.mask is None else (case.mask.shape, case.mask.tobytes())
        x = (case.x.dtype.name, case.x.shape, case.x.tobytes())
        self.key = (trial.penalty, x, case.axes, case.mean_over, mask, case.cotangent)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(maxsize=4096)
def _expected_of(judge: Callable[[Trial], Expected], key: _Key) -> Expected:
    return judge(key.trial)


def excess(part: Part, got: np.ndarray) -> np.ndarray:
    """Return how far each entry is off, as a share of what is allowed; infinite where nothing is.

    An entry that is the exact result rounded once is right, whatever the bound; NaN and
    infinities are right or wrong, never near.
    """
    settled = (canonical(got) == canonical(part.rounded)) | ~part.judged
    if settled.all():  # the common case; a bound takes longer to find than anything else here
        return np.zeros(settled.shape)
    wide = _wide(got)
    with np.errstate(all="ignore"):
        share = np.abs(wide - part.exact) / part.allowed
    # Rounding to the largest number, or beyond it, is one rounding like any other.
    finite = np.isfinite(wide) & np.isfinite(part.exact)
    share = np.where(finite & ~np.isnan(share), share, np.inf)
    return np.where(settled, 0.0, share)


def _oracle(trial: Trial) -> tuple[np.ndarray, np.ndarray]:
    """Return value and gradient of the input in float64; the subnormal of a narrow dtype counts as 0."""
    case = trial.case
    given = {**options(case), "mask": case.mask}
    x = _flushed(case.x)
    upstream = float(np.float32(case.cotangent)) if case.x.dtype != np.float64 else case.cotangent
    value = np.asarray(ar.value(trial.penalty, x, **given))
    return value, ar.gradient(trial.penalty, x, **given, cotangent=upstream)


def _nothing() -> np.float64:
    return np.float64(0.0)


def _expected(
    trial: Trial, of_value: Callable[[], Any], of_gradient: Callable[[], Any], oracle: Any = None
) -> Expected:
    parts = zip(oracle or _oracle(trial), _dtypes(trial), (of_value, of_gradient), strict=True)
    return Expected(*(_part(*part) for part in parts))


def _part(exact: Any, dtype: np.dtype[Any], limit: Callable[[], Any], judged: Any = True) -> Part:
    return Part(np.asarray(exact), dtype, limit, np.broadcast_to(judged, np.shape(exact)))


def _dtypes(trial: Trial) -> tuple[np.dtype[Any], np.dtype[Any]]:
    x = trial.case.x.dtype
    return x if x == np.float64 else np.dtype(np.float32), x


def _rounding(exact: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Return what one rounding to `dtype`, by way of float32, may move a number; subnormals may be flushed."""
    info = ml_dtypes.finfo(dtype)
    u, through = float(info.eps) / 2, 0.0 if dtype.itemsize > 2 else FLOAT32.u
    return np.abs(exact) * (u + through + u * through) + float(info.smallest_normal)


def _axes(case: Case) -> Any:
    axes = resolve_axes(case.x.ndim, case.axes, case.mean_over)
    return with_mask(axes, case.mask, case.x, NumpyNamespace())


def _wide(x: np.ndarray) -> np.ndarray:
    return np.asarray(x).astype(np.float64)


def _flushed(x: np.ndarray) -> np.ndarray:
    smallest = 0.0 if x.dtype == DTYPES["float16"] else float(ml_dtypes.finfo(x.dtype).smallest_normal)
    wide = _wide(x)
    return np.where(np.abs(wide) < smallest, 0.0, wide)
