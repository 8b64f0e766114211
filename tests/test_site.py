"""The site: it builds without a warning, and its generated pages are whole."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import arspec as ar
from arspec._placements import PLACEMENTS
from arspec.cli._known import KNOWN, PACKAGES
from arspec_conformance.traps import TRAPS
from pages import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    settings = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def part_of_the_site(name: str) -> ModuleType:
    """Import a module of docs/_site as MkDocs does: its folder comes first."""
    sys.path.insert(0, str(ROOT / "docs" / "_site"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def text_of(page: Path) -> str:
    return re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        loaded = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?(https?://[^\s\">]+)", page.read_text("utf-8"))
        assert loaded == [], page.name


def test_no_page_is_left_out_of_the_menu(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f'href="{page.stem}.html"' in index or f"href={page.stem}.html" in index, page.name


def test_every_penalty_is_documented(site: Path) -> None:
    page = text_of(site / "penalties.html")
    for name, cls in ar.registered().items():
        assert re.search(rf"\b{name}\b", page) or not cls.__module__.startswith("arspec.penalties.")
    assert "the lasso, JRSS B 58, 1996" in page


def test_every_public_name_is_documented(site: Path) -> None:
    generated = part_of_the_site("generated")
    for page, (package, folder) in generated.PACKAGE_PAGES.items():
        html = (site / page.replace(".md", ".html")).read_text("utf-8")
        for name in generated.exported(ROOT / folder):
            known = html + (site / "penalties.html").read_text("utf-8") if package == "arspec" else html
            assert f'id="{package}.{name}"' in known or name == "SPEC_VERSION", name
    ports = (site / "api-port.html").read_text("utf-8")
    for package, folder in generated.PORTS.items():
        names = generated.exported(ROOT / folder)
        assert names, package
        assert all(f'id="{package}.{name}"' in ports for name in names), package


def test_the_tables_are_whole(site: Path) -> None:
    placements, traps = text_of(site / "placements.html"), text_of(site / "traps.html")
    assert all(name in placements for name in PLACEMENTS)
    assert all(trap.id in traps for trap in TRAPS)
    assert all(known.package in traps for known in KNOWN)
    assert all(package.tested in text_of(site / "versions.html") for package in PACKAGES)


def test_every_command_is_there(site: Path) -> None:
    page = text_of(site / "commands.html")
    assert all(f"Usage: arspec {name}" in page for name in ("spec validate", "doctor", "conformance run", "demo"))


def test_docstrings_become_markdown() -> None:
    markdown: Any = part_of_the_site("docstrings").markdown
    text = (
        'One *line* with "**" and l1_l2, `a_b`.\n\nParameters\n----------\nx, y : arrays < 3,\n    as in `a[0]`.\n'
        "**options : more.\n\nRaises\n------\nSpecError: no x.\n\nExample\n-------\n>>> 1 + 1\n2\n"
    )
    assert markdown(text) == (
        'One \\*line\\* with "\\*\\*" and l1\\_l2, `a_b`.\n\n**Parameters**\n\n- `x`, `y`: arrays &lt; 3,\n'
        "    as in `a[0]`.\n- `**options`: more.\n\n**Raises**\n\n- `SpecError`: no x.\n\n"
        "**Example**\n\n```pycon\n>>> 1 + 1\n2\n```"
    )


@pytest.mark.parametrize(
    ("link", "folder", "expected"),
    [
        ("[a](docs/torch.md#x)", "", "[a](torch.md#x)"),
        ("[a](CHANGELOG.md)", "", "[a](changelog.md)"),
        ("[a](../CONTRIBUTING.md)", "docs", "[a](contributing.md)"),
        ("[a](torch.md)", "docs", "[a](torch.md)"),
        ("[`e`](../examples/e)", "docs", "`e`"),
        ("[a](https://example.org/x.md)", "docs", "[a](https://example.org/x.md)"),
        ("[a](#here)", "", "[a](#here)"),
    ],
)
def test_links(link: str, folder: str, expected: str) -> None:
    assert part_of_the_site("hooks").linked(link, folder) == expected


def test_the_pages_show_what_reports_and_benchmarks_found(site: Path) -> None:
    page = text_of(site / "conformance.html")
    for kept in ("quick", "hunt"):
        rows = json.loads((ROOT / "conformance" / "reports" / f"{kept}.json").read_text("utf-8"))["rows"]
        assert all(row["backend"] in page for row in rows)
    assert "<!-- reports" not in (site / "conformance.html").read_text("utf-8")
    assert 'aria-label="Cost of penalties by framework"' in (site / "performance.html").read_text("utf-8")


def test_what_fails_is_seen() -> None:
    reports: Any = part_of_the_site("reports")
    tiers = {"E": {"PASS": 4, "FAIL": 1}, "B": {"PASS": 2, "UNSUPPORTED": 1}, "P": {"UNSUPPORTED": 3}}
    row = {"backend": "new", "device": "cpu", "versions": {"new": "1.0"}, "compared": 1234, "seed": 3, "tiers": tiers}
    absent = {"backend": "new", "device": "cuda:0", "not_run": "no device"}
    kept = {"profile": "quick", "spec": "1", "rows": [row | {"largest_share_of_a_bound": 0.25}, absent]}
    shown = reports.matrix(kept)
    assert '<td class="failed">4/5</td>' in shown
    assert '<td class="held">2/2</td>' in shown
    assert '<td class="none">–</td>' in shown
    assert "1,234</td><td>25%</td>" in shown
    assert "new on cuda:0" in shown
    assert '<td class="failed">1</td>' in reports.hunts(kept)


def test_a_table_of_costs_is_drawn() -> None:
    reports: Any = part_of_the_site("reports")
    table = "| framework | mode | workload | penalty | ratio |\n| --- | --- | --- | --- | --- |\n"
    lines = "| torch | eager | value+gradient | L1 | 1.5 |\n| jax | jit | step mlp | activity KL |  |\n"
    rows = reports.rows_of("Two cores.\n\n" + table + lines)
    assert [row.get("ratio") for row in rows] == ["1.5", None]
    drawn = reports.costs(rows)
    assert "torch eager" in drawn
    assert "jax" not in drawn
    page = f"# Costs\n\n<!-- table: begin -->\n{table}{lines}<!-- table: end -->\n"
    assert reports.filled(page).count("<svg") == 1
    assert reports.filled(page.replace("1.5", "")) == page.replace("1.5", "")
