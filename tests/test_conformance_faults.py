"""The suite kills every planted fault, spares right adapters, and explains a fault nobody planted."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import arspec as ar
import numpy_adapters
from arspec import cli
from arspec_conformance import Mode, kills
from arspec_conformance._adapter import COMPILED, COSTLY
from arspec_conformance.clauses import CLAUSES
from arspec_conformance.faulty import FAULTS, NO_FAULT, Call, Fault, FaultyAdapter
from arspec_conformance.runner import FAIL, questions, run
from arspec_conformance.suite import chosen_clauses
from modes import torch_modes

NUMPY = numpy_adapters.Right()


def row(fault: Fault, adapter: Any = NUMPY) -> kills.Row:
    return kills._row(adapter, fault, "cpu")


def test_there_are_enough_faults_and_each_has_a_name() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 90
    assert all(fault.sentence.endswith(".") for fault in FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_killed(fault: Fault) -> None:
    found = row(fault, torch_modes.ADAPTER if fault.model else NUMPY)
    assert found.verdict == kills.KILLED
    assert found.killers
    assert found.message


def test_torch_kills_too() -> None:
    by_name = {fault.name: fault for fault in FAULTS}
    for name in ("right derivative", "eager right, others wrong", "baked in", "wide gradient", "many entries"):
        assert row(by_name[name], torch_modes.ADAPTER).verdict == kills.KILLED, name


def test_a_right_adapter_is_spared() -> None:
    found = row(NO_FAULT)
    assert (found.verdict, found.killers) == (kills.SPARED, {})
    assert found.asked > 1000


class Compiled(numpy_adapters.Right):
    """An adapter that compiles in every mode, as JAX does: the profile quick asks it less."""

    def modes(self) -> tuple[Mode, ...]:
        return Mode("eager", COMPILED), Mode("jit", COMPILED), Mode("vmap", COSTLY)


@pytest.mark.parametrize("name", ["axis 0 is the batch", "names ignored", "0 · NaN", "many entries", "four axes"])
def test_what_one_penalty_stands_for_is_killed(name: str) -> None:
    (fault,) = (fault for fault in FAULTS if fault.name == name)
    found = row(fault, Compiled())
    assert found.verdict == kills.KILLED
    assert all(clause.startswith("L1L2-") for clause in found.killers.values())


def test_every_clause_is_asked_of_a_penalty_where_every_mode_compiles() -> None:
    kinds = [
        {clause.id.rpartition("-")[2] for clause in clauses if clause.tier not in "KP"}
        for clauses in ([question.clause for question in questions(Compiled(), CLAUSES)], CLAUSES)
    ]
    assert kinds[0] == kinds[1]


def test_a_fault_of_models_is_killed_for_what_it_does() -> None:
    """Not because an adapter tells its penalties in another order."""

    class Reversed(numpy_adapters.WrongModels):
        def build(self, *given: Any) -> Any:
            model = super().build(*given)
            measure = model.measure

            def backwards(x: np.ndarray) -> Any:
                found = measure(x)
                return replace(found, values=dict(reversed(found.values.items())))

            model.measure = backwards
            return model

    by_name = {fault.name: fault for fault in FAULTS}
    assert row(by_name["rows of a kernel"], Reversed("nothing")).killers == {"P": "Model-P12"}
    assert row(by_name["bias for kernel"], Reversed("nothing")).killers == {"P": "Model-P3"}


def test_a_fault_that_does_nothing_survives() -> None:
    """The kill matrix can be red."""
    assert row(Fault("nothing", "Nothing is wrong.", Call.run, ("huber",))).verdict == kills.SURVIVED


def test_what_an_adapter_cannot_have_is_not_counted() -> None:
    others = Fault("x", "Only in a third mode.", modes=3), Fault("y", "In models.", model=lambda asked: None)
    assert [row(other).verdict for other in others] == [kills.NOT_APPLICABLE] * 2
    rows = [{"verdict": kills.NOT_APPLICABLE}, {"verdict": kills.KILLED}, {"verdict": kills.SPARED}]
    assert kills.score(rows) == {
        "planted": 1,
        "killed": 1,
        "survived": 0,
        "false_alarms": 0,
        "not_applicable": 1,
    }


# Faults that are not in the list: what a stranger reads.


def only_below(call: Call) -> Any:
    """Huber compares x, not |x|, with δ."""
    value, gradient = call.run()
    if isinstance(call.penalty, ar.Huber):
        gradient = np.where(call.x < 0, call.run(penalty=ar.L2(call.penalty.coefficient / 2))[1], gradient)
    return value, gradient


def images_only(call: Call) -> Any:
    """A sum over the wrong axis, for four axes only."""
    if call.x.ndim != 4 or call.mean_over != "sum" or not isinstance(call.penalty, ar.GroupLasso):
        return call.run()
    return call.run(axes="batch feature width height")


@pytest.mark.parametrize(
    ("answer", "clause", "texts"),
    [
        (only_below, "Huber-E1", ("gradient[", " at x = -", "; expected ", "'name': 'huber'", "mean_over='batchmean'")),
        (
            images_only,
            "GroupLasso-B4",
            (
                "value is ",
                "; expected ",
                "off by ",
                "'name': 'group_lasso'",
                "float32 of shape (2, 3, 3, 5) (batch height width feature)",
                "It is wrong on shapes (2, 3, 3, 5); right on (5, 3), (1, 1), (2, 3, 2, 3, 5).",
                "It is what the definition gives for axes='batch feature width height'.",
            ),
        ),
    ],
)
def test_an_unplanted_fault_is_explained(answer: Any, clause: str, texts: tuple[str, ...]) -> None:
    wrong = FaultyAdapter(NUMPY, Fault("unplanted", "?", answer))
    asked = list(questions(wrong, chosen_clauses([clause]), modes=("eager",), dtypes=("float32",)))
    (result,) = run(wrong, asked)
    assert result.status == FAIL
    assert result.token
    for text in texts:
        assert text in result.message


@pytest.mark.parametrize(
    ("name", "clause", "text"),
    [
        ("mean over everything", "L1-B1", "It is what the definition gives for mean_over='mean'."),
        ("sum for mean", "L1-B1", "It is what the definition gives for mean_over='sum'."),
        ("counted twice", "L1-B1", "It is what the definition gives for twice the coefficient."),
        ("names ignored", "GroupLasso-B3", "It is what the definition gives for axes='batch time feature'."),
        ("gradient flipped", "L1-B1", None),
        ("NaN lost", "L1-S1", None),
        ("Python float", "L1-B1", None),
    ],
)
def test_what_can_be_explained_is(name: str, clause: str, text: str | None) -> None:
    (fault,) = (fault for fault in FAULTS if fault.name == name)
    wrong = FaultyAdapter(NUMPY, fault)
    (result,) = run(wrong, questions(wrong, chosen_clauses([clause]), modes=("eager",), dtypes=("float32",)))
    assert result.status == FAIL
    assert ("It is what the definition gives" in result.message) == (text is not None)
    assert text is None or text in result.message


def test_what_changes_by_turns_is_told_from_what_is_wrong() -> None:
    by_name = {fault.name: fault for fault in FAULTS}
    flaky = FaultyAdapter(NUMPY, by_name["last bit"])
    asked = list(questions(flaky, chosen_clauses(["L1-E1"]), modes=("eager",), dtypes=("float32",)))
    (result,) = run(flaky, asked)
    assert result.status == FAIL
    assert result.message.startswith("right and wrong by turns, on the same input: value is")


# The command.


def test_the_command_prints_the_kill_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    asked = ["conformance", "selftest", "--backend", "numpy_adapters:Right", "--faults", "mask*"]
    shown = CliRunner().invoke(cli.build(), [*asked, "--json"])
    assert shown.exit_code == 0, shown.output
    document = json.loads(shown.stdout)
    (result,) = document["results"]
    assert result["score"]["killed"] == result["score"]["planted"] == 2
    assert result["score"]["false_alarms"] == 0


def test_the_command_is_red_for_an_adapter_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong without a planted fault is a false alarm, or rather a true one."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    monkeypatch.setattr(kills, "FAULTS", ())
    rows = list(kills.matrix(numpy_adapters.SignOfZero(), faults=()))
    assert [one.verdict for one in rows] == [kills.FALSE_ALARM]
