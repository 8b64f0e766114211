"""The page of a study: one HTML file that holds everything it shows."""

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

import arspec
from arspec_studies._study import figures, summary
from arspec_studies._study.store import Row
from arspec_studies._study.study import FRAMEWORKS, Study

HERE = Path(__file__).parent


def write_page(path: Path, folder: Path, content: Mapping[str, Any]) -> Path:
    """Fill the template `page.html.j2` of a folder, write the page and return its path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, HERE]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    path.write_text(environment.get_template("page.html.j2").render(**content), encoding="utf-8")
    return path


def function_source(path: Path, name: str) -> str:
    """Return the source of a function in a file, read without importing it."""
    source = path.read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return ast.get_source_segment(source, node) or ""
    raise LookupError(f"{path.name} defines no function {name}")


def training_source(study: Study, framework: str) -> str:
    """Return the source of the function that trains, of another study where that is used, and of `classify`."""
    path = study.folder / f"train_{framework}.py"
    another = re.search(rf"^from arspec_studies\.(\w+) import {path.stem}$", path.read_text("utf-8"), re.MULTILINE)
    if another:
        path = study.folder.parent / another[1] / path.name
    source = function_source(path, "train")
    if "classify(" in source:
        source += "\n\n\n" + function_source(HERE / f"{framework}_fit.py", "classify")
    return source


def write(path: Path, study: Study, rows: Sequence[Row], made_by: Mapping[str, Any]) -> Path:
    """Write the page of a study and return its path.

    Parameters
    ----------
    rows : the results of all frameworks.
    made_by : "made" (how, by the title of the framework), "quick" and "failure" (text, may be empty).
    """
    return write_page(path, HERE, {**_content(study, rows), **made_by, "arspec_version": arspec.SPEC_VERSION})


def _content(study: Study, rows: Sequence[Row]) -> dict[str, Any]:
    found = summary.groups(study, rows)
    effects = summary.effects(study, found, study.headline)
    gridded = [v for v in study.variants if len({g.coefficient for g in found if g.variant == v}) > 1]
    return {
        "study": study,
        "titles": summary.TITLES,
        "lines": [_line(study, found, group) for group in summary.at_spec(study, found)],
        "grid_lines": [_line(study, found, group) for group in found] if gridded else [],
        "sentences": [summary.sentence(study, effect) for effect in effects],
        "differences": figures.differences(effects) if effects else "",
        "grid": figures.over_coefficient(study, found, study.metrics[:3]) if gridded else "",
        "best": [_best(study, best) for best in summary.best(study, found)],
        "own_figures": _own_figures(study, rows),
        "specs": _specs(study),
        "snippets": {name: training_source(study, name) for name in FRAMEWORKS},
    }


def _specs(study: Study) -> dict[str, str]:
    """Return the text of every spec file with a rule, by the title of the first variant that has it."""
    by_path = {study.path(v.name): v.title for v in reversed(study.variants) if not study.is_plain(v)}
    return {title: path.read_text(encoding="utf-8") for path, title in reversed(by_path.items())}


def _line(study: Study, found: Sequence[summary.Group], group: summary.Group) -> dict[str, Any]:
    baseline = summary.baseline_of(study, found, group)
    cells = []
    for metric in study.metrics:
        spread = group.spread(metric.name)
        published = group.variant.published.get(metric.name)
        changed = ""
        if baseline is not None and baseline is not group and set(baseline.runs) & set(group.runs):
            paired = group.paired(baseline, metric.name)
            changed = f"{summary.signed(metric, paired.spread.mean)}{'*' if paired.is_clear else ''}"
        shown = f"{metric.shown(spread.mean)} ± {metric.shown(spread.deviation)}"
        cells.append((shown, changed, "" if published is None else metric.shown(published)))
    coefficient = "–" if study.is_plain(group.variant) else f"{group.coefficient:g}"
    return {"group": group, "coefficient": coefficient, "cells": cells}


def _best(study: Study, best: summary.Best) -> dict[str, str]:
    metric, paired = study.headline, best.paired
    interval, verdict = "–", f"too few {study.seed}s"
    if paired.interval is not None:
        interval = " to ".join(summary.signed(metric, end) for end in paired.interval)
        verdict = "clear" if paired.is_clear else "not clear"
    return {
        "variant": best.group.variant.title,
        "framework": summary.TITLES[best.group.framework],
        "coefficient": f"{best.group.coefficient:g}",
        "change": summary.signed(metric, paired.spread.mean),
        "interval": interval,
        "verdict": verdict,
    }


def _own_figures(study: Study, rows: Sequence[Row]) -> list[dict[str, str]]:
    if study.figures is None:
        return []
    found = []
    for framework in FRAMEWORKS:
        own = [row for row in rows if row.framework == framework]
        for svg, caption in study.figures(own) if own else []:
            found.append({"svg": svg, "caption": f"{summary.TITLES[framework]}. {caption}"})
    return found
