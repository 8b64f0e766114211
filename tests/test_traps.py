"""Every known trap has a proof: a test named after its row, or a clause of the suite."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from arspec import cli
from arspec_conformance.clauses import CLAUSES
from arspec_conformance.traps import LOUD, OPEN, RIGHT, TRAPS, named_tests, proofs, rows_of

TESTS = Path(__file__).parent

# Rows that nothing proves yet. It may only shrink.
KNOWN_OPEN: frozenset[str] = frozenset()


def test_the_rows_are_all_there() -> None:
    assert [trap.id for trap in TRAPS] == [
        f"{s}{i}" for s, n in (("A", 11), ("B", 8), ("C", 19)) for i in range(1, n + 1)
    ]
    assert {trap.stance for trap in TRAPS} == {RIGHT, LOUD}
    assert all(trap.sentence.endswith(".") for trap in TRAPS)


def test_the_clauses_they_name_exist() -> None:
    assert {clause for trap in TRAPS for clause in trap.clauses} <= {clause.id for clause in CLAUSES}


def test_no_row_is_open_but_those_known() -> None:
    found = proofs(named_tests(TESTS))
    assert {proof.trap.id for proof in found if proof.status == OPEN} <= KNOWN_OPEN


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("test_c2_inplace_relu", ["C2"]),
        ("test_c2_c4_both", ["C2", "C4"]),
        ("test_b3_padded", ["B3"]),
        ("test_a_right_engine", []),
        ("test_c2", []),
        ("test_x1_other", []),
    ],
)
def test_a_name_says_its_rows(name: str, rows: list[str]) -> None:
    assert rows_of(name) == rows


def test_a_row_without_a_test_is_open(tmp_path: Path) -> None:
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "test_b.py").write_text("class TestX:\n    def test_b4_wrapped(self): ...\n")
    (tmp_path / "test_a.py").write_text("def helper(): ...\ndef test_c12_c99_remat(): ...\n")
    found = {proof.trap.id: proof for proof in proofs(named_tests(tmp_path))}
    assert found["B4"].tests == ("keras/test_b.py::test_b4_wrapped",)
    assert found["C12"].tests == ("test_a.py::test_c12_c99_remat",)
    assert (found["C12"].status, found["C5"].status, found["A11"].status) == (RIGHT, OPEN, OPEN)


def traps(*arguments: str) -> Any:
    return CliRunner().invoke(cli.build(), ["traps", *arguments])


def test_the_command_prints_them(tmp_path: Path) -> None:
    shown = traps("--tests", str(TESTS), "--json")
    rows = json.loads(shown.stdout)
    assert [row["id"] for row in rows] == [trap.id for trap in TRAPS]
    assert shown.exit_code == any(row["status"] == OPEN for row in rows)
    nothing = traps("--tests", str(tmp_path))
    assert nothing.exit_code == 1
    assert "C5   OPEN   A sum over a sharded tensor" in nothing.stdout
    assert traps("--tests", str(tmp_path / "none")).exit_code == 2
