"""`import arspec` needs NumPy alone, costs little, and exports what it says."""

import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import arspec as ar

ROOT = Path(ar.__file__).parent.parent
FRAMEWORKS = ("torch", "tensorflow", "keras", "jax", "jaxlib", "flax", "equinox", "optax", "ml_dtypes")
TOOLS = ("typer", "rich", "click", "pytest", "hypothesis", "mpmath", "sklearn", "scipy", "matplotlib", "jinja2")
ADAPTERS = ("arspec_torch", "arspec_jax", "arspec_tensorflow", "arspec_keras", "arspec_studies")

# CPU time of the import alone: the wall clock counts what other processes do.
TIMED = "import time; start = time.process_time(); import {}; print(time.process_time() - start)"
ROUNDS = 9
LIMIT = 1.5


def run(code: str, *folders: Path, cache: Path | None = None) -> str:
    """Run code in a process of its own that sees the checkout and `folders`; return what it prints."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (*folders, ROOT)))
    if cache is None:
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    else:
        environment["PYTHONPYCACHEPREFIX"] = str(cache)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported(code: str, *folders: Path) -> set[str]:
    """Return the top-level modules that are loaded after `code`."""
    loaded = run(f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))", *folders)
    return set(loaded.split())


def test_no_framework_and_no_tool_is_imported() -> None:
    # What an interpreter loads by itself, for editable installations say, is not ours.
    added = imported("import arspec") - imported("import numpy")
    assert added.isdisjoint({*FRAMEWORKS, *TOOLS, *ADAPTERS})
    beyond = {name for name in added if name not in sys.stdlib_module_names}
    assert beyond == {"arspec"}


def test_neither_by_using_it() -> None:
    code = (
        "import arspec as ar, numpy as np\n"
        "x = np.ones((2, 3), np.float16)\n"
        "ar.value(ar.L1(1.0) + ar.L2(1.0), x, mean_over='mean', mask=[True, False])\n"
        "ar.gradient(ar.L1L2(1.0, 1.0), x)\n"
        "spec = ar.Spec([ar.Rule(ar.L1(1.0), layer='**', placement='kernel')])\n"
        "ar.Spec.from_json(spec.to_json()), ar.json_schema()\n"
    )
    beyond = {name for name in imported(code) - imported("import numpy") if name not in sys.stdlib_module_names}
    assert beyond == {"arspec"}


@pytest.mark.parametrize("name", ["torch", "rich"])
def test_the_check_can_fail(name: str, tmp_path: Path) -> None:
    """A copy of the core with one more import, of a module of that name, is caught."""
    shutil.copytree(ROOT / "arspec", tmp_path / "arspec", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / f"{name}.py").write_text("")
    with (tmp_path / "arspec" / "_rule.py").open("a") as file:
        file.write(f"import {name}\n")
    assert name in imported("import arspec", tmp_path) - imported("import numpy")
    assert name in {*FRAMEWORKS, *TOOLS}


def cost(module: str, cache: Path, *folders: Path) -> float:
    return float(run(TIMED.format(module), *folders, cache=cache))


def relative_cost(module: str, cache: Path, *folders: Path) -> float:
    """Return the CPU time of importing `module` over that of NumPy: medians of interleaved runs."""
    cost(module, cache, *folders)  # compiles the modules once, as an installation does
    pairs = [(cost(module, cache, *folders), cost("numpy", cache, *folders)) for _ in range(ROUNDS)]
    ours, numpys = zip(*pairs, strict=True)
    return statistics.median(ours) / statistics.median(numpys)


def test_import_time_stays_near_that_of_numpy(tmp_path: Path) -> None:
    assert relative_cost("arspec", tmp_path / "cache") < LIMIT


def test_the_time_check_can_fail(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import arspec\nfor _ in range(5_000_000): pass\n")
    assert relative_cost("slow", tmp_path / "cache", tmp_path) > LIMIT


def test_what_is_exported_is_documented() -> None:
    """Every public name of the package has a docstring, and none but they are there."""
    source = Path(ar.__file__).read_text()
    named = re.findall(r" as ([a-zA-Z]\w*)$", source, re.MULTILINE)
    exported = {name for name in named if not _is_module(getattr(ar, name))}
    assert {"value", "gradient", "Rule", "Spec", "load", "L1", "SpecError"} <= exported
    public = {name for name, value in vars(ar).items() if not name.startswith("_") and not _is_module(value)}
    assert public == exported
    for name in exported - {"SPEC_VERSION"}:
        assert getattr(ar, name).__doc__, name


def _is_module(value: object) -> bool:
    return type(value).__name__ == "module"
