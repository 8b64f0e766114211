"""What is penalized: each penalty as a spec says it, and as people write it by hand.

An idiom is written against `Ops`, which each framework fills with its own functions, so
that "by hand" is the same sentence everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import arspec as ar

BATCH = 128
C = 1e-4
RHO = 0.05


@dataclass(frozen=True, slots=True)
class Ops:
    """The functions of a framework that the idioms need; `sum` and `mean` take an axis or None."""

    abs: Callable[..., Any]
    square: Callable[..., Any]
    sqrt: Callable[..., Any]
    log: Callable[..., Any]
    log1p: Callable[..., Any]
    sum: Callable[..., Any]
    mean: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A penalty, the arguments of `value`, and the idiom; `unit` says that x lies in (0, 1)."""

    name: str
    penalty: ar.Penalty
    idiom: Callable[[Any, Ops], Any]
    options: dict[str, Any] = field(default_factory=lambda: {"mean_over": ("batch",)})
    unit: bool = False

    def array(self, size: int) -> np.ndarray:
        """Return a float32 array of about `size` entries, (128, size / 128)."""
        rng = np.random.default_rng(0)
        shape = (BATCH, size // BATCH)
        x = rng.random(shape, np.float32) if self.unit else rng.standard_normal(shape, np.float32)
        return 0.02 + 0.96 * x if self.unit else x


def _l1(h: Any, o: Ops) -> Any:
    return C * o.sum(o.abs(h), None) / BATCH


def _l2(h: Any, o: Ops) -> Any:
    return C * o.sum(o.square(h), None) / BATCH


def _ar_tar(h: Any, o: Ops) -> Any:
    return 2.0 * o.mean(o.square(h), None) + o.mean(o.square(h[1:] - h[:-1]), None)


def _kl(h: Any, o: Ops) -> Any:
    rho = o.mean(h, 0)
    return C * o.sum(RHO * o.log(RHO / rho) + (1 - RHO) * o.log((1 - RHO) / (1 - rho)), None)


def _group_lasso(h: Any, o: Ops) -> Any:
    return C * o.sum(o.sqrt(o.sum(o.square(h), 1)), None)


def _hoyer(h: Any, o: Ops) -> Any:
    return C * o.mean(o.sum(o.abs(h), 1) / o.sqrt(o.sum(o.square(h), 1)), None)


def _student_t(h: Any, o: Ops) -> Any:
    return C * o.sum(o.log1p(o.square(h)), None) / BATCH


_SUM: dict[str, Any] = {"mean_over": ()}
_IN_TIME: dict[str, Any] = {"mean_over": "mean", "axes": "time feature"}

CASES = (
    Case("L1", ar.L1(C), _l1),
    Case("L2", ar.L2(C), _l2),
    Case("L1L2", ar.L1L2(C, C), lambda h, o: _l1(h, o) + _l2(h, o)),
    Case("AR+TAR", ar.L2(2.0) + ar.TemporalDifference(1.0), _ar_tar, _IN_TIME),
    Case("KL", ar.KLSparsity(C, target=RHO), _kl, unit=True),
    Case("GroupLasso", ar.GroupLasso(C, norm_over=("feature",)), _group_lasso, _SUM),
    Case("Hoyer", ar.Hoyer(C), _hoyer),
    Case("StudentT", ar.StudentT(C), _student_t),
)


def chosen(quick: bool) -> tuple[Case, ...]:
    """Return every case, or the three that a quick run takes."""
    return tuple(case for case in CASES if not quick or case.name in ("L1", "L2", "KL"))
