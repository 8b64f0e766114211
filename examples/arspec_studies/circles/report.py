"""The report: one HTML page that holds everything it shows."""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

import arspec
from arspec_studies.circles import plots, summary
from arspec_studies.circles.agreement import Row
from arspec_studies.circles.data import CONFIGURATIONS, circles
from arspec_studies.circles.run import Outcome

HERE = Path(__file__).parent
EXAMPLE = "pre_activation_sum"


def write(path: Path, outcomes: Mapping[str, Outcome], rows: Sequence[Row], *, epochs: int) -> Path:
    """Write the page and return its path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("page.html.j2").render(**_content(outcomes, rows, epochs))
    path.write_text(page, encoding="utf-8")
    return path


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
    source = (HERE / f"train_{framework}.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == "train":
            return ast.get_source_segment(source, node) or ""
    raise LookupError(f"train_{framework}.py defines no function train")
