"""The identity matrix can fail, its bounds are tight and sound, and adapters are found unimported."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import ml_dtypes
import mpmath
import numpy as np
import pytest
from typer.testing import CliRunner

import arspec as ar
import numpy_adapters
from arspec import cli
from arspec._axes import resolve_axes
from arspec_conformance import Adapter, Mode, adapter_names, load_adapter
from arspec_conformance._adapter import CAPABILITIES, GROUP, OWN
from arspec_conformance.bits import ulp_distance
from arspec_conformance.bounds import allowed_distance
from arspec_conformance.cases import DTYPES, groups
from arspec_conformance.family import FAMILY, members
from arspec_conformance.identity import Cell, Part, depth, measure
from modes import jax_modes, tensorflow_modes, torch_modes

ROOT = Path(__file__).parent.parent


def cells(adapter: str, *names: str, dtypes: tuple[str, ...] = tuple(DTYPES)) -> list[Cell]:
    found = list(measure(getattr(numpy_adapters, adapter)(), members(names), dtypes, "cpu", "standard"))
    assert found
    return found


# The matrix can be red.


def test_a_right_engine_is_green() -> None:
    found = cells("Right")
    assert [cell.to_document() for cell in found if not cell.holds] == []
    assert len(found) == len(FAMILY) * len(DTYPES) * 2
    assert sum(cell.gradient.different for cell in found) == 0


@pytest.mark.parametrize(
    ("adapter", "penalty", "part"),
    [
        ("SignOfZero", "l1", "gradient"),
        ("SignOfZero", "total_variation", "gradient"),
        ("CoefficientOff", "l2", "value"),
        ("CoefficientOff", "l1", "gradient"),
        ("Float32Sums", "l1", "value"),
        ("Float32Sums", "group_lasso feature", "gradient"),
        ("MaskIgnored", "l1", "value"),
        ("NanLost", "linf", "value"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_wrong_engine_is_red(adapter: str, penalty: str, part: str, dtype: str) -> None:
    for cell in cells(adapter, penalty, dtypes=(dtype,)):
        found: Part = getattr(cell, part)
        assert not cell.holds
        assert found.different > 0
        assert found.worst is not None
        assert {"case", "index", "got", "expected"} == set(found.worst)


@pytest.mark.parametrize(("adapter", "penalty"), [("NativeSums", "l2"), ("SubnormalsKept", "l1")])
def test_the_last_bit_counts(adapter: str, penalty: str) -> None:
    assert not all(cell.holds for cell in cells(adapter, penalty, dtypes=("float64",)))


def test_a_mode_is_judged_alone() -> None:
    assert {cell.mode: cell.holds for cell in cells("OnlyJitWrong", "l1", dtypes=("float32",))} == {
        "eager": True,
        "jit": False,
    }


def test_a_bounded_cell_can_fail() -> None:
    (good, _), (bad, _) = cells("Right", "tanh", dtypes=("float64",)), cells("CoarseTanh", "tanh", dtypes=("float64",))
    assert good.holds
    assert bad.value.claim == "bounded"
    assert bad.value.worst_of_bound > 1
    assert not bad.holds


def test_what_an_engine_raises_is_a_finding() -> None:
    cell, _ = cells("Raises", "l1", dtypes=("float32",))
    assert not cell.holds
    assert "all zero: ZeroDivisionError: nothing but zeros" in cell.errors
    assert cell.value.compared > 0


def test_a_wrong_dtype_is_a_finding() -> None:
    cell, _ = cells("PythonFloat", "l1", dtypes=("float32",))
    assert cell.errors[0] == "random 0: value is float64 (), expected float32 ()"


def test_a_cell_without_elements_does_not_hold() -> None:
    assert not Part("identical").holds
    assert not Cell("l1", "float32", "eager", Part("identical"), Part("identical", compared=1)).holds


# The bounds.


@pytest.mark.parametrize("member", [m for m in FAMILY if m.inexact], ids=lambda member: member.label)
def test_bounds_are_tight(member: Any) -> None:
    (random, *_) = next(groups(member, "float64")).cases
    axes = resolve_axes(3, None, "batchmean")
    of_value, of_gradient = allowed_distance(member.penalty, random.x, axes, 1.0)
    gradient = np.abs(ar.gradient(member.penalty, random.x, mean_over="batchmean"))
    slack = 5 if member.mask != ("batch", "time") else 1  # a matrix has more summands than a term
    assert 0 < of_value < slack * 2e-14 * ar.value(member.penalty, random.x, mean_over="batchmean")
    nonzero = gradient > 0
    assert np.median(of_gradient[nonzero] / gradient[nonzero]) < slack * 1e-13  # some entries cancel
    assert (of_gradient >= 0).all()


@pytest.mark.parametrize("x", [1e-300, 1e-9, 0.03, 0.26, 0.5 - 1e-9, 0.74, 0.9])
def test_bounds_hold_against_exact_numbers(x: float) -> None:
    exact = {
        "tanh": (lambda t: 0.3 * mpmath.tanh(mpmath.mpf(1.7) * t)),
        "binary_entropy": (lambda t: -0.3 * (t * mpmath.log(t) + (1 - t) * mpmath.log(1 - t))),
        "lp p=1.3": (lambda t: 0.5 * t ** mpmath.mpf(1.3)),
        "student_t": (lambda t: 0.3 * mpmath.log(1 + (t / mpmath.mpf(0.7)) ** 2)),
    }
    with mpmath.workdps(400):
        for label, function in exact.items():
            (member,) = members([label])
            array = np.array([x])
            bounds = allowed_distance(member.penalty, array, resolve_axes(1), 1.0)
            found = ar.value(member.penalty, array), ar.gradient(member.penalty, array)[0]
            truth = (
                function(mpmath.mpf(x)),
                mpmath.diff(function, mpmath.mpf(x), h=mpmath.mpf(x) * mpmath.mpf(10) ** -60),
            )
            for got, true, bound in zip(found, truth, (bounds[0], bounds[1][0]), strict=True):
                assert abs(mpmath.mpf(float(got)) - true) <= bound, (label, got, true, bound)


# Distances.


@pytest.mark.parametrize("dtype", DTYPES)
def test_distances_count_floats(dtype: str) -> None:
    kind = DTYPES[dtype]
    info = ml_dtypes.finfo(kind)
    one, tiny, normal = (np.array(n, kind) for n in (1.0, info.smallest_subnormal, info.smallest_normal))
    after_one = np.array(1.0 + float(info.eps), kind)
    nan, inf, zero = (np.array(n, kind) for n in (np.nan, np.inf, 0.0))
    assert ulp_distance(one, one) == 0
    assert ulp_distance(one, after_one) == ulp_distance(-after_one, -one) == 1
    assert ulp_distance(tiny, -zero) == ulp_distance(nan, -nan) == 0
    assert ulp_distance(zero, normal) == 1
    assert ulp_distance(normal, -normal) == 2
    assert ulp_distance(inf, np.array(info.max, kind)) == 1
    assert ulp_distance(nan, one) == ulp_distance(inf, nan) == 2 ** (8 * kind.itemsize - 1)
    assert ulp_distance(inf, -inf) == 2 * ulp_distance(inf, zero) > 2 ** (8 * kind.itemsize - 3)


# The contract and its discovery.


def test_entry_points_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][GROUP] == OWN
    assert set(OWN) <= set(adapter_names())


@pytest.mark.parametrize("named", [(), ("-p", "arspec_conformance.plugin")])
def test_an_install_brings_the_plugin_of_pytest(named: tuple[str, ...], tmp_path: Path) -> None:
    """Once, whether it is named or not; and a session that does not use it loads nothing of arspec."""
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    installed = tmp_path / "arspec_plugin-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: arspec-plugin\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in entries.items()]
    (installed / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines]) + "\n")
    (tmp_path / "test_it.py").write_text(
        "import sys\n\n\ndef test_it(pytestconfig):\n"
        "    assert pytestconfig.getoption('--arspec-profile') == 'smoke'\n"
        "    assert {name for name in sys.modules if name.startswith('arspec')} == {\n"
        "        'arspec_conformance', 'arspec_conformance.plugin'\n"
        "    }\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *named, "--arspec-profile", "smoke"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    shown = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert shown.returncode == 0, shown.stdout + shown.stderr


def test_discovery_imports_no_framework() -> None:
    code = "import sys, arspec_conformance as c; print(c.adapter_names()); print(sorted(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names, modules = shown.splitlines()
    assert "'torch'" in names
    assert "'arspec_conformance'" in modules
    for module in ("torch", "jax", "tensorflow", "keras", "arspec_torch"):
        assert f"'{module}'" not in modules


def test_unknown_and_incomplete_adapters_are_errors() -> None:
    with pytest.raises(ar.SpecError, match=r"unknown adapter 'trch'; allowed: .*Did you mean 'torch'"):
        load_adapter("trch")
    with pytest.raises(ar.SpecError, match=r"which has no versions, devices, dtypes, modes"):
        load_adapter("numpy_adapters:NoMethods")


@pytest.mark.parametrize("module", [torch_modes, tensorflow_modes, jax_modes])
def test_own_adapters_fulfil_the_contract(module: Any) -> None:
    adapter = module.ADAPTER
    assert isinstance(adapter, Adapter)
    assert adapter.versions()
    assert adapter.devices()[0] == "cpu"
    assert adapter.capabilities() <= set(CAPABILITIES)
    assert {mode.cost for mode in adapter.modes()} <= {0, 1, 2}
    for dtype in adapter.dtypes("cpu"):
        special = np.array([0.0, -0.0, 1.5, np.nan, np.inf, 3e-40], np.float64).astype(DTYPES[dtype])
        returned = adapter.to_numpy(adapter.to_native(special, dtype, "cpu"))
        assert returned.dtype == special.dtype
        assert returned.tobytes() == special.tobytes()


def test_profiles_grow() -> None:
    for mode in (Mode("m", cost) for cost in (0, 1, 2)):
        for dtype in DTYPES:
            for member in FAMILY:
                levels = [depth(profile, mode, member, dtype) for profile in ("quick", "standard", "full")]
                assert levels == sorted(levels)
                assert levels[2] > 0
    assert all(depth("quick", Mode("m"), member, "float16") == 2 for member in FAMILY)


# The command.


def identity(*arguments: str) -> Any:
    return CliRunner().invoke(cli.build(), ["identity", "--quick", "--dtype", "float32", *arguments])


def test_the_command_says_yes_and_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    file = tmp_path / "reports" / "identity.json"
    good = identity("--backend", "numpy_adapters:Right", "--penalty", "l1,linf", "--output", str(file))
    assert good.exit_code == 0, good.output
    assert "4 cells" in good.stdout
    assert "every claim holds" in good.stdout
    written = json.loads(file.read_text())
    assert written["holds"] is True
    assert len(written["results"][0]["cells"]) == 4
    bad = identity("--backend", "numpy_adapters:Right,numpy_adapters:SignOfZero", "--penalty", "l1", "--json")
    assert bad.exit_code == 1, bad.output
    document = json.loads(bad.stdout)
    assert document["holds"] is False
    assert [all(cell["holds"] for cell in result["cells"]) for result in document["results"]] == [True, False]
    table = identity("--backend", "numpy_adapters:SignOfZero", "--penalty", "l1", "--cells")
    assert table.exit_code == 1
    assert "Cells that do not hold their claim" in table.stdout
    assert "NOT every claim holds" in table.stdout


def test_a_crash_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    crashed = identity("--backend", "numpy_adapters:Crashes,numpy_adapters:Right", "--penalty", "l1", "--json")
    assert crashed.exit_code == 1
    first, second = json.loads(crashed.stdout)["results"]
    assert "exit code 9" in first["error"]
    assert "the engine said goodbye" in first["error"]
    assert second["complete"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--backend", "trch"), "unknown backend 'trch'"),
        (("--penalty", "l3"), "unknown penalty 'l3'"),
        (("--dtype", "float8"), "unknown dtype 'float8'; allowed: float32, bfloat16, float16, float64."),
        (("--full",), "--quick and --full exclude each other."),
    ],
)
def test_what_cannot_run(arguments: tuple[str, ...], text: str) -> None:
    result = identity(*arguments)
    assert result.exit_code == 2
    assert text in result.stderr


def test_a_missing_device_is_not_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    result = identity("--backend", "numpy_adapters:Right", "--device", "cuda:7", "--json")
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert document["holds"] is False
    assert document["results"][0]["not_run"] == "no device 'cuda:7'; it has cpu."
