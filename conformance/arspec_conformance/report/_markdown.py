"""A report as Markdown: one table of tiers, the failures, versions and facts."""

from collections.abc import Mapping
from typing import Any

from arspec_conformance.clauses import TIERS
from arspec_conformance.report._tables import failures, modes
from arspec_conformance.suite_terminal import badge_text

SHOWN = 40


def markdown(document: Mapping[str, Any]) -> str:
    """Return the report as Markdown."""
    verdict = "conforms" if document["conforms"] else "does **not** conform"
    head = f"spec {document['spec']}, suite {document['suite']}, profile {document['profile']}, {document['device']}"
    lines = ["# arspec conformance", "", f"{head}: {verdict}.", "", *_table(document), ""]
    for stale in document["stale_waivers"]:
        lines.append(f"- stale: {_escaped(stale)}")
    for result in document["results"]:
        lines += ["", f"## {result['backend']}", "", *_facts(result)]
    found = failures(document)
    if found:
        lines += ["", "## What failed, was waived, or is a warning", ""]
        lines += [_failure(backend, cell) for backend, cell in found[:SHOWN]]
        lines += [f"- and {len(found) - SHOWN} more in report.json"] if len(found) > SHOWN else []
    return "\n".join(lines) + "\n"


def _table(document: Mapping[str, Any]) -> list[str]:
    tiers = [t for t in TIERS if any(cell["tier"] == t for r in document["results"] for cell in r["cells"])]
    rows = ["| backend | mode | " + " | ".join(tiers) + " |", "|---|---|" + "---:|" * len(tiers)]
    for result in document["results"]:
        for mode in modes(result):
            first = mode == modes(result)[0]
            cells = [c for c in result["cells"] if c["mode"] == mode or (first and c["mode"] == "once")]
            counts = [_counted([cell for cell in cells if cell["tier"] == tier]) for tier in tiers]
            rows.append(f"| {result['backend']} | {mode} | " + " | ".join(counts) + " |")
    return rows


def _counted(cells: list[Mapping[str, Any]]) -> str:
    asked = [cell for cell in cells if cell["status"] not in ("UNSUPPORTED", "NOTRUN")]
    passed = sum(cell["status"] in ("PASS", "QUALITY") for cell in asked)
    return f"{passed}/{len(asked)}" if asked else "–"


def _facts(result: Mapping[str, Any]) -> list[str]:
    if result["not_run"]:
        return [f"Not run: {_escaped(result['not_run'])}"]
    versions = ", ".join(f"{package} {number}" for package, number in result["versions"].items())
    lines = [f"{badge_text(result)}; {versions}; {result['observed']:,} numbers compared."]
    lines += [f"- {name}: {fact}" for name, fact in result.get("probes", {}).items()]
    return lines + ([f"- {_escaped(result['error'])}"] if result["error"] else [])


def _failure(backend: str, cell: Mapping[str, Any]) -> str:
    text = f"- **{cell['status']} {cell['clause']}** on {backend}, {cell['mode']}, {cell['dtype']}: "
    text += _escaped(cell["message"])
    if "waiver" in cell:
        text += f" Waived until {cell['waiver']['expires']}: {cell['waiver']['reason']} ({cell['waiver']['issue']})"
    return text + (f"\n  `arspec conformance repro {cell['token']}`" if cell["token"] else "")


def _escaped(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")
