"""The suite cannot be emptied unseen: every check objects to wrong values and to wrong gradients.

An adapter that is wrong in one of the two everywhere must be told so by every clause. A check
that is removed, or that compares nothing, leaves its clause silent here; and where a judge is
made blind, the test below says which of the suite's own tests turn red.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import numpy_adapters
from arspec_conformance import bench, judges
from arspec_conformance.clauses import CLAUSES, TIERS, Clause, _placements
from arspec_conformance.runner import FAIL, PASS, QUALITY, questions, run

OF_MODELS = [clause for clause in CLAUSES if clause.tier == "P"]
LOUD = "Model-P11"


class Wrong(numpy_adapters.Right):
    """Right in one part, in the other another wrong number at every call."""

    def __init__(self, part: str) -> None:
        self.part, self.calls = part, 0

    def capabilities(self) -> frozenset[str]:
        return super().capabilities() | {"identical"}

    def value_and_gradient(self, penalty: Any, x: np.ndarray, **options: Any) -> tuple[Any, Any]:
        self.calls += 1
        value, gradient = super().value_and_gradient(penalty, x, **options)
        if self.part == "value":
            return np.full_like(value, 1000 + self.calls), gradient
        wrong = np.full_like(gradient, 3 + self.calls % 7)
        return value, wrong if wrong.size else wrong[..., None]


def status(adapter: Any, clause: Clause, dtype: str = "float32") -> str:
    asked = list(questions(adapter, [clause], profile="full", modes=("eager",), dtypes=(dtype,)))
    (result,) = run(adapter, asked, profile="quick", examples=1)
    return result.status


# Each check in turn.


def test_a_check_that_is_removed_fails() -> None:
    """A clause whose check does nothing cannot pass, with whatever adapter."""
    removed = [replace(clause, check=lambda bench: None, needs=()) for clause in CLAUSES]
    assert {status(numpy_adapters.Right(), clause) for clause in removed} == {FAIL}


@pytest.mark.parametrize("part", ["value", "gradient"])
@pytest.mark.parametrize("tier", [tier for tier in TIERS if tier != "P"])
def test_every_clause_objects(tier: str, part: str) -> None:
    """Clause by clause; but the quality of a sum is that of the value alone."""
    demanded = FAIL if tier != "Q" else {"value": QUALITY, "gradient": PASS}[part]
    clauses = [clause for clause in CLAUSES if clause.tier == tier]
    assert clauses
    assert [clause.id for clause in clauses if status(Wrong(part), clause) != demanded] == []


@pytest.mark.parametrize("part", ["values", "total", "gradients", "names", "a gradient too few"])
def test_every_clause_about_models_objects(part: str) -> None:
    clauses = [clause for clause in OF_MODELS if clause.id != LOUD]
    assert [clause.id for clause in clauses if status(numpy_adapters.WrongModels(part), clause) != FAIL] == []


def test_the_reference_passes_its_own_clauses() -> None:
    assert [clause.id for clause in OF_MODELS if status(numpy_adapters.WrongModels("nothing"), clause) != PASS] == []


def test_silence_is_objected_to() -> None:
    (loud,) = (clause for clause in CLAUSES if clause.id == LOUD)
    assert status(numpy_adapters.WrongModels("silence"), loud) == FAIL


# Judges that are blind.


def _canaries() -> list[str]:
    """Return which of a few wrong adapters a clause does not object to: none, as things should be."""
    by_id = {clause.id: clause for clause in CLAUSES}
    asked = {
        "L1-K1": numpy_adapters.SignOfZero(),
        "L1-B1": numpy_adapters.CoefficientOff(),
        "L2-E1": numpy_adapters.CoefficientOff(),
        "L2-S4": numpy_adapters.MaskIgnored(),
        "LInf-S1": numpy_adapters.NanLost(),
        "L1-R1": Wrong("value"),
        "L1-S8": numpy_adapters.PythonFloat(),
        "DeCov-S1": Wrong("gradient"),
        "Model-P1": numpy_adapters.WrongModels("values"),
        "Model-P2": numpy_adapters.WrongModels("names"),
        LOUD: numpy_adapters.WrongModels("silence"),
    }
    return [name for name, adapter in asked.items() if status(adapter, by_id[name]) != FAIL]


def _counting(tally: Any) -> None:
    """Claim to have compared something, as a check that is vacuous without saying so."""
    tally.observed += 1


def _no_bound(trial: Any) -> Any:
    found = judges.exact(trial)
    return judges.Expected(*(replace(p, limit=lambda: np.inf) for _, p in found.items()))


BLINDED: dict[str, tuple[Any, str, Any]] = {
    "nothing is ever too far": (bench, "excess", lambda part, got: np.zeros(got.shape)),
    "nothing is compared": (bench.Bench, "_compare", lambda self, *given: _counting(self.tally)),
    "no bits are compared": (bench.Bench, "same", lambda self, *given: _counting(self.tally)),
    "every entry is left out": (judges, "_part", None),
    "bounds are infinite": (bench, "expected_of", lambda trial, judge: _no_bound(trial)),
    "numbers of models are not compared": (_placements, "_equal", lambda bench, *given: _counting(bench.tally)),
    "names of models are not compared": (_placements, "_same_names", lambda *given: None),
    "a Python float is a tensor": (bench, "_as_array", lambda adapter, name, tensor: np.float32(tensor)),
}


def test_the_canaries_are_objected_to() -> None:
    assert _canaries() == []


@pytest.mark.parametrize("name", BLINDED)
def test_a_blind_judge_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, attribute, blind = BLINDED[name]
    if blind is None:
        blind = _judging_nothing(judges._part)
    monkeypatch.setattr(where, attribute, blind)
    judges._expected_of.cache_clear()
    try:
        survivors = _canaries()
    except Exception as error:
        survivors = [repr(error)]  # the suite's own tests are red then, too
    finally:
        judges._expected_of.cache_clear()
    assert survivors


def _judging_nothing(part: Callable[..., Any]) -> Callable[..., Any]:
    def blind(exact: Any, dtype: Any, limit: Any, judged: Any = True) -> Any:
        return part(exact, dtype, limit, False)

    return blind
