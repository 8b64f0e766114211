"""Ask one question again, from the token of a report."""

import argparse
from typing import Any

import numpy as np

from arspec import SpecError
from arspec.penalties._base import to_document
from arspec_conformance._adapter import Adapter
from arspec_conformance.bench import Bench, Violation
from arspec_conformance.clauses import CLAUSES, Clause
from arspec_conformance.judges import JUDGES, expected_of
from arspec_conformance.runner import FAIL, ONCE, PASS, Question, run
from arspec_conformance.trials import Trial, from_token

SHOWN = 24  # entries of an array


def asked(token: str) -> dict[str, Any]:
    """Return what a token says.

    Raises
    ------
    SpecError: it is not the token of a question, or of a clause that there is.
    """
    document = from_token(token)
    if not {"clause", "adapter", "mode", "device"} <= set(document):
        raise SpecError("the token holds no question of this suite.")
    return document


def answer(adapter: Adapter, arguments: argparse.Namespace, emit: Any) -> int:
    """Ask the question in a worker, emitting one event with what came of it."""
    document = asked(arguments.repro)
    emit("start", name=adapter.name, versions=adapter.versions(), cells=1)
    clause = next((clause for clause in CLAUSES if clause.id == document["clause"]), None)
    found = _of_a_trial(adapter, document) if "trial" in document else _of_a_clause(adapter, document, clause)
    sentence = "" if clause is None else clause.sentence
    emit("cell", cell={"clause": document["clause"], "sentence": sentence, "mode": document["mode"], **found})
    emit("done", cpu_seconds=0.0)
    return 0


def _of_a_trial(adapter: Adapter, document: dict[str, Any]) -> dict[str, Any]:
    try:
        trial, judge = Trial.from_document(document["trial"]), JUDGES[document["judge"]]
    except (KeyError, TypeError, ValueError) as error:
        raise SpecError(f"the token holds no question of this suite: {error!r}.") from None
    mode = next((mode for mode in adapter.modes() if mode.name == document["mode"]), None)
    if mode is None:
        raise SpecError(f"{adapter.name} has no mode {document['mode']!r}.")
    bench = Bench(adapter, mode, trial.case.x.dtype.name, document["device"], document["clause"])
    shown: dict[str, Any] = {
        "status": PASS,
        "message": "",
        "dtype": trial.case.x.dtype.name,
        "penalty": to_document(trial.penalty),
        "x": _listed(trial.case.x),
    }
    try:
        value, gradient = bench.answer(trial)
        for (name, part), got in zip(expected_of(trial, judge).items(), (value, gradient), strict=True):
            shown[name] = {"got": _listed(got), "expected": _listed(part.rounded)}
        bench.ask(trial, judge)
    except Violation as error:
        shown |= {"status": FAIL, "message": str(error)}
    return shown


def _of_a_clause(adapter: Adapter, document: dict[str, Any], clause: Clause | None) -> dict[str, Any]:
    if clause is None:
        raise SpecError(f"there is no clause {document['clause']!r}.")
    modes = {mode.name: mode for mode in (*adapter.modes(), ONCE)}
    question = Question(clause, modes[document["mode"]], document["dtype"])
    (result,) = run(adapter, [question], device=document["device"])
    return {"status": result.status, "message": result.message, "dtype": result.dtype}


def _listed(x: np.ndarray) -> dict[str, Any]:
    flat = [float(n) for n in np.asarray(x).astype(np.float64).ravel()[:SHOWN]]
    return {"shape": list(np.shape(x)), "dtype": str(x.dtype), "numbers": [repr(n) for n in flat]}
