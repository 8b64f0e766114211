"""What is kept of reports: counts by backend, and the table in the README that is made of them."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arspec import SpecError
from arspec_conformance.clauses import TIERS
from arspec_conformance.report._tables import worst

KIND = "arspec conformance summary"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"


def summary(document: Mapping[str, Any], known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the counts of a report, beside those of other backends and devices that are known.

    Parameters
    ----------
    document : what `suite.document` gave.
    known : an earlier summary; what it has of the same backend and device (and seed, of a hunt)
        is replaced, and all of it where its profile or specification is another.

    Raises
    ------
    SpecError: what is known is no summary.
    """
    if known is not None and (not isinstance(known, Mapping) or known.get("report") != KIND):
        raise SpecError("what stands in the file is no summary of reports.")
    head = {"report": KIND, "spec": document["spec"], "profile": document["profile"]}
    drawn = {key: document[key] for key in ("seed", "examples") if document["profile"] == "hunt" and key in document}
    fresh = [_counts(result, {"device": document["device"], **drawn}) for result in document["results"]]
    replaced = {_key(row) for row in fresh}
    same = known is not None and all(known.get(key) == value for key, value in head.items())
    kept = known["rows"] if known is not None and same else []
    rows = [row for row in kept if _key(row) not in replaced]
    return {**head, "rows": sorted([*rows, *fresh], key=_key)}


def _key(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["backend"], row["device"], row.get("seed", 0)


def _counts(result: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    row = {"backend": result["backend"], **asked}
    if result["not_run"]:
        return {**row, "not_run": result["not_run"]}
    by_clause: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for cell in result["cells"]:
        by_clause.setdefault((cell["tier"], cell["clause"]), []).append(cell)
    tiers = {tier: [worst(cells) for (t, _), cells in by_clause.items() if t == tier] for tier in TIERS}
    return {
        **row,
        "versions": result["versions"],
        "conforms": result["conforms"],
        "modes": list(dict.fromkeys(cell["mode"] for cell in result["cells"] if cell["mode"] != "once")),
        "failed": sorted({cell["clause"] for cell in result["cells"] if cell["status"] == "FAIL"}),
        "cells": len(result["cells"]),
        "compared": result["observed"],
        "cpu_seconds": result["cpu_seconds"],
        "tiers": {tier: {s: found.count(s) for s in dict.fromkeys(found)} for tier, found in tiers.items() if found},
        "largest_share_of_a_bound": max((c["worst"] for c in result["cells"] if c["tier"] in "BM"), default=0.0),
    }


def readme_table(kept: Mapping[str, Any]) -> str:
    """Return the table of a summary as Markdown: the clauses that hold, of those that were asked."""
    lines = ["| adapter | device | versions | " + " | ".join(TIERS) + " | numbers compared |"]
    lines += ["|---|---|---|" + "---:|" * (len(TIERS) + 1)]
    for row in kept["rows"]:
        name = f"| {row['backend']} | {row['device']} | "
        if "not_run" in row:
            lines.append(f"{name}NOTRUN: {row['not_run']} |" + " |" * (len(TIERS) + 1))
            continue
        versions = ", ".join(f"{package} {number}" for package, number in row["versions"].items())
        counts = " | ".join(_cell(row["tiers"].get(tier, {})) for tier in TIERS)
        lines.append(f"{name}{versions} | {counts} | {row['compared']:,} |")
    return "\n".join([*lines, "", _legend(kept)]) + "\n"


def statuses(row: Mapping[str, Any]) -> Counter[str]:
    """Return how many clauses of a row of a summary have which status."""
    return sum((Counter(found) for found in row["tiers"].values()), Counter())


def _cell(counts: Mapping[str, int]) -> str:
    asked = sum(count for status, count in counts.items() if status not in ("UNSUPPORTED", "NOTRUN"))
    held = sum(counts.get(status, 0) for status in ("PASS", "QUALITY"))
    return f"{held}/{asked}" if asked else "–"


def _legend(kept: Mapping[str, Any]) -> str:
    tiers = "; ".join(f"{tier} {meaning.partition(':')[0]}" for tier, meaning in TIERS.items())
    return f"Clauses that hold, of those asked, in every mode and dtype of profile {kept['profile']}. Tiers: {tiers}."


def write_readme(path: Path, kept: Mapping[str, Any]) -> None:
    """Put the table of a summary between the two marks of a page.

    Raises
    ------
    SpecError: the page has not these marks, each once and in this order.
    """
    text = path.read_text(encoding="utf-8")
    path.write_text(in_page(text, kept, str(path)), encoding="utf-8")


def in_page(text: str, kept: Mapping[str, Any], name: str = "the page") -> str:
    """Return a page with the table of a summary between its marks."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise SpecError(f"{name}: expected one line {BEGIN!r} and below it one line {END!r}.")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{readme_table(kept)}\n{END}{rest.partition(END)[2]}"
