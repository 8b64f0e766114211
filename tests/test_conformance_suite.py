"""The clauses and the runner: a right adapter is green, a wrong one red, and nothing passes unseen."""

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
from arspec._axes import resolve_axes
from arspec.kinks import KINKS
from arspec_conformance import specification, suite
from arspec_conformance._adapter import COMPILED, Mode
from arspec_conformance.bench import Bench
from arspec_conformance.bounds import FLOAT32, AnyOrder, distance_to_exact
from arspec_conformance.cases import Case
from arspec_conformance.clauses import CLAUSES, TIERS, Clause
from arspec_conformance.exact_inputs import BY_PENALTY, SHAPE
from arspec_conformance.family import FAMILY, Member
from arspec_conformance.inputs import as_dtype, plain
from arspec_conformance.judges import JUDGES, excess
from arspec_conformance.runner import (
    FAIL,
    PASS,
    PROFILES,
    QUALITY,
    UNSUPPORTED,
    Result,
    drawn_sample,
    questions,
    reach,
    run,
)
from arspec_conformance.trials import Trial, from_token, to_token
from modes import jax_modes, tensorflow_modes, torch_modes

ADAPTERS = {module.ADAPTER.name: module.ADAPTER for module in (torch_modes, tensorflow_modes, jax_modes)}
BY_ID = {clause.id: clause for clause in CLAUSES}


def results(adapter: Any, *patterns: str, profile: str = "quick", **options: Any) -> list[Result]:
    chosen = suite.chosen_clauses(patterns)
    return list(run(adapter, list(questions(adapter, chosen, profile=profile, **options)), profile=profile))


def failures(found: list[Result]) -> list[Any]:
    return [result.to_document() for result in found if result.status == FAIL]


# The clauses.


def test_ids_are_unique_and_say_their_tier() -> None:
    assert len(BY_ID) == len(CLAUSES)
    for clause in CLAUSES:
        assert clause.id.rpartition("-")[2][0] == clause.tier
        assert clause.tier in TIERS
        assert clause.sentence.endswith(".")
        assert clause.level in (1, 2, 3)


def test_every_penalty_and_every_kink_has_its_clauses() -> None:
    names = {type(member.penalty).__name__ for member in FAMILY}
    for tier in "BQSMIR":
        assert {clause.id.rpartition("-")[0] for clause in CLAUSES if clause.tier == tier} >= names
    assert sum(clause.tier == "K" for clause in CLAUSES) == len(KINKS)
    # x log x and log(1 + x²) are no binary fractions but at kinks.
    assert names - {clause.id.rpartition("-")[0] for clause in CLAUSES if clause.tier == "E"} == {
        "StudentT",
        "BinaryEntropy",
    }


@pytest.mark.parametrize("name", BY_PENALTY)
def test_exact_inputs_have_no_rounding_in_float32(name: str) -> None:
    """The formula in float32, its sums in two orders, equals the formula in float64."""
    for given in BY_PENALTY[name]:
        for seed in range(8):
            k = np.random.default_rng(seed).integers(-8, 9, SHAPE)
            x = as_dtype(given.numbers(k), "float32")
            options = {"axes": given.axes, "mean_over": given.mean_over}
            found = numpy_adapters.NarrowSums().value_and_gradient(given.penalty(0.5), x, **options, mode="eager")
            assert found[0] == ar.value(given.penalty(0.5), x, **options)
            if given.gradient_too:
                assert (found[1] == ar.gradient(given.penalty(0.5), x, **options)).all()


@pytest.mark.parametrize("member", FAMILY, ids=lambda member: member.label)
def test_bounds_hold_for_float32_and_are_tight(member: Member) -> None:
    """The same formula in float32 lies within them, and no bound is far above its largest number."""
    x = plain(member, "float32", seed=3)
    axes = resolve_axes(3, None, "batchmean")
    of_value, of_gradient = distance_to_exact(member.penalty, x.astype(float), axes, 1.0, AnyOrder(FLOAT32))
    value, gradient = numpy_adapters.NarrowSums().value_and_gradient(
        member.penalty, x, mean_over="batchmean", mode="eager"
    )
    true = [f(member.penalty, x.astype(float), mean_over="batchmean") for f in (ar.value, ar.gradient)]
    u = 2.0**-24
    assert abs(float(value) - true[0]) <= of_value + u * true[0]
    assert (np.abs(gradient - true[1]) <= of_gradient + u * np.abs(true[1])).all()
    assert of_value <= 1000 * u * true[0]
    assert of_gradient.max() <= 1000 * u * max(np.abs(true[1]).max(), 1e-3)


def test_the_page_of_the_specification_is_made_of_the_clauses() -> None:
    """Made anew by `arspec conformance list --markdown > docs/specification.md`."""
    page = Path(__file__).parents[1] / "docs" / "specification.md"
    assert page.read_text(encoding="utf-8") == specification.specification()
    assert all(f"| {clause.id} |" in specification.specification() for clause in CLAUSES)


# The runner.


def test_a_right_engine_conforms() -> None:
    found = results(numpy_adapters.Right(), modes=("eager",))
    assert failures(found) == []
    assert {result.status for result in found} == {PASS, UNSUPPORTED}
    assert {result.clause for result in found} == set(BY_ID)
    assert {result.clause for result in found if result.status == UNSUPPORTED} == {
        clause.id for clause in CLAUSES if clause.tier in "IP"
    }
    assert all(result.observed > 0 for result in found if result.status == PASS)


@pytest.mark.parametrize("name", ADAPTERS)
def test_our_adapters_pass_the_smoke_test(name: str) -> None:
    found = results(ADAPTERS[name], profile="smoke")
    assert failures(found) == []
    assert len({result.clause for result in found if result.status == PASS}) > 25


def test_torch_conforms() -> None:
    found = results(ADAPTERS["torch"], modes=("eager",))
    assert failures(found) == []
    assert {result.clause for result in found if result.status == PASS} == set(BY_ID)


@pytest.mark.parametrize(
    ("adapter", "clause", "text"),
    [
        ("SignOfZero", "L1-K1", "a valid subgradient, the wrong convention: gradient[0] is 1 at x = 0; expected 0"),
        ("CoefficientOff", "L1-B1", "off by"),
        ("MaskIgnored", "L2-S4", "is nan; expected"),
        ("NanLost", "LInf-S1", "; expected nan"),
        ("PythonFloat", "L1-S8", "a Python float; expected a tensor of the framework"),
        ("Raises", "L2Norm-K1", "the adapter raised ZeroDivisionError: nothing but zeros"),
        ("CoarseTanh", "Tanh-B1", "off by"),
    ],
)
def test_a_wrong_engine_does_not(adapter: str, clause: str, text: str) -> None:
    dtype = "float64" if adapter == "CoarseTanh" else "float32"
    (only,) = results(getattr(numpy_adapters, adapter)(), clause, modes=("eager",), dtypes=(dtype,))
    assert only.status == FAIL
    assert text in only.message


def test_a_miss_of_quality_is_a_warning() -> None:
    (only,) = results(numpy_adapters.CoefficientOff(), "L1-Q1", modes=("eager",), dtypes=("float32",))
    assert only.status == QUALITY


def test_a_check_that_sees_nothing_fails() -> None:
    blind = Clause("L1-B9", "Nothing.", "B", lambda bench: None, "l1", level=1)
    asked = list(questions(numpy_adapters.Right(), [blind], modes=("eager",), dtypes=("float32",)))
    (only,) = run(numpy_adapters.Right(), asked)
    assert (only.status, only.message) == (FAIL, "vacuous: the check compared nothing")


def test_what_is_not_declared_is_unsupported() -> None:
    found = results(numpy_adapters.Right(), "L1-I1", modes=("eager",), dtypes=("float32",))
    assert [result.status for result in found] == [UNSUPPORTED]


def test_profiles_grow() -> None:
    growing = [profile for profile in PROFILES if profile != "hunt"]
    counts = [len(list(questions(numpy_adapters.Right(), CLAUSES, profile=profile))) for profile in growing]
    assert counts == sorted(counts)
    assert counts[0] < 200


class Recorder(numpy_adapters.Right):
    """A right adapter that remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def value_and_gradient(self, penalty: Any, x: Any, **options: Any) -> Any:
        self.seen.append(np.asarray(x).tobytes())
        return super().value_and_gradient(penalty, x, **options)


@pytest.mark.parametrize("clause", ["L1-B1", "L1-B2", "L1-E1", "L1-S1", "L1-S4", "L1-M1", "L1-M2"])
def test_a_seed_is_what_a_hunt_asks(clause: str) -> None:
    """The same numbers for the same seed, others for another one and for every other profile."""

    def asked(seed: int | None) -> list[bytes]:
        adapter = Recorder()
        (one,) = questions(adapter, [BY_ID[clause]], modes=("eager",), dtypes=("float32",))
        (result,) = run(adapter, [one], profile="hunt", seed=seed, examples=5)
        assert result.status == PASS
        return adapter.seen

    assert asked(1) == asked(1) != asked(2) != asked(None) == asked(None)


def test_hunts_reach_every_penalty_where_something_is_compiled() -> None:
    compiled = Mode("jit", COMPILED)
    reached = set()
    for seed in range(20):
        sample = drawn_sample(CLAUSES, seed)
        assert len(sample) == 7
        reached |= {c.subject for c in CLAUSES if c.subject and reach("hunt", compiled, c, "float16", sample=sample)}
    assert reached == {clause.subject for clause in CLAUSES if clause.subject}


# Judges and tokens.


def trial(**changes: Any) -> Trial:
    case = Case("here", np.array([[1.0, -2.0], [0.0, 0.1]], np.float32), mean_over="batchmean", cotangent=-0.37)
    return Trial(ar.L1(0.3), replace(case, **changes))


@pytest.mark.parametrize("judge", ["exact", "bounded"])
def test_a_judge_accepts_the_definition_alone(judge: str) -> None:
    expected = JUDGES[judge](trial())
    for _, part in expected.items():
        right = part.rounded
        assert (excess(part, right) == 0).all()
        wrong = right * np.float32(1 + 1e-4)
        assert (excess(part, wrong)[right != 0] > 1).all()
        for bad in (np.nan, np.inf):
            assert (excess(part, np.full_like(right, bad)) == np.inf).all()


def test_a_token_is_the_whole_question() -> None:
    asked = trial(mask=np.array([True, False]), x=np.array([[1.1, np.nan], [-np.inf, -0.0]]))
    again = Trial.from_document(from_token(to_token(asked.to_document())))
    assert again.penalty == asked.penalty
    assert again.case.x.tobytes() == asked.case.x.tobytes()
    assert (again.case.mask == asked.case.mask).all()
    assert (again.case.cotangent, again.case.mean_over) == (asked.case.cotangent, asked.case.mean_over)


@pytest.mark.parametrize("token", ["", "nonsense", "eNq", to_token({"x": 1})[:-4]])
def test_a_broken_token_is_an_error(token: str) -> None:
    with pytest.raises(ar.SpecError, match="is not a token of this suite"):
        from_token(token)


def test_the_bench_counts_what_it_compares() -> None:
    bench = Bench(numpy_adapters.Right(), Mode("eager"), "float32", "cpu", "L1-B1")
    bench.ask(trial())
    assert (bench.tally.trials, bench.tally.observed) == (1, 5)


# The command.


def conformance(*arguments: str) -> Any:
    return CliRunner().invoke(cli.build(), ["conformance", *arguments])


@pytest.fixture(autouse=True)
def _adapters_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")


def test_the_command_says_yes_and_no() -> None:
    good = conformance("smoke", "--backend", "numpy_adapters:Right")
    assert good.exit_code == 0, good.output
    assert "profile smoke: conforms." in good.stdout
    bad = conformance("smoke", "--backend", "numpy_adapters:Right,numpy_adapters:SignOfZero", "--json")
    assert bad.exit_code == 1, bad.output
    document = json.loads(bad.stdout)
    assert document["conforms"] is False
    assert [result["conforms"] for result in document["results"]] == [True, False]
    first = document["results"][0]
    assert first["clauses"]["PASS"] > 30
    assert first["probes"]["matrix products"] == "float32 or wider"


def test_a_hunt_says_its_seed() -> None:
    asked = ("run", "--profile", "hunt", "--backend", "numpy_adapters:Right", "--clauses", "L1-B1", "--json")
    given = json.loads(conformance(*asked, "--seed", "7", "--examples", "3").stdout)
    assert (given["seed"], given["examples"], given["conforms"]) == (7, 3, True)
    drawn = [json.loads(conformance(*asked, "--examples", "1").stdout)["seed"] for _ in range(2)]
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--backend", "trch"), "unknown backend 'trch'"),
        (("--clauses", "L3-*"), "no clause matches 'L3-*'"),
        (("--dtype", "float8"), "unknown dtype 'float8'"),
        (("--profile", "fast"), "unknown profile 'fast'"),
        (("--resume",), "--resume needs --report"),
        (("--seed", "3"), "seed and examples are those of a hunt; the profile is 'quick'."),
    ],
)
def test_what_cannot_run(arguments: tuple[str, ...], text: str) -> None:
    result = conformance("run", *arguments)
    assert result.exit_code == 2
    assert text in result.stderr


def test_a_missing_device_is_not_a_pass() -> None:
    result = conformance("smoke", "--backend", "numpy_adapters:Right", "--device", "cuda:7")
    assert result.exit_code == 2
    assert "not run. no device 'cuda:7'; it has cpu." in result.stdout


def test_the_clauses_are_listed() -> None:
    shown = conformance("list", "--clauses", "L1-*")
    assert shown.exit_code == 0
    assert "L1-K1" in shown.stdout
    listed = json.loads(conformance("list", "--json").stdout)
    assert [clause["id"] for clause in listed] == list(BY_ID)
