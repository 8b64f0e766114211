"""Every example in a docstring is true."""

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest

PACKAGES = ("arspec", "arspec_torch", "arspec_jax", "arspec_tensorflow", "arspec_keras")
EXAMPLES_AT_LEAST = {"arspec": 30, "arspec_torch": 2, "arspec_jax": 3, "arspec_tensorflow": 1, "arspec_keras": 2}


def modules(package: str) -> list[ModuleType]:
    """Import a package and everything in it but the programs."""
    root = importlib.import_module(package)
    names = [info.name for info in pkgutil.walk_packages(root.__path__, f"{package}.")]
    return [root, *(importlib.import_module(name) for name in names if not name.endswith("__main__"))]


@pytest.mark.parametrize("package", PACKAGES)
def test_examples(package: str) -> None:
    results = [doctest.testmod(module) for module in modules(package)]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= EXAMPLES_AT_LEAST[package]


def test_a_wrong_example_is_found() -> None:
    wrong = ModuleType("wrong", ">>> 1 + 1\n3\n")
    assert doctest.testmod(wrong, report=False, verbose=False).failed == 1
