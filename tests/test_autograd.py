"""The worked third-party adapter: its whole conformance test is one line."""

import os
import subprocess
import sys
from pathlib import Path

import autograd
import numpy as np
import pytest

import arspec as ar
from arspec import engine
from arspec_autograd import value
from arspec_autograd.adapter import AutogradAdapter
from arspec_conformance import Adapter, ModelAdapter
from arspec_conformance.kit import conformance

TestAutograd = conformance(AutogradAdapter())


def test_it_is_written_against_public_names_alone() -> None:
    for path in (Path(__file__).parents[1] / "examples" / "arspec_autograd").glob("*.py"):
        private = [line for line in path.read_text().splitlines() if "import" in line and "arspec._" in line]
        assert private == []


def test_it_fulfils_the_contract() -> None:
    assert isinstance(AutogradAdapter(), Adapter)
    assert not isinstance(AutogradAdapter(), ModelAdapter)


def test_it_differentiates_through_a_model() -> None:
    """The bias of a unit at 0 stays where it is, as the definition says."""
    x, kernel = np.array([[1.0, -2.0]]), np.array([[2.0], [1.0]])
    loss = autograd.grad(lambda bias: value(ar.L1(0.1), x @ kernel + bias, mean_over="batchmean"))
    assert loss(np.zeros(1)).tolist() == [0.0]
    assert loss(np.ones(1)).tolist() == [0.1]


def test_errors_are_those_of_the_definition() -> None:
    with pytest.raises(ar.SpecError, match="mask has shape"):
        value(ar.L1(0.1), np.ones((2, 3)), mask=np.ones(5, bool))
    with pytest.raises(ar.SpecError, match="is not a penalty"):
        engine.prepare("l1", np.ones(3), xp=None, axes=None, mean_over=(), mask=None)  # type: ignore[arg-type]


def test_each_class_is_new() -> None:
    assert conformance(AutogradAdapter) is not conformance("arspec_autograd.adapter:AutogradAdapter")


WRONG = """
import numpy as np
from arspec_autograd.adapter import AutogradAdapter
from arspec_conformance.kit import conformance

class Wrong(AutogradAdapter):
    def value_and_gradient(self, penalty, x, **options):
        value, gradient = super().value_and_gradient(penalty, x, **options)
        return value, np.where((x == 0) & (penalty.name == "l1"), 1, gradient).astype(gradient.dtype)

TestWrong = conformance(Wrong, **{})
"""


def test_a_wrong_adapter_is_red_and_says_why(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    (tmp_path / "test_wrong.py").write_text(WRONG)
    path = os.pathsep.join(str(folder) for folder in (root, root / "conformance", root / "examples"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "arspec_conformance.plugin"]
    result = subprocess.run(
        [*command, "--arspec-profile", "smoke", "-rA"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert "L1-K1: At (0, -0, 2) the value of L1(coefficient=1.0) is 2, its gradient (0, 0, 1)" in result.stdout
    assert "a valid subgradient, the wrong convention: gradient[0] is 1 at x = 0; expected 0" in result.stdout
    assert "arspec conformance repro " in result.stdout
    lines = result.stdout.splitlines()
    assert sum(line.startswith("PASSED ") and "LInf-" in line for line in lines) > 10
    assert not [line for line in lines if line.startswith("FAILED ") and "L1-" not in line]
