"""The guide for authors of adapters says what is there."""

import re
from pathlib import Path

from arspec.cli.conformance import PROFILES
from arspec_conformance._adapter import _REQUIRED, CAPABILITIES
from arspec_conformance.clauses import CLAUSES, TIERS

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "writing-an-adapter.md").read_text()


def test_the_contract_is_whole() -> None:
    for method in _REQUIRED:
        assert f"`{method}" in GUIDE


def test_tiers_and_profiles_are_whole() -> None:
    assert re.findall(r"^\| ([A-Z]) \|", GUIDE, re.MULTILINE) == list(TIERS)
    rows = re.findall(r"^\| ([a-z]+) \|", GUIDE, re.MULTILINE)
    assert [row for row in rows if row not in ("method", "profile", "tier")] == list(PROFILES)


def test_what_it_names_exists() -> None:
    ids = {clause.id for clause in CLAUSES}
    assert set(re.findall(r"\b[A-Z]\w+-[EKBQSMIPR]\d+\b", GUIDE)) <= ids
    assert {"identical", "placements"} <= set(CAPABILITIES)
    assert (ROOT / "examples" / "arspec_autograd" / "__init__.py").exists()


def test_the_code_is_that_of_the_example() -> None:
    example = (ROOT / "examples" / "arspec_autograd" / "__init__.py").read_text()
    for line in ("@primitive", "class AutogradNamespace(ar.Namespace):", "anp.sum(x, axis=axis, keepdims=True)"):
        assert line in GUIDE
        assert line in example
