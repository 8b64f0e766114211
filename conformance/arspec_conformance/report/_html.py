"""A report as one HTML page that needs nothing else: no script, no font, no image from elsewhere."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from arspec_conformance.clauses import TIERS
from arspec_conformance.report._tables import atlas, columns, failures, rows
from arspec_conformance.suite_terminal import badge_text

MARKS = {"PASS": "✓", "QUALITY": "~", "FAIL": "✗", "WAIVED": "w", "UNSUPPORTED": "–", "NOTRUN": ""}


def html_page(document: Mapping[str, Any]) -> str:
    """Return the page: verdict, versions and probes, failures, clause × mode, the error atlas."""
    from jinja2 import Environment, StrictUndefined

    text = files("arspec_conformance.report").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    peaks = sorted(atlas(document), key=lambda peak: -peak.share)
    listed = rows(document)
    return environment.from_string(text).render(
        document=document,
        results=document["results"],
        columns=columns(document),
        tiers=[(t, m, [r for r in listed if r.clause.rpartition("-")[2][0] == t]) for t, m in TIERS.items()],
        failures=failures(document),
        peaks=peaks,
        marks=MARKS,
        badge_text=badge_text,
    )
