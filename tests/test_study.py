"""`arspec study`: grids, portions, the store, the numbers, and how processes are run."""

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import arspec as ar
from arspec import cli
from arspec_studies._study import made, page, pool, runs, spread, store, study, summary
from arspec_studies._study.made import Made
from arspec_studies._study.runs import Portion, Run
from arspec_studies._study.store import Store

IRIS = study.load("iris")


# Grids and portions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-1:1e-3", (0.1, 0.01, 0.001)),
        ("1e-3:1e-1", (0.001, 0.01, 0.1)),
        ("1:100:3", (1.0, 10.0, 100.0)),
        ("1e-4:1e-3:2", (1e-4, 1e-3)),
    ],
)
def test_a_grid_is_even_on_a_log_scale(text: str, expected: tuple[float, ...]) -> None:
    assert runs.parse_grid(text) == expected


@pytest.mark.parametrize(
    "text", ["", "1", "0:1", "1:-1", "1:x", "1:2:3:4", "1:10:1", "1:10:51", "nan:1", "1:inf", "1:1"]
)
def test_what_is_no_grid_is_refused(text: str) -> None:
    with pytest.raises(ar.SpecError, match=r"expected two numbers > 0"):
        runs.parse_grid(text)


def test_a_grid_adds_to_the_published_coefficient_and_the_baseline_has_none() -> None:
    planned = runs.planned(IRIS, 2, (0.1, 0.001))
    assert [r for r in planned if r.variant == "baseline"] == [Run("baseline", 0.0, 0), Run("baseline", 0.0, 1)]
    assert [r.coefficient for r in planned if r.variant == "kernel_l1" and r.seed == 0] == [0.1, 0.001]
    assert len(set(planned)) == len(planned) == 2 + 2 * 2 * 2


@pytest.mark.parametrize(("count", "jobs"), [(1, 2), (2, 2), (5, 2), (30, 2), (33, 1), (100, 3)])
def test_portions_hold_every_run_once_and_are_even(count: int, jobs: int) -> None:
    asked = [Run(variant, 0.1, seed) for variant in ("a", "b") for seed in range(count)]
    cut = runs.portions(asked, jobs)
    assert [run for portion in cut for run in portion.runs] == asked
    for variant in ("a", "b"):
        sizes = [len(portion.runs) for portion in cut if portion.variant == variant]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= runs.LARGEST_PORTION
        assert len(sizes) >= min(jobs, count)


def test_a_scaled_spec_keeps_all_but_the_coefficients() -> None:
    rule = ar.Rule(ar.L1(0.5), layer="a", placement="kernel", when="train", trainable_only=True, numerics="bounded")
    spec = ar.Spec([rule, ar.Rule(ar.KLSparsity(2.0, target=0.1), layer="b", placement="output", mean_over="mean")])
    assert study.scaled(spec, 1.0) is spec
    (first, second) = study.scaled(spec, 0.25).rules
    assert (first.when, first.trainable_only, first.numerics) == ("train", True, "bounded")
    assert second.mean_over == "mean"
    x = np.array([[0.25, 0.5], [0.5, 0.125]])
    assert ar.value(first.penalty, x) == 0.25 * ar.value(ar.L1(0.5), x)
    assert study.coefficient_of(spec) == 0.5
    assert study.coefficient_of(ar.Spec([ar.Rule(ar.L1L2(0.3, 0.1), layer="a", placement="kernel")])) == 0.3
    assert study.coefficient_of(ar.Spec([])) == 0.0


# The store


def test_what_is_stored_is_read_back(tmp_path: Path) -> None:
    first = Store(tmp_path, IRIS, quick=False)
    first.add("torch", Run("kernel_l1", 0.001, 0), {"test": 0.1 + 0.2}, [1, 2])
    again = Store(tmp_path, IRIS, quick=False)
    assert again.rows() == first.rows()
    (row,) = again.rows("torch")
    assert (row.run, row.metrics, row.shown) == (Run("kernel_l1", 0.001, 0), {"test": 0.1 + 0.2}, [1, 2])
    assert again.rows("jax") == []
    assert Store(tmp_path, IRIS, quick=True).rows() == []


def test_a_line_that_a_crash_cut_short_is_dropped(tmp_path: Path) -> None:
    Store(tmp_path, IRIS, quick=False).add("torch", Run("baseline", 0.0, 0), {"test": 1.0})
    path = tmp_path / store.NAME
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-1])
    after = Store(tmp_path, IRIS, quick=False)
    assert len(after.rows()) == 1
    after.add("torch", Run("baseline", 0.0, 1), {"test": 0.5})
    assert [row.run.seed for row in Store(tmp_path, IRIS, quick=False).rows()] == [0, 1]


def test_a_result_counts_only_for_the_spec_it_was_trained_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path, IRIS, quick=False).add("torch", Run("kernel_l1", 0.001, 0), {"test": 1.0})
    monkeypatch.setattr(store, "digest", lambda study, variant: "another")
    assert Store(tmp_path, IRIS, quick=False).rows() == []


def test_forgetting_a_framework_keeps_the_others(tmp_path: Path) -> None:
    one = Store(tmp_path, IRIS, quick=False)
    for framework in ("torch", "jax"):
        one.add(framework, Run("baseline", 0.0, 0), {"test": 1.0})
    one.forget("torch")
    assert [row.framework for row in Store(tmp_path, IRIS, quick=False).rows()] == ["jax"]
    assert [path.name for path in tmp_path.iterdir()] == [store.NAME]


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"study": "iris"}', '{"run": {"seed": 1}}'])
def test_a_line_that_is_no_result_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / store.NAME).write_text(line + "\n")
    with pytest.raises(ar.SpecError, match=r"results\.jsonl:1: not a result of `arspec study`"):
        Store(tmp_path, IRIS, quick=False)


# Numbers


def test_the_interval_is_students() -> None:
    paired = spread.Paired.of([1.0, 2.0, 3.0, 4.0])
    # t for 3 degrees of freedom, 0.975, is 3.1824463053; s/√4 = √(5/3)/2.
    half = 3.18244630528 * math.sqrt(5 / 3) / 2
    assert paired.interval == pytest.approx((2.5 - half, 2.5 + half), rel=1e-9)
    assert (paired.higher, paired.equal, paired.lower, paired.is_clear) == (4, 0, 0, True)
    few = spread.Paired.of([1.0, -1.0])
    assert (few.interval, few.is_clear, few.higher, few.lower) == (None, False, 1, 1)


def _rows(values: dict[tuple[str, float], list[float]]) -> list[store.Row]:
    return [
        store.Row("iris", "torch", False, Run(variant, c, seed), "", dict.fromkeys((m.name for m in IRIS.metrics), v))
        for (variant, c), members in values.items()
        for seed, v in enumerate(members)
    ]


def test_effects_pair_seeds_and_place_the_published_difference() -> None:
    gain = 0.9474 - 0.9211
    rows = _rows({("baseline", 0.0): [0.9, 0.8, 0.7], ("kernel_l1", 1e-3): [0.9 + gain, 0.8, 0.6]})
    (effect,) = summary.effects(IRIS, summary.groups(IRIS, rows[::-1]), IRIS.headline)
    assert effect.paired.differences == pytest.approx((gain, 0.0, -0.1))
    assert effect.published == pytest.approx(gain)
    assert effect.beyond == 1
    text = summary.sentence(IRIS, effect)
    assert "1 up, 1 equal, 1 down. That cannot be told from chance." in text
    assert "Published: +2.63; 1 of 3 splits reach that." in text


def test_the_best_coefficient_is_chosen_and_judged_on_different_seeds() -> None:
    # On even seeds 0.1 is best, on odd ones it is worse than no penalty.
    rows = _rows(
        {("baseline", 0.0): [0.5] * 4, ("kernel_l1", 0.1): [0.9, 0.2, 0.9, 0.4], ("kernel_l1", 1e-3): [0.6] * 4}
    )
    (best,) = summary.best(IRIS, summary.groups(IRIS, rows))
    assert best.group.coefficient == 0.1
    assert best.paired.differences == pytest.approx((-0.3, -0.1))


def test_the_document_is_json() -> None:
    rows = _rows({("baseline", 0.0): [0.9, 0.8, 0.7], ("kernel_l1", 1e-3): [0.9, 0.8, 0.6]})
    document = summary.document(IRIS, summary.groups(IRIS, rows), pool.Outcome(), missing=0)
    assert json.loads(json.dumps(document, allow_nan=False))["effects"][0]["seeds_beyond_published"] == 0


# How results were made

TORCH = Made("arspec study run iris", {"torch": "2.13.0"}, "", 100.0, 2)
KERAS = Made("arspec study run iris --framework keras", {"keras": "3.15.1"}, "Keras backend: jax", 7.0, 1)


def test_how_every_framework_was_run_is_kept(tmp_path: Path) -> None:
    made.add(tmp_path, "torch", TORCH, quick=False, resume=False)
    made.add(tmp_path, "keras", KERAS, quick=False, resume=False)
    made.add(tmp_path, "torch", KERAS, quick=True, resume=True)
    assert made.known(tmp_path, quick=False) == {"torch": TORCH, "keras": KERAS}
    assert made.known(tmp_path, quick=True) == {"torch": KERAS}
    assert str(KERAS) == "keras 3.15.1; Keras backend: jax; 7 s with one process"
    made.add(tmp_path, "torch", TORCH, quick=False, resume=True)
    assert made.known(tmp_path, quick=False)["torch"].seconds == 200.0
    made.add(tmp_path, "torch", TORCH, quick=False, resume=False)
    assert made.known(tmp_path, quick=False)["torch"].seconds == 100.0


@pytest.mark.parametrize("text", ["", "[]", '{"torch, full": {}}', '{"torch, full": 1}'])
def test_what_does_not_say_how_it_was_made_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / made.NAME).write_text(text)
    with pytest.raises(ar.SpecError, match=r"made\.json: not what `arspec study` writes"):
        made.known(tmp_path, quick=False)


def test_a_page_shows_the_code_that_trains_wherever_it_stands() -> None:
    iris = page.training_source(IRIS, "torch")
    assert "model = Network()" in iris
    assert "arspec_torch.attach(model, spec)" in iris
    # Its own file only hands on to that of another study.
    features = page.training_source(study.load("transformer-features"), "jax")
    assert features == page.training_source(study.load("sparse-autoencoder"), "jax")
    assert "arspec_jax.attach(model, spec)" in features


# Processes


def _pool(folder: Path, code: str, got: list) -> pool.Pool:
    head = "import json, sys, os\nsay = lambda **event: print(json.dumps(event), flush=True)\n"
    return pool.Pool([sys.executable, "-c", head + code], {}, folder / "fake", lambda *result: got.append(result))


TRAIN = """
say(event="start", versions={"fake": "1"}, note="n")
print("what a library prints")
for line in sys.stdin:
    portion = json.loads(line)
    for c, seed in portion["runs"]:
        if seed == 13:
            sys.exit("out of luck")
        say(event="result", variant=portion["variant"], coefficient=c, seed=seed, metrics={"m": seed}, shown=None)
    say(event="done")
"""


def test_workers_share_the_portions(tmp_path: Path) -> None:
    got: list = []
    asked = [Portion("a", (Run("a", 0.5, seed),)) for seed in range(7)]
    outcome = _pool(tmp_path, TRAIN, got).run(asked, 2)
    assert (outcome.error, outcome.versions, outcome.note) == (None, {"fake": "1"}, "n")
    assert sorted(run.seed for run, _, _ in got) == list(range(7))
    assert all(metrics == {"m": run.seed} for run, metrics, _ in got)


def test_a_crash_is_told_and_what_was_done_is_kept(tmp_path: Path) -> None:
    got: list = []
    asked = [Portion("a", (Run("a", 0.5, seed),)) for seed in (1, 13, 2, 3)]
    outcome = _pool(tmp_path, TRAIN, got).run(asked, 1)
    assert (outcome.error, outcome.details) == ("stopped with exit code 1", "out of luck")
    assert [run.seed for run, _, _ in got] == [1]


def test_workers_are_killed_when_the_study_is_interrupted(tmp_path: Path) -> None:
    code = 'say(event="result", variant="a", coefficient=0, seed=os.getpid(), metrics={}, shown=None)\n'
    pids = []

    def interrupt(run: Run, metrics: dict, shown: object) -> None:
        pids.append(run.seed)
        raise KeyboardInterrupt

    command = [sys.executable, "-c", "import json, sys, os, time\nsay = lambda **e: print(json.dumps(e), flush=True)\n"
               + code + "time.sleep(600)"]  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        pool.Pool(command, {}, tmp_path / "fake", interrupt).run([Portion("a", (Run("a", 0.5, 0),))], 1)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


# Studies


@pytest.mark.parametrize("name", study.STUDIES)
def test_a_study_is_whole(name: str) -> None:
    one = study.load(name)
    assert one.name == name
    assert one.spec(one.baseline.name).rules == ()
    assert set(one.folder.glob("*.json")) == {one.path(variant.name) for variant in one.variants}
    for variant in one.variants:
        spec = one.spec(variant.name)
        assert one.path(variant.name).read_text(encoding="utf-8") == spec.to_json()
        assert (spec.rules == ()) is one.is_plain(variant)
    metrics = {metric.name for metric in one.metrics}
    assert all(set(variant.published) <= metrics for variant in one.variants)


@pytest.mark.parametrize("name", study.STUDIES)
def test_a_task_is_the_same_every_time_and_its_untrained_weights_can_be_judged(name: str) -> None:
    one = study.load(name)
    for variant in one.variants:
        _check_task(one, variant.options)


def _check_task(one: study.Study, options: Mapping[str, Any]) -> None:
    task, again, other = (one.task(seed, True, **options) for seed in (0, 0, 1))
    for key, array in task.weights.items():
        assert array.dtype == np.float32
        assert np.array_equal(array, again.weights[key])
    assert np.array_equal(task.order, again.order)
    assert any(not np.array_equal(array, other.weights[key]) for key, array in task.weights.items())
    assert task.order.min() >= 0
    assert task.order.max() < len(task.x) == len(task.y)
    metrics = one.measure(dict(task.weights), task)
    assert list(metrics) == [metric.name for metric in one.metrics]
    assert all(math.isfinite(value) for value in metrics.values())


def test_iris_is_split_as_published() -> None:
    task = IRIS.task(0, False)
    assert (len(task.x), len(task.held_out["x"]), task.order.shape) == (112, 38, (1400, 28))
    for epoch in task.order.reshape(350, 112):
        assert np.array_equal(np.sort(epoch), np.arange(112))


# The command


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli.build(), ["study", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "irises"), "unknown study 'irises'; allowed: iris"),
        (("run", "iris", "--framework", "mxnet"), "unknown framework 'mxnet'; allowed: torch, jax, keras"),
        (("run", "iris", "--grid", "0:1"), "--grid '0:1': expected two numbers > 0"),
        (("run", "iris", "--keras-backend", "cntk"), "unknown Keras backend 'cntk'; allowed: jax, torch, tensorflow"),
    ],
)
def test_what_is_unknown_is_named(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    result = command(*arguments, "--output", tmp_path)
    assert result.exit_code == 2
    assert says in result.stderr


def test_iris_runs_resumes_and_writes_a_page(tmp_path: Path) -> None:
    asked = ("run", "iris", "--quick", "--seeds", "1", "--jobs", "1", "--output", tmp_path)
    first = command(*asked, "--json")
    assert first.exit_code == 0, first.stderr
    document = json.loads(first.stdout)
    assert document["missing_runs"] == 0
    assert {result["variant"] for result in document["results"]} == {v.name for v in IRIS.variants}
    lines = (tmp_path / store.NAME).read_text().splitlines()
    (tmp_path / store.NAME).write_text("\n".join(lines[:-1]) + "\n")
    again = command(*asked, "--resume")
    assert again.exit_code == 0, again.stderr
    after = (tmp_path / store.NAME).read_text().splitlines()
    assert sorted(after) == sorted(lines)  # what was trained anew has the same numbers
    written = (tmp_path / "iris.html").read_text()
    assert "<script" not in written
    assert "http" not in written
    assert written.count("<svg") == written.count("</svg>") >= 1
    assert "arspec study run iris --framework torch" in written
