"""The wheel: what is in it, and that it works outside the checkout with NumPy alone."""

import subprocess
import sys
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import numpy as np
import pytest

import arspec as ar

ROOT = Path(__file__).parent.parent
ADAPTERS = {"arspec_torch", "arspec_jax", "arspec_tensorflow", "arspec_keras"}
PACKAGES = {"arspec", *ADAPTERS, "arspec_conformance", "arspec_studies"}


def run(*command: object, cwd: Path, ok: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command without any PYTHON* variable; fail with what it printed."""
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode == 0) is ok, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=ROOT)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the wheel, the NumPy of this one, and nothing else."""
    home = tmp_path_factory.mktemp("bare")
    venv.create(home / "venv", with_pip=False, symlinks=True)
    interpreter = home / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", interpreter, "install", "--no-deps", "--no-index", wheel, cwd=home)
    # NumPy by links into a folder of its own: no network, and no neighbour of it is seen.
    only_numpy = home / "only_numpy"
    only_numpy.mkdir()
    installed = Path(np.__file__).parent
    for part in ("numpy", "numpy.libs"):
        if (installed.parent / part).exists():
            (only_numpy / part).symlink_to(installed.parent / part)
    (site,) = (home / "venv" / "lib").glob("python*/site-packages")
    (site / "only_numpy.pth").write_text(f"{only_numpy}\n")
    return interpreter


def test_contents(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == PACKAGES
    for package in PACKAGES - {"arspec_studies"}:
        assert f"{package}/py.typed" in names
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "arspec").rglob("*.py")}
    assert sources == {name for name in names if name.startswith("arspec/") and name.endswith(".py")}
    assert not [name for name in names if name.endswith((".pyc", ".ipynb")) or "test" in name]
    run(Path(sys.executable).parent / "check-wheel-contents", wheel, cwd=ROOT)


def test_metadata(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith("dist-info/METADATA")]
    metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Name"] == "arspec"
    assert metadata["Version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert [need for need in metadata.get_all("Requires-Dist") if "extra" not in need] == ["numpy>=1.26"]
    wanted = {"torch", "fast", "tensorflow", "keras", "jax", "lightning", "cli", "conformance", "studies"}
    wanted |= {"port", "all", "docs", "dev"}
    assert wanted == set(metadata.get_all("Provides-Extra"))
    assert metadata.get_payload().startswith("# arspec")


def test_it_computes_outside_the_checkout(python: Path, tmp_path: Path) -> None:
    code = (
        "import arspec as ar, numpy as np, sys\n"
        "print(ar.value(ar.L1(1e-4), np.ones((30, 500)), mean_over=('batch',)), ar.__file__)\n"
        "print(float(ar.gradient(ar.L1(1e-4), np.ones((30, 500)), mean_over=('batch',))[0, 0]).hex())\n"
        "spec = ar.Spec([ar.Rule(0.5 * ar.L1L2(0.1, 1e-300), layer='**', placement='kernel')])\n"
        "spec.save('spec.json')\n"
        "assert ar.load('spec.json') == spec\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names))\n"
    )
    value, gradient, modules = run(python, "-c", code, cwd=tmp_path).stdout.splitlines()
    number, _, file = value.partition(" ")
    assert number == "0.05"
    assert Path(file).is_relative_to(python.parent.parent)
    assert gradient == float(ar.gradient(ar.L1(1e-4), np.ones((30, 500)), mean_over=("batch",))[0, 0]).hex()
    assert set(modules.split()) - {"__main__"} <= {"arspec", "numpy", "sitecustomize"}
    assert ar.load(tmp_path / "spec.json").rules[0].layer == "**"


@pytest.mark.parametrize("module", ["torch", "tensorflow", "keras", "jax", "typer", "ml_dtypes", "pytest"])
def test_the_environment_is_bare(python: Path, tmp_path: Path, module: str) -> None:
    failed = run(python, "-c", f"import {module}", cwd=tmp_path, ok=False)
    assert f"No module named '{module}'" in failed.stderr


@pytest.mark.parametrize(
    ("extra", "name"), [("torch", "PyTorch"), ("jax", "JAX"), ("tensorflow", "TensorFlow"), ("keras", "Keras")]
)
def test_an_adapter_without_its_framework_says_what_to_install(
    python: Path, tmp_path: Path, extra: str, name: str
) -> None:
    failed = run(python, "-c", f"import arspec_{extra}", cwd=tmp_path, ok=False)
    assert failed.stderr.splitlines()[-1] == (
        f"ModuleNotFoundError: arspec_{extra} needs {name}, which is not installed. Try: pip install 'arspec[{extra}]'"
    )


def test_the_command_without_its_packages_says_what_to_install(python: Path, tmp_path: Path) -> None:
    failed = run(python.parent / "arspec", "spec", "schema", cwd=tmp_path, ok=False)
    assert failed.returncode == 2
    assert "the command line needs typer and rich" in failed.stderr
    assert "pip install" in failed.stderr
    assert "Traceback" not in failed.stderr
