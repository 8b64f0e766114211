"""The README is true: its code runs, its output is what it shows, its commands exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import arspec as ar
from arspec._placements import PLACEMENTS

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
scripts = [(code, output) for code, output in programs if 'ar.load("spec.json")' in code]
snippets = [program for program in programs if program not in scripts]


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


def table(text: str) -> list[list[str]]:
    return [line.split()[:2] for line in text.splitlines() if "/" in line.split()[0]]


def test_there_is_something_to_test() -> None:
    assert len(snippets) >= 3
    assert len(scripts) == 3
    assert sum(output is not None for _, output in scripts) == 1


def test_code_comes_first() -> None:
    assert README.splitlines()[0] == "# arspec"
    assert README.splitlines().index("```python") < 12


@pytest.mark.parametrize("index", range(len(snippets)))
def test_snippets_print_what_is_shown(index: int, tmp_path: Path) -> None:
    code, shown = snippets[index]
    assert shown is not None
    assert run(code, tmp_path) == shown


def test_one_spec_gives_two_frameworks_one_number() -> None:
    numbers = NUMBER.findall(programs[0][1] or "")
    assert len(numbers) == 2
    assert len(set(numbers)) == 1


@pytest.mark.parametrize("index", range(3))
def test_scripts_of_a_newcomer(index: int, tmp_path: Path) -> None:
    """Short, and they print the table that is shown, up to names of the framework and numbers."""
    code, _ = scripts[index]
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    printed = run(code, tmp_path)
    shown = next(output for _, output in scripts if output is not None)
    assert table(printed) == table(shown)
    assert "nan" not in printed
    assert all(float(line.split()[-1]) > 0 for line in printed.splitlines()[1:])


def test_the_table_that_is_shown_is_that_of_one_of_them(tmp_path: Path) -> None:
    """Training goes its own way on every machine, so the last column is compared by magnitude."""
    shown = next(output for _, output in scripts if output is not None)
    printed = run("import torch; torch.manual_seed(0)\n" + scripts[0][0], tmp_path)
    for mine, theirs in zip(printed.splitlines(), shown.splitlines(), strict=True):
        assert mine.split()[:-1] == theirs.split()[:-1]
    mine, theirs = ([float(line.split()[-1]) for line in text.splitlines()[1:]] for text in (printed, shown))
    assert mine == pytest.approx(theirs, rel=0.05)


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
    extras = set(re.findall(r"^\| `(\w+)`", README[: README.index("## Regularize")], re.MULTILINE))
    section = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    assert extras <= set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))
    assert {"torch", "jax", "tensorflow", "keras", "dev"} <= extras


def test_every_placement_is_in_the_table() -> None:
    section = README.partition("\n## Placements\n")[2].partition("\n## ")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE)) == PLACEMENTS


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert "CHANGELOG.md" in links
    for link in links:
        assert (ROOT / link).exists(), link
