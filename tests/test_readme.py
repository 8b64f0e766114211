"""The README is true: its code runs, its output is what it shows, its commands exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import arspec as ar
from arspec._placements import PLACEMENTS
from arspec_conformance.clauses import CLAUSES
from pages import same_output

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d+\.\d+(?:e[-+]\d+)?")

blocks = [(match[1], match[2]) for match in FENCE.finditer(README)]
programs = [
    (code, blocks[i + 1][1] if i + 1 < len(blocks) and blocks[i + 1][0] == "text" else None)
    for i, (language, code) in enumerate(blocks)
    if language == "python"
]
(document,) = (code for language, code in blocks if language == "json")


def run(code: str, folder: Path) -> str:
    """Run a program as a newcomer would, beside a spec.json; return what it prints."""
    (folder / "spec.json").write_text(document, encoding="utf-8")
    (folder / "program.py").write_text(code, encoding="utf-8")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, env=environment, capture_output=True, timeout=300, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_something_to_test() -> None:
    assert len(programs) == 3
    assert all(shown is not None for _, shown in programs)


def test_code_comes_first() -> None:
    assert README.splitlines()[0] == "# arspec"
    assert README.splitlines().index("```python") < 12


@pytest.mark.parametrize("index", range(len(programs)))
def test_programs_print_what_is_shown(index: int, tmp_path: Path) -> None:
    code, shown = programs[index]
    printed = run(code, tmp_path)
    same_output(printed, shown or "")
    assert index != 0 or printed == shown


def test_one_spec_gives_two_frameworks_one_number() -> None:
    numbers = NUMBER.findall(programs[0][1] or "")
    assert len(numbers) == 2
    assert len(set(numbers)) == 1


def test_the_document_is_the_spec_it_seems() -> None:
    assert ar.Spec.from_json(document) == ar.Spec(
        [
            ar.Rule(ar.L1(1e-4), layer="hidden", placement="pre_activation"),
            ar.Rule(ar.L2(1e-3), layer="**", placement="kernel"),
        ]
    )


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make (\w+)", README, re.MULTILINE))
    assert named == {"demo", "test"}
    assert named <= targets


def test_every_extra_exists() -> None:
    named = set(re.findall(r"`(\w+)`", README.partition("with the extras of")[2].partition("```")[0]))
    section = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    assert named - {"arspec"} <= set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))
    assert {"torch", "jax", "tensorflow", "keras", "lightning", "cli", "all"} <= named


def test_its_numbers_are_right() -> None:
    own = [cls for cls in ar.registered().values() if cls.__module__.startswith("arspec.penalties.")]
    assert f"**{len(own)} penalties**" in README
    assert f"**{len(PLACEMENTS)} placements**" in README
    assert f"over {len(CLAUSES) // 100 * 100} clauses" in README


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert "CHANGELOG.md" in links
    for link in links:
        assert (ROOT / link).exists(), link
