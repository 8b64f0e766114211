"""Tier K: the kink table of the core, each row a clause."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from arspec.kinks import KINKS, Kink
from arspec_conformance.bench import Bench, Violation
from arspec_conformance.cases import Case
from arspec_conformance.clauses._clause import Clause
from arspec_conformance.family import FAMILY
from arspec_conformance.inputs import as_dtype
from arspec_conformance.judges import exact
from arspec_conformance.trials import Trial


def clauses() -> Iterator[Clause]:
    """Yield one clause per row of the table, numbered within each class of penalties."""
    numbers: dict[str, int] = {}
    labels = {type(member.penalty): member.label for member in reversed(FAMILY)}
    for kink in KINKS:
        name = type(kink.penalty).__name__
        numbers[name] = numbers.get(name, 0) + 1
        shown = {"x": kink.x, "value": kink.value, "gradient": kink.gradient}
        yield Clause(
            f"{name}-K{numbers[name]}",
            f"At {_text(shown['x'])} the value of {kink.penalty} is {kink.value:g}, its gradient "
            f"{_text(kink.gradient)}: {kink.note}.",
            "K",
            lambda bench, kink=kink: _asked(bench, kink),
            labels[type(kink.penalty)],
            needs=("special values",) if not np.isfinite(np.asarray(kink.x, float)).all() else (),
        )


def _asked(bench: Bench, kink: Kink) -> None:
    case = Case(f"kink {kink.id}", as_dtype(kink.x, bench.dtype), kink.axes, kink.mean_over)
    trial = Trial(kink.penalty, case)
    try:
        bench.ask(trial, exact)
    except Violation as error:
        token = bench.tally.token
        verdict = _verdict(kink, bench.answer(trial)[1])
        bench.tally.token = token
        raise Violation(f"{verdict}: {error}" if verdict else str(error)) from None


def _verdict(kink: Kink, gradient: np.ndarray) -> str:
    """Say whether a wrong gradient is at least a subgradient."""
    wide = gradient.astype(np.float64)
    if wide.shape != np.shape(kink.gradient) or (wide == np.asarray(kink.gradient)).all():
        return ""
    if kink.lower is None:
        return "not the value that is defined there"
    inside = (np.asarray(kink.lower) <= wide) & (wide <= np.asarray(kink.upper))
    return "a valid subgradient, the wrong convention" if inside.all() else "not a subgradient"


def _text(numbers: Any) -> str:
    if isinstance(numbers, tuple):
        return "(" + ", ".join(_text(n) for n in numbers) + ")"
    return f"{numbers:g}"
