"""The golden vectors: unchanged, complete, met by our engines, and not met by a wrong one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import arspec as ar
import numpy_adapters
from arspec import cli
from arspec.kinks import KINKS
from arspec_conformance.family import FAMILY
from arspec_conformance.golden import golden, replay
from arspec_conformance.judges import excess
from arspec_conformance.trials import short_hex
from modes import torch_modes

FILE = Path(__file__).parents[1] / "conformance" / "golden" / f"{ar.SPEC_VERSION}.json"
DOCUMENT = json.loads(FILE.read_text())


def misses(adapter: Any) -> list[str]:
    """Return the names of the vectors that an adapter does not meet."""
    found = []
    for vector in DOCUMENT["vectors"]:
        trial, parts = replay(vector)
        case = trial.case
        x = adapter.to_native(case.x, "float32", "cpu")
        mask = None if case.mask is None else adapter.to_native(case.mask, "bool", "cpu")
        options = {"axes": case.axes, "mean_over": case.mean_over, "cotangent": case.cotangent}
        answers = adapter.value_and_gradient(trial.penalty, x, mask=mask, mode="eager", **options)
        for part, answer in zip(parts.values(), answers, strict=True):
            array = np.asarray(adapter.to_numpy(answer))
            if array.shape != part.exact.shape or (excess(part, array) > 1).any():
                found.append(vector["name"])
    return found


@pytest.mark.parametrize("adapter", [numpy_adapters.Right(), numpy_adapters.NarrowSums(), torch_modes.ADAPTER])
def test_right_engines_meet_them(adapter: Any) -> None:
    assert misses(adapter) == []


@pytest.mark.parametrize(("wrong", "at_least"), [("SignOfZero", 5), ("CoefficientOff", 80), ("MaskIgnored", 20)])
def test_wrong_engines_do_not(wrong: str, at_least: int) -> None:
    assert len(misses(getattr(numpy_adapters, wrong)())) >= at_least


def test_the_file_is_what_the_definition_gives() -> None:
    """A vector of a published version never changes: what is exact has every digit, the questions too."""
    now = golden()
    assert (now["golden"], now["spec"]) == (DOCUMENT["golden"], DOCUMENT["spec"])
    assert [vector["name"] for vector in now["vectors"]] == [vector["name"] for vector in DOCUMENT["vectors"]]
    for fresh, kept in zip(json.loads(json.dumps(now["vectors"])), DOCUMENT["vectors"], strict=True):
        for key in fresh.keys() - {"value", "gradient"}:
            assert fresh[key] == kept[key], kept["name"]
        for part in ("value", "gradient"):
            if kept[part]["allowed"] == "0":
                assert fresh[part] == kept[part], kept["name"]


def test_they_are_complete() -> None:
    names = {vector["name"] for vector in DOCUMENT["vectors"]}
    assert len(names) == len(DOCUMENT["vectors"])
    assert {f"kink {kink.id}" for kink in KINKS} <= names
    assert {member.label for member in FAMILY} <= names


@pytest.mark.parametrize(
    ("number", "text"),
    [(3.0, "0x1.8p+1"), (1.0, "0x1p+0"), (0.0, "0x0p+0"), (float("inf"), "inf"), (float("nan"), "nan")],
)
def test_numbers_lose_no_digit(number: float, text: str) -> None:
    assert short_hex(number) == text
    assert np.array_equal(float.fromhex(text), number, equal_nan=True)
    assert float.fromhex(short_hex(0.1)) == 0.1


def test_the_command_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "golden.json"
    assert CliRunner().invoke(cli.build(), ["conformance", "golden", str(path)]).exit_code == 0
    assert json.loads(path.read_text())["spec"] == ar.SPEC_VERSION
    refused = CliRunner().invoke(cli.build(), ["conformance", "golden", str(tmp_path)])
    assert refused.exit_code == 2
    assert "cannot be written" in refused.stderr
