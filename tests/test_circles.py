"""The two-circles study: its data, its measures, its proof of agreement, and how it runs processes."""

import ast
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import arspec as ar
from arspec_studies.circles import agreement, measures, plots, report, run, summary, worker
from arspec_studies.circles.data import CONFIGURATIONS, GRID_SIDE, HIDDEN, Circles, circles, grid, initial_weights

STUDY = Path(worker.__file__).parent


# Data and specs


def test_the_data_is_the_tutorials() -> None:
    data = circles()
    assert [array.shape for array in (data.x_train, data.y_train, data.x_test, data.y_test)] == [
        (30, 2),
        (30,),
        (70, 2),
        (70,),
    ]
    assert data.x_train.dtype == data.y_train.dtype == np.float32
    assert data.y_train.sum() + data.y_test.sum() == 50
    radii = np.linalg.norm(data.x_train, axis=1)
    assert radii[data.y_train == 1].mean() < radii[data.y_train == 0].mean()


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("baseline", []),
        ("pre_activation_sum", [("pre_activation", "sum")]),
        ("post_activation_sum", [("output", "sum")]),
        ("pre_activation_batchmean", [("pre_activation", "batchmean")]),
        ("post_activation_batchmean", [("output", "batchmean")]),
    ],
)
def test_spec_files_say_what_the_code_would(name: str, rules: list[tuple[str, str]]) -> None:
    expected = ar.Spec(
        [ar.Rule(ar.L1(1e-4), layer="hidden", placement=placement, mean_over=over) for placement, over in rules]
    )
    configuration = next(c for c in CONFIGURATIONS if c.name == name)
    assert configuration.spec == expected
    assert configuration.path.read_text(encoding="utf-8") == expected.to_json()


def test_every_spec_file_is_a_configuration() -> None:
    assert sorted(path.stem for path in STUDY.glob("*.json")) == sorted(c.name for c in CONFIGURATIONS)


def test_initial_weights_are_keras_defaults_and_depend_on_the_seed() -> None:
    weights = initial_weights(0)
    assert {name: array.shape for name, array in weights.items()} == {
        "hidden/kernel": (2, HIDDEN),
        "hidden/bias": (HIDDEN,),
        "output/kernel": (HIDDEN, 1),
        "output/bias": (1,),
    }
    for name, fans in (("hidden/kernel", 502), ("output/kernel", 501)):
        limit = np.sqrt(6 / fans)
        assert 0.99 * limit < np.abs(weights[name]).max() <= np.float32(limit)
    assert not weights["hidden/bias"].any()
    assert np.array_equal(initial_weights(0)["hidden/kernel"], weights["hidden/kernel"])
    assert not np.array_equal(initial_weights(1)["hidden/kernel"], weights["hidden/kernel"])


# Measures


def _one_unit(threshold: float) -> dict[str, np.ndarray]:
    """A network of one hidden unit that says class 1 where relu(x₁) exceeds `threshold`."""
    return {
        "hidden/kernel": np.array([[[1.0], [0.0]]], np.float32),
        "hidden/bias": np.zeros((1, 1), np.float32),
        "output/kernel": np.ones((1, 1, 1), np.float32),
        "output/bias": np.array([[-threshold]], np.float32),
    }


def test_measures_of_a_network_that_can_be_checked_by_hand() -> None:
    x, y = np.array([[-1, 5], [0, 5], [0.5, 5], [2, 5]], np.float32), np.array([0, 1, 0, 1], np.float32)
    data = Circles(x, y, x[2:], y[2:])
    assert measures.accuracies(_one_unit(1.0), data) == {"train": [0.75], "test": [1.0]}
    assert measures.hidden_statistics(_one_unit(1.0), data) == {"mean_activation": [0.625], "exact_zeros": [0.5]}


def test_the_boundary_averages_probabilities_over_seeds() -> None:
    both = {
        name: np.concatenate([a, b])
        for (name, a), b in zip(_one_unit(1.0).items(), _one_unit(-1.0).values(), strict=True)
    }
    left = np.flatnonzero(grid()[:, 0] < 0)
    probability = np.array(measures.boundary(both))
    assert probability.shape == (GRID_SIDE**2,)
    assert np.allclose(probability[left], 0.5, atol=5e-4)


@pytest.mark.parametrize(("epochs", "count"), [(1, 1), (80, 80), (81, 41), (4000, 80), (4001, 79)])
def test_record_epochs_are_even_and_end_with_the_last(epochs: int, count: int) -> None:
    recorded = worker.record_epochs(epochs)
    assert recorded[-1] == epochs
    assert len(recorded) == count
    assert len(set(np.diff(recorded[:-1]))) <= 1


# Agreement


def _evidence(folder: Path, **changes: np.ndarray) -> None:
    """Write what a perfect framework would say, in float32 NumPy, with `changes`."""

    def value_and_gradient(penalty: ar.L1, tensor: np.ndarray, mean_over: tuple) -> tuple:
        return ar.value(penalty, tensor, mean_over=mean_over), ar.gradient(penalty, tensor, mean_over=mean_over)

    def penalty_and_gradients(spec: ar.Spec, weights: dict[str, np.ndarray], x: np.ndarray) -> tuple:
        (rule,) = spec.rules
        z = x @ weights["hidden/kernel"] + weights["hidden/bias"]
        tensor = z if rule.placement == "pre_activation" else np.maximum(z, 0)
        value, gradient = value_and_gradient(rule.penalty, tensor, rule.mean_over)
        gradient = gradient if rule.placement == "pre_activation" else np.where(z > 0, gradient, 0)
        zeros = {name: np.zeros_like(weights[name]) for name in ("output/kernel", "output/bias")}
        return value, {"hidden/kernel": x.T @ gradient, "hidden/bias": gradient.sum(axis=0), **zeros}

    study = worker.Study("torch", (), lambda *_: iter(()), penalty_and_gradients, value_and_gradient)
    agreement.write_evidence(study, folder)
    path = agreement.evidence_path(folder, "torch")
    with np.load(path) as stored:
        arrays = {**stored, **changes}
    np.savez(path, **arrays)


def _disagreeing(folder: Path) -> set[tuple[str, str]]:
    rows = agreement.compare(folder, "torch")
    assert len(rows) == 7 * len(agreement.PENALIZED)
    return {(row.configuration, row.quantity) for row in rows if not row.agrees}


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    agreement.prepare(tmp_path)
    return tmp_path


def test_a_right_framework_agrees(prepared: Path) -> None:
    _evidence(prepared)
    assert _disagreeing(prepared) == set()
    outcomes = {"torch": run.Outcome("torch", 1)}
    rows = summary.agreement_rows(outcomes, prepared)
    assert summary.verdict(rows).startswith("Agreement: on a given tensor all 60004 numbers have the bits")


def test_one_bit_on_a_given_tensor_is_a_disagreement(prepared: Path) -> None:
    _evidence(prepared)
    with np.load(agreement.evidence_path(prepared, "torch")) as stored:
        value, gradient = stored["pre_activation_sum/given/value"], stored["pre_activation_sum/given/gradient"]
    gradient[3, 3] = np.nextafter(gradient[3, 3], np.float32(1))
    _evidence(
        prepared,
        **{
            "pre_activation_sum/given/value": np.nextafter(value, np.float32(1)),
            "pre_activation_sum/given/gradient": gradient,
        },
    )
    assert _disagreeing(prepared) == {("pre_activation_sum", "given/value"), ("pre_activation_sum", "given/gradient")}
    rows = agreement.compare(prepared, "torch")
    assert summary.verdict(rows).startswith("DISAGREEMENT in 2 of 28 comparisons, the first: torch, pre_activation_sum")
    cells = [comparison.cells[0] for comparison in summary.comparisons(rows, ["torch"])]
    assert cells[:2] == ["DIFFERS: 1 of 1", "DIFFERS: 1 of 15000"]


@pytest.mark.parametrize("quantity", ["model/value", "model/hidden/kernel", "model/hidden/bias", "model/output/bias"])
def test_what_rounding_cannot_explain_is_a_disagreement(prepared: Path, quantity: str) -> None:
    _evidence(prepared)
    name = f"post_activation_batchmean/{quantity}"
    with np.load(agreement.evidence_path(prepared, "torch")) as stored:
        wrong = stored[name] * np.float32(1 + 3e-5) + np.float32(1e-30)
    _evidence(prepared, **{name: wrong})
    assert _disagreeing(prepared) == {("post_activation_batchmean", quantity)}


def test_the_sign_at_a_kink_is_caught(prepared: Path) -> None:
    """JAX's own rule gives +1 at 0: the given tensor holds zeros so that this shows."""
    _, _, given = agreement.read_weights(prepared)
    naive = np.where(given["pre_activation"] >= 0, 1e-4, -1e-4).astype(np.float32)
    _evidence(prepared, **{"pre_activation_sum/given/gradient": naive})
    assert _disagreeing(prepared) == {("pre_activation_sum", "given/gradient")}


def test_a_wrong_dtype_or_shape_is_a_disagreement(prepared: Path) -> None:
    changes = {"pre_activation_sum/given/value": np.float64(0.0), "pre_activation_sum/model/hidden/bias": np.zeros(3)}
    _evidence(prepared, **changes)
    assert _disagreeing(prepared) == {
        ("pre_activation_sum", "given/value"),
        ("pre_activation_sum", "model/hidden/bias"),
    }
    rows = agreement.compare(prepared, "torch")
    json.dumps(summary.document({}, rows, epochs=1), allow_nan=False)


def test_evidence_of_an_earlier_run_is_dropped(prepared: Path) -> None:
    _evidence(prepared)
    agreement.prepare(prepared)
    assert summary.agreement_rows({"torch": run.Outcome("torch", 1)}, prepared) == []


# Processes


RESULT = {
    "event": "result",
    "epochs": [1, 2],
    "curves": {"train": [[0.5, 0.7], [0.6, 0.8]], "test": [[0.5, 0.5], [0.75, 0.25]]},
    "boundary": np.linspace(0, 1, GRID_SIDE**2).round(3).tolist(),
    "mean_activation": [0.25, 0.75],
    "exact_zeros": [0.5, 0.5],
    "seconds": 1.0,
}


def _fake(name: str, ending: str = "", *, modules: tuple[str, ...] = ("json",)) -> run.Framework:
    """A framework whose worker reports fixed results, then does what `ending` says."""
    events = [
        {"event": "start", "versions": {name: "1.0"}, "note": "", "total": 10},
        {"event": "progress", "configuration": "baseline", "done": 1},
        *({**RESULT, "configuration": configuration.name} for configuration in CONFIGURATIONS),
    ]
    lines = "\n".join(["a library's own chatter", "[1, 2]", *map(json.dumps, events)])
    done = 'print(\'{"event": "done"}\')'
    return run.Framework(
        name, name, modules, 2, (sys.executable, "-c", f"import sys\nprint({lines!r})\n{ending or done}")
    )


def test_results_of_a_worker_are_collected(tmp_path: Path) -> None:
    seen = []
    outcomes = run.run([_fake("torch")], tmp_path, epochs=2, on_event=lambda name, e: seen.append((name, e["event"])))
    outcome = outcomes["torch"]
    assert outcome.error is None
    assert outcome.versions == {"torch": "1.0"}
    assert list(outcome.results) == [configuration.name for configuration in CONFIGURATIONS]
    assert seen == [("torch", event) for event in ("start", "progress", *["result"] * 5, "done")]
    line = summary.lines(outcomes)[0]
    assert (str(line.train), str(line.test), line.seeds) == ("0.700 ± 0.141", "0.500 ± 0.354", 2)


@pytest.mark.parametrize(
    ("ending", "error"),
    [
        ("sys.exit('out of luck')", "stopped with exit code 1"),
        ("import os\nos.write(2, b'out of luck')\nos.kill(os.getpid(), 9)", "was killed by signal 9"),
        ("print('out of luck', file=sys.stderr)", "stopped before it was done"),
    ],
)
def test_a_crash_is_told_and_the_others_go_on(tmp_path: Path, ending: str, error: str) -> None:
    outcomes = run.run([_fake("torch", ending), _fake("jax")], tmp_path, epochs=2, processes=1)
    assert outcomes["torch"].error == error
    assert outcomes["torch"].details == "out of luck"
    assert outcomes["jax"].error is None


def test_a_framework_that_is_not_installed_is_told(tmp_path: Path) -> None:
    outcomes = run.run([_fake("keras", modules=("json", "no_such_module")), _fake("jax")], tmp_path, epochs=2)
    assert outcomes["keras"].error == "not installed: no_such_module. Try: pip install 'arspec[keras]'"
    assert outcomes["keras"].results == {}
    assert outcomes["jax"].error is None


def test_workers_are_killed_when_the_study_is_interrupted(tmp_path: Path) -> None:
    def interrupt(name: str, event: dict) -> None:
        if event["event"] == "pid":
            raise KeyboardInterrupt(event["pid"])

    sleep = """
import json, os, time
print(json.dumps({"event": "pid", "pid": os.getpid()}), flush=True)
time.sleep(600)
"""
    with pytest.raises(KeyboardInterrupt) as caught:
        run.run([_fake("torch", sleep)], tmp_path, epochs=2, on_event=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(caught.value.args[0], 0)


def test_each_worker_gets_its_seeds_and_its_environment(tmp_path: Path) -> None:
    show = "import sys, os; sys.exit(' '.join([*sys.argv[1:], os.environ['KERAS_BACKEND']]))"
    keras = run.frameworks("tensorflow")["keras"]
    fake = run.Framework("keras", "Keras", (), keras.seeds, (sys.executable, "-c", show), keras.environment)
    assert (
        run.run([fake], tmp_path, epochs=7)["keras"].details == f"--seeds 1 --epochs 7 --output {tmp_path} tensorflow"
    )
    assert run.run([fake], tmp_path, epochs=7, seeds=3)["keras"].details.startswith("--seeds 3 ")


# Report


@pytest.fixture
def page(prepared: Path) -> str:
    _evidence(prepared)
    outcomes = run.run([_fake("torch"), _fake("jax", "sys.exit('<b>out of luck</b>')")], prepared, epochs=2)
    rows = summary.agreement_rows(outcomes, prepared)
    return report.write(prepared / "circles.html", outcomes, rows, epochs=2).read_text(encoding="utf-8")


def test_the_page_has_all_its_parts(page: str) -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == [
        "The experiment",
        "Test accuracy",
        "Accuracy over epochs",
        "Decision boundaries",
        "Proof of agreement",
        "The spec, and the code that uses it",
        "Versions",
    ]
    assert page.count("<svg") == page.count("</svg>") == 4
    assert page.count("data:image/png;base64") == 2 * len(CONFIGURATIONS)
    assert "0.700 ± 0.141" in page
    assert "all 60004 numbers have the bits" in page
    for name in ("torch", "keras", "jax"):
        assert f"arspec_{name}.attach(" in page
    assert '"placement": "pre_activation"' in page.replace("&#34;", '"')


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    assert not re.search(r"(https?:)?//[a-z0-9.-]+\.[a-z]{2,}", page)
    assert "<script" not in page
    assert "<link" not in page
    assert "@import" not in page


def test_the_page_takes_its_ink_from_the_theme(page: str) -> None:
    assert plots.INK not in page
    assert "currentColor" in page
    assert "prefers-color-scheme: dark" in page


def test_the_page_says_what_failed_and_escapes_it(page: str) -> None:
    assert "JAX stopped with exit code 1" in page
    assert "&lt;b&gt;out of luck&lt;/b&gt;" in page


def test_a_page_without_any_result_is_still_written(prepared: Path) -> None:
    outcomes = run.run([_fake("torch", modules=("no_such_module",))], prepared, epochs=2)
    page = report.write(prepared / "circles.html", outcomes, [], epochs=2).read_text(encoding="utf-8")
    assert "not installed: no_such_module" in page
    assert "No framework gave evidence." in page


@pytest.mark.parametrize("framework", ["torch", "keras", "jax"])
def test_a_snippet_is_the_function_that_runs(framework: str) -> None:
    source = report.snippet(framework)
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    assert function.name == "train"
    assert f"arspec_{framework}.attach(" in source
