"""Where a package is missing, the user is told what to install; no traceback."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from arspec.cli._extras import EXTRAS, cure

ROOT = Path(__file__).parent.parent


def without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line where a module cannot be found."""
    program = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Missing())
sys.argv = ["arspec", *{list(arguments)!r}]
from arspec.cli import main
main()
"""
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
