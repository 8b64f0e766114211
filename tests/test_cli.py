"""The command line: what it prints, how it exits, and that it imports no framework."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

import arspec as ar
from arspec import cli
from arspec_studies.circles import agreement, run
from arspec_studies.circles.data import CONFIGURATIONS

FRAMEWORKS = ("torch", "tensorflow", "keras", "jax", "flax", "optax", "equinox")


def invoke(*arguments: str) -> Any:
    """Run a command in this process."""
    return CliRunner().invoke(cli.build(), list(arguments))


def in_a_process(*arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does."""
    command = [sys.executable, "-m", "arspec.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=timeout, check=False)


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.json"
    spec = ar.Spec(
        [
            ar.Rule(ar.L1(1e-4), layer="hidden", placement="pre_activation", mean_over="sum"),
            ar.Rule(ar.L1(0.5) + 2 * ar.L2(1e-3), layer="**", placement="kernel"),
            ar.Rule(ar.L2(1.0), layer="hidden", placement="output", mean_over="mean"),
        ]
    )
    spec.save(path)
    return path


# spec


def test_validate_counts_rules(spec_file: Path) -> None:
    baseline = str(CONFIGURATIONS[0].path)
    result = invoke("spec", "validate", str(spec_file), baseline)
    assert result.exit_code == 0
    assert result.stdout == f"{spec_file}: valid, 3 rules\n{baseline}: valid, 0 rules\n"


def test_validate_names_file_place_and_cure(tmp_path: Path, spec_file: Path) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text(spec_file.read_text().replace("pre_activation", "preactivation"))
    result = invoke("spec", "validate", str(spec_file), str(wrong))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == f"{spec_file}: valid, 3 rules"
    assert result.stdout.splitlines()[1].startswith(f"{wrong}: rules[0].placement: unknown placement 'preactivation'")
    assert "Did you mean 'pre_activation'?" in result.stdout


@pytest.mark.parametrize("text", ["", '{"arspec": "2026.1", "rules": [', "{}", "[]", '{"model": 1}', "\udcff"])
def test_validate_refuses_what_is_no_spec(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    result = invoke("spec", "validate", str(path))
    assert result.exit_code == 1
    assert result.stdout.startswith(f"{path}: ")
    assert len(result.stdout.splitlines()) == 1


def test_validate_cannot_read_what_is_not_there(tmp_path: Path, spec_file: Path) -> None:
    missing = tmp_path / "missing.json"
    result = invoke("spec", "validate", str(missing), str(tmp_path), str(spec_file))
    assert result.exit_code == 2
    assert result.stdout.splitlines() == [
        f"{missing}: cannot be read: No such file or directory",
        f"{tmp_path}: cannot be read: Is a directory",
        f"{spec_file}: valid, 3 rules",
    ]


def test_validate_in_json(tmp_path: Path, spec_file: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    result = invoke("spec", "validate", "--json", str(spec_file), str(broken))
    assert result.exit_code == 1
    good, bad = json.loads(result.stdout)
    assert good == {"file": str(spec_file), "readable": True, "valid": True, "rules": 3, "error": None}
    assert (bad["valid"], bad["rules"], bad["readable"]) == (False, None, True)
    assert "broken or truncated JSON" in bad["error"]


def test_show_prints_the_rules(spec_file: Path) -> None:
    result = invoke("spec", "show", str(spec_file))
    assert result.exit_code == 0
    rows = [line.split("  ") for line in result.stdout.splitlines()]
    table = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert table == [
        ["layer", "placement", "penalty", "mean over"],
        ["hidden", "pre_activation", "L1(coefficient=0.0001)", "(sum)"],
        ["**", "kernel", "Sum(summands=((1.0, L1(coefficient=0.5)), (2.0, L2(coefficient=0.001))))", "(sum)"],
        ["hidden", "output", "L2(coefficient=1.0)", "mean"],
    ]


def test_show_says_that_an_empty_spec_does_nothing() -> None:
    result = invoke("spec", "show", str(CONFIGURATIONS[0].path))
    assert result.exit_code == 0
    assert result.stdout.startswith("no rules:")


def test_show_in_json_is_the_document(spec_file: Path) -> None:
    result = invoke("spec", "show", "--json", str(spec_file))
    assert json.loads(result.stdout) == ar.load(spec_file).to_document()


def test_show_stops_at_what_it_cannot_show(tmp_path: Path) -> None:
    result = invoke("spec", "show", str(tmp_path / "missing.json"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "missing.json: cannot be read: No such file or directory" in result.stderr
    (tmp_path / "foreign.json").write_text('{"layers": []}')
    result = invoke("spec", "show", str(tmp_path / "foreign.json"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "this is not an arspec document" in result.stderr


def test_schema_accepts_every_spec_file_and_rejects_another() -> None:
    result = invoke("spec", "schema")
    assert result.exit_code == 0
    schema = json.loads(result.stdout)
    assert schema == ar.json_schema()
    for configuration in CONFIGURATIONS:
        jsonschema.validate(json.loads(configuration.path.read_text(encoding="utf-8")), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"rules": []}, schema)


# The application


def test_help_names_every_command() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for name in cli.COMMANDS:
        assert f"  {name} " in result.stdout


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["spec", "validate"], ["spec", "show"], ["demo", "--seeds", "0"]]
)
def test_bad_usage_exits_with_2(arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 2


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_its_packages_it_says_what_to_install(missing: str) -> None:
    program = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == {missing!r} else find(name)
from arspec.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        f"arspec: the command line needs {missing}, not installed here. Try: pip install 'arspec[cli]'\n"
    )


# demo: bad usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frameworks", "torch,tensorflo"], "unknown framework 'tensorflo'; allowed: torch, keras, jax."),
        (["--frameworks", " , "], "--frameworks names none; allowed: torch, keras, jax."),
        (["--keras-backend", "theano"], "unknown Keras backend 'theano'; allowed: jax, torch, tensorflow."),
        (["--output", str(Path(__file__) / "below")], "cannot be made: Not a directory"),
    ],
)
def test_demo_refuses_bad_arguments(arguments: list[str], message: str) -> None:
    result = invoke("demo", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_demo_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = invoke("demo", "--output", str(tmp_path))
    assert result.exit_code == 2
    assert "the demo needs scikit-learn, matplotlib, jinja2. Try: pip install 'arspec[studies]'" in result.stderr


# demo: real runs. A process must import its framework and compile, so few of them.


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The study in all frameworks, as short as it can be and still train."""
    folder = tmp_path_factory.mktemp("demo")
    done = in_a_process("demo", "--seeds", "2", "--epochs", "24", "--output", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), folder


def test_demo_runs_every_framework(demo: tuple[dict[str, Any], Path]) -> None:
    document, folder = demo
    assert list(document["frameworks"]) == ["torch", "keras", "jax"]
    for name, framework in document["frameworks"].items():
        assert framework["error"] is None
        assert framework["seeds"] == 2
        assert name in framework["versions"]
    assert len(document["results"]) == 3 * len(CONFIGURATIONS)
    assert Path(document["page"]) == folder / "circles.html"
    assert "<svg" in (folder / "circles.html").read_text(encoding="utf-8")


def test_demo_proves_agreement(demo: tuple[dict[str, Any], Path]) -> None:
    document, _ = demo
    assert document["agrees"] is True
    rows = document["agreement"]
    assert len(rows) == 3 * 4 * 7
    given = [row for row in rows if row["quantity"].startswith("given/")]
    assert all(row["identical"] == row["elements"] for row in given)
    assert sum(row["elements"] for row in given) == 3 * 4 * 15001


def test_demo_trains_alike_in_every_framework(demo: tuple[dict[str, Any], Path]) -> None:
    """24 steps from the same weights: a mean activation that differs would be another optimizer or penalty."""
    document, _ = demo
    for configuration in CONFIGURATIONS:
        means = [r["mean_activation"]["mean"] for r in document["results"] if r["configuration"] == configuration.name]
        assert len(means) == 3
        assert max(means) - min(means) < 1e-3 * min(means)


def test_demo_penalties_have_their_effect(demo: tuple[dict[str, Any], Path]) -> None:
    document, _ = demo
    for name in ("torch", "keras", "jax"):
        mean = {r["configuration"]: r["mean_activation"]["mean"] for r in document["results"] if r["framework"] == name}
        assert mean["pre_activation_sum"] < mean["pre_activation_batchmean"] < mean["baseline"]
        assert mean["post_activation_sum"] < mean["post_activation_batchmean"] < mean["baseline"]


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_demo_runs_on_other_keras_backends(backend: str, tmp_path: Path) -> None:
    done = in_a_process(
        *("demo", "--frameworks", "keras", "--keras-backend", backend, "--json"),
        *("--seeds", "1", "--epochs", "2", "--output", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["frameworks"]["keras"]["note"] == f"Keras backend: {backend}"
    assert document["agrees"] is True


# demo: with workers that stand in for the real ones


def _stand_in(monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    frameworks = {
        name: run.Framework(name, name, ("json",), 1, (sys.executable, "-c", program))
        for name, program in programs.items()
    }
    monkeypatch.setattr(run, "frameworks", lambda keras_backend="jax": frameworks)


def test_demo_exits_with_2_where_a_framework_crashes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _stand_in(monkeypatch, torch="raise MemoryError('out of luck')", jax="raise SystemExit(3)")
    result = invoke("demo", "--frameworks", "torch,jax", "--output", str(tmp_path))
    assert result.exit_code == 2
    assert "PyTorch stopped with exit code 1" in result.stderr
    assert "MemoryError: out of luck" in result.stderr
    assert "JAX stopped with exit code 3" in result.stderr
    assert str(tmp_path / "circles.html") in result.stdout


def test_demo_exits_with_1_where_a_framework_disagrees(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _stand_in(monkeypatch, torch="")
    row = agreement.Row("torch", "pre_activation_sum", "given/value", 1, 0, 1.0, float("inf"), 1.0, 2.0)
    monkeypatch.setattr("arspec_studies.circles.summary.agreement_rows", lambda outcomes, folder: [row])
    monkeypatch.setattr("arspec_studies.circles.summary.comparisons", lambda rows, names: [])
    result = invoke("demo", "--frameworks", "torch", "--output", str(tmp_path))
    assert result.exit_code == 1
    assert "DISAGREEMENT in 1 of 1 comparisons, the first: torch, pre_activation_sum, given/value." in result.stdout


@pytest.mark.parametrize("command", [["spec", "schema"], ["demo", "--frameworks", "torch", "--epochs", "1"]])
def test_no_framework_is_imported(command: list[str], tmp_path: Path) -> None:
    output = ["--output", str(tmp_path)] if command[0] == "demo" else []
    program = f"""
import sys
from arspec_studies.circles import run
fake = run.Framework("torch", "PyTorch", (), 1, (sys.executable, "-c", ""))
run.frameworks = lambda keras_backend="jax": {{"torch": fake}}
sys.argv = ["arspec", *{[*command, *output]!r}]
from arspec.cli import main
try:
    main()
finally:
    print("imported:", [name for name in {FRAMEWORKS!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.rstrip().endswith("imported: []"), done.stderr
