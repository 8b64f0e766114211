"""Reports in every format, waivers, and a question asked again from its token."""

import json
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

import arspec as ar
from arspec import cli
from arspec_conformance import kills, report
from arspec_conformance.matrix import Column
from arspec_conformance.report import _summary
from arspec_conformance.report._tables import atlas, rows
from arspec_conformance.suite_terminal import badge_text
from arspec_conformance.trials import to_token
from arspec_conformance.waivers import Waiver, apply, read_waivers

ADAPTERS = "numpy_adapters:Right,numpy_adapters:SignOfZero"


def conformance(*arguments: str) -> Any:
    return CliRunner().invoke(cli.build(), ["conformance", *arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The report of a right and a wrong adapter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
        made = tmp_path_factory.mktemp("report")
        options = ("--clauses", "L1-*,LInf-*", "--dtype", "float32", "--report", str(made))
        result = conformance("run", "--backend", ADAPTERS, *options)
        assert result.exit_code == 1, result.output
        yield made


@pytest.fixture
def document(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())


def failed(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in document["results"][1]["cells"] if cell["status"] == "FAIL"]


# Formats.


def test_every_format_is_written(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "results.jsonl",
        "report.json",
        "report.md",
        "report.xml",
        "report.html",
        *(f"badge-numpy_adapters-{name}.{kind}" for name in ("Right", "SignOfZero") for kind in ("svg", "json")),
    }


def test_json_counts_what_it_lists(document: dict[str, Any]) -> None:
    assert document["conforms"] is False
    for result in document["results"]:
        assert result["counts"]["FAIL"] == sum(cell["status"] == "FAIL" for cell in result["cells"])
        assert result["observed"] == sum(cell["observed"] for cell in result["cells"]) > 1000
    assert document["results"][0]["conforms"] is True


def test_junit_has_a_case_for_every_cell(folder: Path, document: dict[str, Any]) -> None:
    root = ElementTree.parse(folder / "report.xml").getroot()
    for suite, result in zip(root, document["results"], strict=True):
        assert int(suite.get("tests", "")) == len(result["cells"]) == len(suite.findall("testcase"))
        assert int(suite.get("failures", "")) == result["counts"]["FAIL"] == len(suite.findall("*/failure"))
    (first, *_) = root.iter("failure")
    assert "expected 0" in first.get("message", "")


def test_markdown_has_tiers_and_failures(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    assert "| numpy_adapters:Right | eager | 4/4 |" in text
    assert "- **FAIL L1-K1** on numpy_adapters:SignOfZero, eager, float32: a valid subgradient" in text


def test_html_is_one_page_and_escapes(folder: Path, document: dict[str, Any], tmp_path: Path) -> None:
    text = (folder / "report.html").read_text()
    assert "Does NOT conform." in text
    assert "<title>arspec conformance" in text
    assert not re.search(r'(src|href)="|url\(|<script', text)
    document["results"][1]["cells"][0] |= {"status": "FAIL", "message": "<script>alert(1)</script>"}
    report.write(document, tmp_path)
    assert "<script" not in (tmp_path / "report.html").read_text()


def test_the_badge_counts_and_is_no_percentage(folder: Path, document: dict[str, Any]) -> None:
    right, wrong = document["results"]
    assert re.fullmatch(r"\d+/\d+ clauses, 2 unsupported", badge_text(right))
    svg = (folder / "badge-numpy_adapters-SignOfZero.svg").read_text()
    ElementTree.fromstring(svg)
    assert f"{badge_text(wrong)}, spec 2026.1" in svg
    assert "%" not in svg
    assert json.loads((folder / "badge-numpy_adapters-Right.json").read_text())["color"] == "brightgreen"


def test_the_matrix_is_at_its_worst_and_the_atlas_at_its_largest(document: dict[str, Any]) -> None:
    by_clause = {row.clause: row for row in rows(document)}
    assert by_clause["L1-K1"].statuses == ("PASS", "NOTRUN", "FAIL", "NOTRUN")
    assert by_clause["L1-S3"].statuses == ("PASS", "NOTRUN", "PASS", "NOTRUN")  # nothing has no kink
    peaks = [peak for peak in atlas(document) if peak.backend == "numpy_adapters:Right"]
    assert {peak.subject for peak in peaks} == {"L1", "LInf"}
    assert 0 < max(peak.value for peak in peaks) <= 1  # rounded once
    assert all(peak.token for peak in peaks if peak.value)


def test_a_report_is_written_anew(folder: Path, tmp_path: Path) -> None:
    again = conformance("report", str(folder), "--output", str(tmp_path))
    assert again.exit_code == 1
    assert "FAIL L1-K1" in again.stdout
    for name in ("report.html", "report.md", "report.xml", "report.json"):
        assert (tmp_path / name).read_text() == (folder / name).read_text()


@pytest.mark.parametrize("text", ["", "[]", '{"report": "another"}'])
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    result = conformance("report", str(path))
    assert result.exit_code == 2
    assert str(path) in result.stderr


# Asked again.


def test_a_failure_is_asked_again(document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    cell = next(cell for cell in failed(document) if cell["clause"] == "L1-E1")
    still = conformance("repro", cell["token"], "--backend", "numpy_adapters:SignOfZero", "--json")
    assert still.exit_code == 1
    answer = json.loads(still.stdout)
    assert answer["message"].split(". [")[0] == cell["message"].split(". [")[0]
    assert answer["gradient"]["got"]["numbers"] != answer["gradient"]["expected"]["numbers"]
    mended = conformance("repro", cell["token"], "--backend", "numpy_adapters:Right")
    assert mended.exit_code == 0
    assert "gradient expected: float32 (4, 3, 7)" in mended.stdout


def test_a_clause_without_a_tensor_is_asked_again() -> None:
    token = to_token({"clause": "Model-P1", "adapter": "torch", "device": "cpu", "mode": "once", "dtype": "float32"})
    result = conformance("repro", token)
    assert result.exit_code == 0, result.output
    assert "Model-P1, once, float32: pre_activation is what a layer's affine map gives" in result.stdout


@pytest.mark.parametrize(
    ("token", "text"),
    [
        ("nonsense", "is not a token of this suite"),
        (to_token({"clause": "L1-K1"}), "the token holds no question of this suite"),
        (to_token({"clause": "L1-K1", "adapter": "nobody", "mode": "eager", "device": "cpu"}), "unknown backend"),
    ],
)
def test_what_cannot_be_asked_again(token: str, text: str) -> None:
    result = conformance("repro", token)
    assert result.exit_code == 2
    assert text in result.stderr


# Waivers.

GOOD = {"clause": "L1-K1", "backend": "a", "issue": "https://x.org/1", "reason": "known", "expires": "2027-01-31"}
TODAY = date(2026, 11, 20)


def column(status: str = "FAIL") -> Column:
    cell = {"clause": "L1-K1", "mode": "eager", "dtype": "float32", "status": status}
    return Column("a", "a", cells=[cell])


def waiver(**changes: Any) -> Waiver:
    return Waiver(**{**GOOD, "expires": date(2027, 1, 31), **changes})


def test_a_waived_failure_is_no_pass() -> None:
    one = column()
    assert apply([waiver()], [one], TODAY) == []
    assert one.cells[0]["status"] == "WAIVED"
    assert one.cells[0]["waiver"]["issue"] == "https://x.org/1"


@pytest.mark.parametrize(
    ("given", "status", "text"),
    [
        ({"expires": date(2026, 11, 19)}, "FAIL", "expired on 2026-11-19"),
        ({}, "PASS", "meets no failure; remove it"),
    ],
)
def test_a_stale_waiver_is_an_error(given: dict[str, Any], status: str, text: str) -> None:
    one = column(status)
    (stale,) = apply([waiver(**given)], [one], TODAY)
    assert text in stale
    assert one.cells[0]["status"] == status


@pytest.mark.parametrize("narrow", [{"mode": "jit"}, {"dtype": "float64"}, {"backend": "b"}, {"clause": "L2-*"}])
def test_a_waiver_meets_no_more_than_it_says(narrow: dict[str, Any]) -> None:
    one = column()
    assert apply([waiver(**narrow)], [one], TODAY) == []
    assert one.cells[0]["status"] == "FAIL"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"issue": ""}, "expected an object of texts"),
        ({"issue": "soon"}, "expected the address of an issue"),
        ({"expires": "never"}, "expected a day such as"),
        ({"clause": "L1-K9"}, "is no clause"),
        ({"until": "x"}, "has an unknown key 'until'"),
        ({"reason": None}, "expected an object of texts"),
    ],
)
def test_a_wrong_waiver_is_an_error(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    path = tmp_path / "waivers.json"
    path.write_text(json.dumps({"waivers": [{**GOOD, **change}]}))
    with pytest.raises(ar.SpecError, match=re.escape(text)):
        read_waivers(path)
    del change
    path.write_text(json.dumps({"waivers": [GOOD]}))
    assert read_waivers(path) == (waiver(),)


def test_the_command_takes_waivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    path = tmp_path / "waivers.json"
    asked = ("run", "--backend", "numpy_adapters:SignOfZero", "--clauses", "L1-K1", "--dtype", "float32", "--json")
    path.write_text(json.dumps({"waivers": [{**GOOD, "backend": "*"}]}))
    waived = conformance(*asked, "--waivers", str(path))
    assert waived.exit_code == 0, waived.output
    assert json.loads(waived.stdout)["results"][0]["clauses"]["WAIVED"] == 1
    path.write_text(json.dumps({"waivers": [{**GOOD, "backend": "*", "expires": "2020-01-01"}]}))
    stale = conformance(*asked, "--waivers", str(path))
    assert stale.exit_code == 1
    assert "expired on 2020-01-01" in stale.stdout


# Counts, and the table of the README.

ROOT = Path(__file__).parents[1]


def test_a_summary_has_the_counts_of_every_backend(document: dict[str, Any]) -> None:
    kept = report.summary(document)
    right, wrong = kept["rows"]
    assert (right["backend"], right["conforms"], wrong["conforms"]) == ("numpy_adapters:Right", True, False)
    assert wrong["tiers"]["K"] == {"PASS": 3, "FAIL": 2}
    assert right["compared"] == document["results"][0]["observed"]
    assert len(json.dumps(kept)) < 3000
    refused = {"backend": "numpy_adapters:Right", "not_run": "no device 'cuda:0'; it has cpu."}
    elsewhere = {**document, "device": "cuda:0", "results": [refused]}
    both = report.summary(elsewhere, kept)
    assert [(row["device"], "not_run" in row) for row in both["rows"]] == [
        ("cpu", False),
        ("cuda:0", True),
        ("cpu", False),
    ]
    assert report.summary(document, both) == both
    other = {**document, "profile": "standard"}
    assert len(report.summary(other, both)["rows"]) == 2
    with pytest.raises(ar.SpecError, match="no summary of reports"):
        report.summary(document, {"report": "something else"})


def test_the_table_says_what_holds_and_what_did_not_run(document: dict[str, Any]) -> None:
    kept = report.summary(document)
    kept["rows"].append({"backend": "torch", "device": "cuda:0", "not_run": "no GPU"})
    table = report.readme_table(kept)
    wrong = next(line for line in table.splitlines() if line.startswith("| numpy_adapters:SignOfZero | cpu |"))
    assert "| 2/4 | 3/5 | 3/8 |" in wrong
    assert "| torch | cuda:0 | NOTRUN: no GPU |" in table
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1


def test_the_command_writes_the_table_into_a_page(folder: Path, tmp_path: Path) -> None:
    page, counts = tmp_path / "README.md", tmp_path / "counts.json"
    begin, end = _summary.BEGIN, _summary.END
    page.write_text(f"# Before\n\n{begin}\nan earlier table\n{end}\n\nAfter.\n")
    asked = ("report", str(folder), "--output", str(tmp_path / "again"), "--summary", str(counts))
    assert conformance(*asked, "--readme", str(page)).exit_code == 1  # one of the two does not conform
    text = page.read_text()
    assert text.startswith(f"# Before\n\n{begin}\n\n| adapter |")
    assert text.endswith(f"\n{end}\n\nAfter.\n")
    assert "an earlier table" not in text
    assert text == report.in_page(text, json.loads(counts.read_text()))
    page.write_text("no marks")
    refused = conformance(*asked, "--readme", str(page))
    assert refused.exit_code == 2
    assert "expected one line '<!-- matrix" in refused.stderr
    assert "--readme needs --summary" in conformance("report", str(folder), "--readme", str(page)).stderr


def test_the_table_of_the_readme_is_current() -> None:
    """Made by `arspec conformance report FOLDER --summary conformance/reports/quick.json --readme README.md`."""
    kept = json.loads((ROOT / "conformance" / "reports" / "quick.json").read_text(encoding="utf-8"))
    assert kept["spec"] == ar.SPEC_VERSION
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == report.in_page(text, kept, "README.md")
    assert all(row["conforms"] for row in kept["rows"] if "not_run" not in row)


# What is kept of selftests and of many runs.


def test_a_kill_matrix_is_a_page(tmp_path: Path) -> None:
    rows = [
        {"fault": "a | b", "sentence": "One | two.", "verdict": "killed", "killers": {"B": "L1-B1"}, "asked": 3},
        {"fault": "nothing", "sentence": "None.", "verdict": "SURVIVED", "killers": {}, "asked": 390},
    ]
    score = kills.score(rows)
    result = {"backend": "x:Y", "versions": {"x": "1"}, "complete": True, "not_run": None, "score": score, "rows": rows}
    document = {"spec": "2026.1", "device": "cpu", "results": [result, {**result, "backend": "z", "not_run": "no z"}]}
    (path,) = report.write_kills(document, tmp_path / "kept")
    assert path.name == "selftest-x-Y.md"
    text = path.read_text(encoding="utf-8")
    assert "1 of 2 planted faults killed, 0 false alarms, 0 faults that it cannot have." in text
    assert r"| a \| b | One \| two. | killed | L1-B1 | 3 |" in text
    assert "| nothing | None. | **SURVIVED** | – | 390 |" in text


def test_a_summary_is_a_page_with_a_line_per_run(document: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    kept = report.summary(document)
    assert json.loads(report.summary_json(kept)) == kept
    right, wrong = (row["failed"] for row in kept["rows"])
    assert right == []
    assert {"L1-K1", "LInf-K1"} < set(wrong) == {cell["clause"] for cell in failed(document)}
    hunt = {**document, "profile": "hunt", "seed": 7, "examples": 3}
    page = report.runs_page(report.summary({**hunt, "seed": 8}, report.summary(hunt)))
    assert "`arspec conformance run --backend numpy_adapters:Right --profile hunt --seed SEED --examples 3`" in page
    assert [line.split(" | ")[1:3] for line in page.splitlines() if line.startswith("| cpu")] == [
        ["7", "3"],
        ["8", "3"],
        ["7", "3"],
        ["8", "3"],
    ]
    assert "4 runs, " in page
    assert "; 2 runs do not conform." in page
    assert f"| {', '.join(wrong)} |" in page
    two = conformance("report", str(folder), str(folder), "--output", str(tmp_path))
    assert "--output is the folder of one report; 2 were named." in two.stderr
    asked = ("report", str(folder), "--output", str(tmp_path), "--page", str(tmp_path / "page.md"))
    assert "--page needs --summary" in conformance(*asked).stderr
    assert conformance(*asked, "--summary", str(tmp_path / "kept.json")).exit_code == 1
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert (tmp_path / "page.md").read_text() == report.runs_page(kept)


def test_the_page_of_hunts_is_current() -> None:
    """Made by `arspec conformance report FOLDER --summary .../hunt.json --page .../hunt.md`."""
    folder = ROOT / "conformance" / "reports"
    kept = json.loads((folder / "hunt.json").read_text(encoding="utf-8"))
    assert (folder / "hunt.md").read_text(encoding="utf-8") == report.runs_page(kept)
    assert all(row["conforms"] for row in kept["rows"])
