"""What a wrong answer would be right for: other names of the axes, another reduction, no mask, a factor.

A guess, for whoever reads a failure: it is made only where value and gradient both fit.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np

from arspec._axes import resolve_axes
from arspec_conformance.bench import Bench, Violation
from arspec_conformance.judges import bounded, excess
from arspec_conformance.trials import Trial, from_token

MOST_AXES = 4  # 24 orders
FACTORS = ((2.0, "twice the coefficient"), (0.5, "half the coefficient"))


def explanation(bench: Bench, token: str | None) -> str:
    """Return one sentence, with a blank before it, or nothing.

    Parameters
    ----------
    bench : where the question was asked; it is asked once more.
    token : of the question.
    """
    document = {} if token is None else from_token(token)
    if "trial" not in document:
        return ""
    trial = Trial.from_document(document["trial"])
    try:
        found = bench.answer(trial)
    except Violation:
        return ""
    if not trial.case.x.size or not all(np.isfinite(part.astype(np.float64)).all() for part in found):
        return ""
    met = next((text for text, other in _others(trial) if _fits(other, found)), None)
    return "" if met is None else f" It is what the definition gives for {met}."


def _fits(other: Trial, found: Any) -> bool:
    for (_, part), got in zip(bounded(other).items(), found, strict=True):
        if part.exact.shape != got.shape or part.dtype != got.dtype or (excess(part, got) > 1).any():
            return False
    return True


def _others(trial: Trial) -> Iterator[tuple[str, Trial]]:
    """Yield what differs from a question in one thing, the likeliest first."""
    case = trial.case
    axes = resolve_axes(case.x.ndim, case.axes, case.mean_over)
    if case.mask is not None:
        yield "no mask", replace(trial, case=replace(case, mask=None))
    for mean_over in ("sum", "mean", *(("batchmean",) if "batch" in axes.names else ()), *((n,) for n in axes.names)):
        if set(resolve_axes(case.x.ndim, case.axes, mean_over).mean_over) != set(axes.mean_over):
            yield f"mean_over={mean_over!r}", replace(trial, case=replace(case, mean_over=mean_over))
    for factor, text in FACTORS:
        yield text, replace(trial, penalty=factor * trial.penalty)
    if case.x.ndim <= MOST_AXES and case.mask is None:
        for names in sorted(permutations(axes.names), key=lambda names: _moved(names, axes.names))[1:]:
            yield f"axes={' '.join(names)!r}", replace(trial, case=replace(case, axes=" ".join(names)))


def _moved(names: tuple[str, ...], right: tuple[str, ...]) -> int:
    return sum(name != other for name, other in zip(names, right, strict=True))
