"""The report: one HTML page that holds everything it shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import arspec
from arspec_studies._study.page import function_source, write_page
from arspec_studies.circles import plots, summary
from arspec_studies.circles.agreement import Row
from arspec_studies.circles.data import CONFIGURATIONS, circles
from arspec_studies.circles.run import Outcome

HERE = Path(__file__).parent
EXAMPLE = "pre_activation_sum"


def write(path: Path, outcomes: Mapping[str, Outcome], rows: Sequence[Row], *, epochs: int) -> Path:
    """Write the page and return its path."""
    return write_page(path, HERE, _content(outcomes, rows, epochs))


def _content(outcomes: Mapping[str, Outcome], rows: Sequence[Row], epochs: int) -> dict[str, object]:
    data, lines = circles(), summary.lines(outcomes)
    compared = list(dict.fromkeys(row.framework for row in rows))
    return {
        "arspec_version": arspec.SPEC_VERSION,
        "epochs": epochs,
        "outcomes": outcomes,
        "titles": summary.TITLES,
        "notes": (summary.PUBLISHED, summary.LEGEND),
        "agreement_note": summary.AGREEMENT_NOTE,
        "lines": lines,
        "configurations": CONFIGURATIONS,
        "compared": compared,
        "comparisons": summary.comparisons(rows, compared),
        "verdict": summary.verdict(rows) if rows else "No framework gave evidence.",
        "agrees": bool(rows) and all(row.agrees for row in rows),
        "scatter": plots.scatter(data),
        "headline": plots.headline(lines) if lines else "",
        "curves": plots.curves(outcomes) if lines else "",
        "boundaries": plots.boundaries(outcomes, data) if lines else "",
        "spec": next(c for c in CONFIGURATIONS if c.name == EXAMPLE).path.read_text(encoding="utf-8"),
        "snippets": {name: snippet(name) for name in summary.TITLES},
    }


def snippet(framework: str) -> str:
    """Return the source of `train` in a framework's file, read without importing it."""
    return function_source(HERE / f"train_{framework}.py", "train")
