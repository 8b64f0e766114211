"""The table of certificates in docs/porting.md, which `benchmarks/ports/run.py --document` writes."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[1] / "benchmarks" / "ports" / "run.py"


@pytest.fixture(scope="module")
def run() -> Any:
    specification = importlib.util.spec_from_file_location("ports_run", FILE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def row(model: str, **given: Any) -> dict[str, Any]:
    worst = {"L0": 0.0, "L1": 2e-13, "L2": 3e-16, "L3": 2e-9, "L4": 0.0, "L5": 0.0}
    held = {"verdict": "holds", "worst": worst, "levels": list(worst), "lines": 81, "check_s": 41.6}
    return {"model": model, "to": "nnx", **held, **given}


def test_a_page_says_what_holds_what_differs_and_what_was_not_run(run: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n{run.MARKERS[0]}\nstale\n{run.MARKERS[1]}\nAfter.\n", encoding="utf-8")
    rows = [
        row("One", verdict="differs", levels=["L0"]),
        row("One"),
        row("Two", verdict="differs", levels=["L0", "L1", "L2", "L4"]),
        {"model": "Three", "to": "nnx", "verdict": "refused", "reason": "many lines\nUnsupportedError: 'x': a Y."},
    ]
    run.document(rows, ["One", "Two", "Three", "Four"], page)
    first = page.read_text(encoding="utf-8")
    for line in (
        "1 of 4 hold at every level that was measured.",
        "| One | 2e-13 | 3e-16 | 2e-09 | 0e+00 | noticed | 81 | 42 |",
        "| Two | 2e-13 | 3e-16 | **2e-09, differs** | 0e+00 | **missed** | 81 | 42 |",
        "- Three was not measured: UnsupportedError: 'x': a Y.",
        "- Not run yet: Four.",
    ):
        assert line in first.splitlines()
    assert "stale" not in first
    run.document(rows, ["One", "Two", "Three", "Four"], page)
    assert page.read_text(encoding="utf-8") == first
    page.write_text("No markers.", encoding="utf-8")
    with pytest.raises(SystemExit, match="expected the lines"):
        run.document(rows, ["One"], page)


def test_the_page_of_the_project_has_the_markers(run: Any) -> None:
    text = (FILE.parents[2] / "docs" / "porting.md").read_text(encoding="utf-8")
    assert [text.count(marker) for marker in run.MARKERS] == [1, 1]
