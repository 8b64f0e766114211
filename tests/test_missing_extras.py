"""Where a package is missing, the user is told what to install; no traceback."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from arspec._frameworks import without_backend
from arspec.cli._extras import EXTRAS, cure

ROOT = Path(__file__).parent.parent


MISSING = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Missing())
sys.argv = ["arspec", *{arguments!r}]
from arspec.cli import main
main()
"""


def without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line where a module cannot be found."""
    program = MISSING.format(module=module, arguments=list(arguments))
    return subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", timeout=120)


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("ml_dtypes", ("identity", "--quick"), "conformance"),
        ("ml_dtypes", ("conformance", "smoke"), "conformance"),
    ],
)
def test_a_command_without_its_extra(module: str, arguments: tuple[str, ...], extra: str) -> None:
    done = without(module, *arguments)
    assert done.returncode == 2
    assert done.stderr == (
        f"arspec: this command needs {module}, which is not installed. Try: pip install 'arspec[{extra}]'\n"
    )


@pytest.mark.parametrize(
    ("missing", "there", "text"),
    [
        ("tensorflow", ("jax",), "Say KERAS_BACKEND=jax before Keras is imported, or install tensorflow."),
        ("jax", ("torch", "tensorflow"), "Say KERAS_BACKEND=torch before Keras is imported, or install jax."),
        ("torch", (), "Install torch, or another one: pip install 'arspec[keras,jax]' and KERAS_BACKEND=jax."),
    ],
)
def test_keras_without_its_backend(
    missing: str, there: tuple[str, ...], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in there else None)
    error = without_backend(ModuleNotFoundError("No module", name=missing))
    assert str(error) == f"Keras wants to run on {missing!r}, which is not installed. {text}"
    other = ModuleNotFoundError("No module named 'h5py'", name="h5py")
    assert without_backend(other) is other


def test_the_adapter_says_so() -> None:
    program = MISSING.format(module="tensorflow", arguments=[]).partition("sys.argv")[0] + "import arspec_keras\n"
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, encoding="utf-8")
    assert done.stderr.splitlines()[-1].startswith("ModuleNotFoundError: Keras wants to run on 'tensorflow', which")


def test_an_unknown_module_is_not_explained_away() -> None:
    assert cure("nonsense") is None
    assert cure(None) is None
    assert "pip install 'arspec[studies]'" in str(cure("sklearn.datasets"))
    done = without("arspec_conformance", "identity")
    assert "ModuleNotFoundError: No module named 'arspec_conformance'" in done.stderr


def test_the_extras_bring_them() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for package, extra in EXTRAS.values():
        assert package in {re.split(r"[>\[]", need)[0] for need in extras[extra]}
