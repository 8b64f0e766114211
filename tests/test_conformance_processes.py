"""Runs in processes: shared among several, crashed, killed half-way, and resumed."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import numpy_adapters
from arspec import cli
from arspec_conformance import suite
from arspec_conformance.clauses import CLAUSES
from arspec_conformance.runner import questions


def conformance(*arguments: str) -> Any:
    return CliRunner().invoke(cli.build(), ["conformance", *arguments])


@pytest.fixture(autouse=True)
def _adapters_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")


def test_a_crash_loses_no_other_result() -> None:
    crashed = conformance("smoke", "--backend", "numpy_adapters:Crashes,numpy_adapters:Right", "--json")
    assert crashed.exit_code == 1
    first, second = json.loads(crashed.stdout)["results"]
    assert "the engine said goodbye" in first["error"]
    assert second["conforms"]


def test_a_crash_loses_nothing_but_its_subject(tmp_path: Path) -> None:
    """What a crashed process has not begun is asked by the next one."""
    asked = ("run", "--clauses", "L1-*,LInf-*,L2-*", "--dtype", "float32", "--report", str(tmp_path), "--json")
    result = conformance(*asked, "--backend", "numpy_adapters:CrashesAtLInf", "--jobs", "1")
    assert result.exit_code == 1
    (crashed,) = json.loads(result.stdout)["results"]
    assert not crashed["complete"]
    assert "exit code 9, asked about linf" in crashed["error"]
    assert "no maximum was found" in crashed["error"]
    found = {cell["clause"].rpartition("-")[0] for cell in crashed["cells"]}
    assert found == {"L1", "L2"}
    assert crashed["counts"]["PASS"] + crashed["counts"]["UNSUPPORTED"] == len(crashed["cells"])
    mended = conformance(*asked, "--backend", "numpy_adapters:CrashesAtLInf", "--resume")
    assert mended.exit_code == 1
    assert len(json.loads(mended.stdout)["results"][0]["cells"]) == len(crashed["cells"])


def test_two_processes_answer_what_one_does() -> None:
    asked = ("run", "--clauses", "L1-*,LInf-*,DeCov-*", "--backend", "numpy_adapters:Right", "--json")
    one, two = (json.loads(conformance(*asked, "--jobs", jobs).stdout)["results"][0] for jobs in ("1", "2"))
    for cell in (*one["cells"], *two["cells"]):
        del cell["seconds"]
    assert one["cells"] == two["cells"]
    assert two["complete"]
    assert "modes" not in two


def test_a_subject_is_claimed_by_one_process(tmp_path: Path) -> None:
    listed = list(questions(numpy_adapters.Right(), CLAUSES, modes=("eager",), dtypes=("float32",)))
    processes = [suite.unclaimed(listed, str(tmp_path)) for _ in range(3)]
    rounds = itertools.zip_longest(*processes)
    asked = [[question for question in mine if question] for mine in zip(*rounds, strict=True)]
    assert sorted(q.clause.id for mine in asked for q in mine) == sorted(q.clause.id for q in listed)
    subjects = [{q.clause.subject for q in mine} for mine in asked]
    assert all(subjects)
    assert sum(map(len, subjects)) == len({q.clause.subject for q in listed})


def test_a_run_that_is_killed_is_resumed(tmp_path: Path) -> None:
    """The whole process group is killed while it writes; nothing it had found is asked again."""
    asked = ["run", "--clauses", "L1-*", "--dtype", "float32", "--backend", "numpy_adapters:Slow", "--json"]
    asked += ["--report", str(tmp_path)]
    command = [sys.executable, "-m", "arspec.cli", "conformance", *asked]
    journal = tmp_path / "results.jsonl"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as one:
        while not (journal.exists() and journal.read_text().count('"cell"') > 5):
            assert one.poll() is None
            time.sleep(0.05)
        os.killpg(one.pid, signal.SIGKILL)
    lines = [json.loads(line) for line in journal.read_text().splitlines() if line.endswith("}")]
    kept = [line["cell"] for line in lines if "cell" in line]
    assert not (tmp_path / "report.json").exists()
    again = conformance(*asked, "--resume")
    assert again.exit_code == 0, again.output
    (result,) = json.loads(again.stdout)["results"]
    assert result["complete"]
    assert 5 < len(kept) < len(result["cells"])
    by_key = {(cell["clause"], cell["mode"], cell["dtype"]): cell for cell in result["cells"]}
    assert len(by_key) == len(result["cells"])
    assert all(by_key[cell["clause"], cell["mode"], cell["dtype"]] == cell for cell in kept)


def test_a_run_is_resumed(tmp_path: Path) -> None:
    """A run whose process dies half-way is finished by the next, which asks only what is left."""
    asked = ("run", "--profile", "smoke", "--dtype", "float32", "--report", str(tmp_path), "--json")
    first = json.loads(conformance(*asked, "--backend", "numpy_adapters:Right").stdout)["results"][0]
    journal = tmp_path / "results.jsonl"
    lines = journal.read_text().splitlines()
    kept = len(lines) // 2
    journal.write_text("\n".join(lines[:kept]) + '\n{"backend": "numpy_adap')
    again = conformance(*asked, "--backend", "numpy_adapters:Right", "--resume")
    second = json.loads(again.stdout)["results"][0]
    assert second["complete"]
    assert second["counts"] == first["counts"]
    assert [cell["seconds"] for cell in second["cells"][:5]] == [cell["seconds"] for cell in first["cells"][:5]]
    other = conformance(*asked, "--backend", "numpy_adapters:Right", "--resume", "--clauses", "L1-*")
    assert other.exit_code == 2
    assert "answers another request" in other.stderr
