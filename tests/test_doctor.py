"""`arspec doctor`: its data is that of the project and of the frameworks, and it finds what is broken."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from arspec import cli
from arspec.cli import _probe, doctor
from arspec.cli._known import KNOWN, PACKAGES, Package, is_older, number, within
from arspec_conformance.traps import TRAPS

ROOT = Path(__file__).parent.parent
WORKING = {"works": True, "devices": ["cpu"], "backend": "jax", "error": None}


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(cli.build(), ["doctor", *arguments])


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The packages that the command believes in; changed by the test."""
    packages = {package.name: package.tested for package in PACKAGES} | {"arspec": "0.1.0"}
    monkeypatch.setattr(doctor, "_version", lambda *names: next((packages[n] for n in names if n in packages), None))
    monkeypatch.setattr(doctor, "_probed", lambda name: dict(WORKING))
    return packages


# the data


def test_the_tested_versions_are_those_of_the_constraints() -> None:
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert {package.name: package.tested for package in PACKAGES} == {p.name: pinned[p.name] for p in PACKAGES}


def test_the_needed_versions_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {"": project["dependencies"], **project["optional-dependencies"]}
    for package in PACKAGES:
        assert f"{package.name}>={package.needed}" in extras[package.extra]


def test_traps_have_a_row_and_a_package() -> None:
    rows = {trap.id for trap in TRAPS}
    for known in KNOWN:
        assert known.id in rows or known.id.startswith("D")
        assert known.package in {package.name for package in PACKAGES}
        assert known.happens.endswith(".")
        assert known.cure.endswith(".")


@pytest.mark.parametrize(
    ("version", "parts"),
    [("2.13.0+cpu", (2, 13, 0)), ("3.8", (3, 8)), ("1.0rc1", (1, 0)), ("3.0.dev5", (3, 0)), ("", ())],
)
def test_versions_are_numbers(version: str, parts: tuple[int, ...]) -> None:
    assert number(version) == parts


def test_ranges() -> None:
    assert not is_older("3.8.0", "3.8")
    assert is_older("3.9", "3.13")
    assert [within(v, ">=3.0,<3.14") for v in ("2.15", "3.0", "3.13.2", "3.14", "3.14.0")] == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert within("0.1", "")


# The traps that can be sprung in a moment are still there: in the versions tested, each happens.


def _gradient_of_abs() -> bool:
    import jax

    return float(jax.grad(jax.numpy.abs)(0.0)) == 1


def _norm_in_jax() -> bool:
    import jax

    return bool(np.isnan(jax.grad(jax.numpy.linalg.norm)(jax.numpy.zeros(3))).all())


def _norm_in_torch() -> bool:
    import torch

    x = torch.zeros(3, requires_grad=True)
    torch.sqrt((x * x).sum()).backward()
    assert x.grad is not None
    return bool(torch.isnan(x.grad).all())


def _subnormal() -> bool:
    import jax

    return float(jax.jit(lambda x: x * x)(jax.numpy.float32(1e-20))) == 0 < np.float32(1e-20) ** 2


def _dense(**options: Any) -> Any:
    import keras

    return keras.layers.Dense(3, kernel_initializer="ones", **options)


def _half_precision() -> bool:
    import keras

    layer = _dense(activity_regularizer=keras.regularizers.L2(1.0), dtype="mixed_float16")
    layer(np.full((4, 2), 200.0, "float32"))
    return bool(np.isinf(float(layer.losses[0])))


def _rounded_coefficient() -> bool:
    import keras

    return keras.regularizers.L1(0.1).get_config()["l1"] == float(np.float32(0.1))


def _divided_by_the_batch() -> bool:
    import keras

    layer = _dense(activity_regularizer=keras.regularizers.L1(1.0))
    layer(np.ones((4, 2), "float32"))
    return float(layer.losses[0]) == 6  # the sum is 24


def _wrapped_over_time() -> bool:
    import keras

    layer = keras.layers.TimeDistributed(_dense(activity_regularizer="l1"))
    layer(np.ones((4, 2, 2), "float32"))
    return layer.losses == []


def _edited() -> bool:
    import keras

    layer = _dense()
    layer.build((None, 2))
    layer.kernel_regularizer = keras.regularizers.L2(1.0)
    return layer.get_config()["kernel_regularizer"] is not None and layer.losses == []


def _no_default() -> bool:
    import keras

    none: Any = keras.regularizers.l1_l2()(np.ones(3, "float32"))
    return float(none) == 0


SPRUNG: dict[tuple[str, str], Callable[[], bool]] = {
    ("A1", "jax"): _gradient_of_abs,
    ("A2", "jax"): _norm_in_jax,
    ("A2", "torch"): _norm_in_torch,
    ("A4", "jax"): _subnormal,
    ("A5", "keras"): _half_precision,
    ("A6", "keras"): _rounded_coefficient,
    ("B1", "keras"): _divided_by_the_batch,
    ("B4", "keras"): _wrapped_over_time,
    ("C9", "keras"): _edited,
    ("C15", "keras"): _no_default,
}


@pytest.mark.parametrize("row", SPRUNG, ids=" ".join)
def test_what_is_told_of_these_versions_happens(row: tuple[str, str]) -> None:
    tested = {package.name: package.tested for package in PACKAGES}
    told = [known for known in KNOWN if (known.id, known.package) == row and within(tested[row[1]], known.versions)]
    assert len(told) == 1
    assert SPRUNG[row]()


# the command


def test_all_is_well(installed: dict[str, str]) -> None:
    result = invoke()
    assert result.exit_code == 0
    assert result.stdout.startswith("arspec 0.1.0, specification 2026.1, Python 3.")
    assert re.search(r"^torch +2\.13\.0 +2\.13\.0 +as tested$", result.stdout, re.MULTILINE)
    assert re.search(r"^arspec_keras +works +on jax$", result.stdout, re.MULTILINE)
    assert "divided by the batch; before 3.14" in result.stdout
    assert "tf.keras and Keras 3.14 divide by it" not in result.stdout


def test_it_speaks_of_the_versions_that_are_there(installed: dict[str, str]) -> None:
    del installed["torch"], installed["jax"]
    installed |= {"keras": "3.13.2", "numpy": "2.9.0", "tensorflow": "2.20.0"}
    del installed["tensorflow-cpu"]
    document = json.loads(invoke("--json").stdout)
    status = {package["name"]: package["status"] for package in document["packages"]}
    assert status["keras"] == status["tensorflow-cpu"] == "older than tested"
    assert (status["numpy"], status["torch"]) == ("newer than tested", "not installed")
    assert set(document["adapters"]) == {"tensorflow", "keras"}
    assert {trap["package"] for trap in document["traps"]}.isdisjoint({"torch", "jax"})
    (reduction,) = (trap for trap in document["traps"] if trap["id"] == "B1")
    assert reduction["happens"].startswith("An activity_regularizer is summed over the batch")
    assert "torch           -          2.13.0  not installed; pip install 'arspec[torch]'" in invoke().stdout


def test_what_is_too_old_fails(installed: dict[str, str]) -> None:
    installed["keras"] = "3.7.0"
    result = invoke("--versions")
    assert result.exit_code == 1
    assert "too old: 3.8 or newer is needed" in result.stdout
    assert "arspec_torch" not in result.stdout.partition("What these versions")[0]


def test_nothing_but_numpy(installed: dict[str, str]) -> None:
    for package in PACKAGES[1:]:
        del installed[package.name]
    result = invoke()
    assert result.exit_code == 0
    assert "No framework is installed" in result.stdout


def test_what_is_broken_fails(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_probed", lambda name: {"works": False, "devices": [], "error": "ImportError: [no] x"})
    result = invoke()
    assert result.exit_code == 1
    assert re.search(r"^arspec_torch +BROKEN +ImportError: \[no\] x$", result.stdout, re.MULTILINE)


# the probes


@pytest.mark.parametrize("name", _probe.PROBES)
def test_every_adapter_works_here(name: str) -> None:
    found = _probe.PROBES[name]()
    assert (found["works"], found["error"]) == (True, None)


def test_a_wrong_gradient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_probe.ar, "gradient", lambda *given, **options: np.ones((2, 3)))
    assert "differ from the definition" in _probe.torch()["error"]
    assert not _probe.torch()["works"]


def probed_with(
    module: str, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> dict[str, Any]:
    """Run a probe where a module is another one."""
    (tmp_path / f"{module}.py").write_text(program, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return doctor._probed(name)


def test_a_framework_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = probed_with("torch", "print('{}')\nraise OSError('libgomp is missing')", tmp_path, monkeypatch, "torch")
    assert found == {"works": False, "devices": [], "error": "OSError: libgomp is missing"}


def test_a_framework_that_ends_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import os, sys\nprint('illegal instruction', file=sys.stderr, flush=True)\nos._exit(132)"
    found = probed_with("torch", program, tmp_path, monkeypatch, "torch")
    assert found["error"] == "its process ended with exit code 132: illegal instruction"


def test_a_framework_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIMIT", 1)
    found = probed_with("torch", "import time; time.sleep(60)", tmp_path, monkeypatch, "torch")
    assert found["error"] == "no answer within 1 seconds"


def test_names_of_one_framework() -> None:
    assert doctor._version("surely-not-there", "numpy") == np.__version__
    assert doctor._package(Package("surely-not-there", "x", "1", "2", others=("numpy",)))["installed"] == np.__version__


def test_no_framework_is_imported() -> None:
    program = (
        "import sys\nfrom arspec.cli import build\nfrom typer.testing import CliRunner\n"
        "result = CliRunner().invoke(build(), ['doctor', '--versions'])\n"
        "print(result.exit_code, [n for n in ('torch', 'jax', 'tensorflow', 'keras') if n in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "0 []\n"
