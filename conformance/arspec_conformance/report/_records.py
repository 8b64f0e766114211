"""What is kept of selftests and of many runs: a page per kill matrix, a line per run."""

import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from arspec_conformance.report._summary import statuses


def write_kills(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the kill matrix of every backend that ran as `selftest-NAME.md`, and return the files.

    Parameters
    ----------
    document : what `kills.document` gave.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for result in document["results"]:
        if not result["not_run"]:
            path = folder / f"selftest-{''.join(c if c.isalnum() else '-' for c in result['backend'])}.md"
            path.write_text(kill_page(document, result), encoding="utf-8")
            written.append(path)
    return written


def kill_page(document: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Return the kill matrix of one backend as Markdown."""
    score, name = result["score"], result["backend"]
    command = f"arspec conformance selftest --backend {name} --device {document['device']}"
    counts = f"{score['killed']} of {score['planted']} planted faults killed"
    lines = [
        f"# Faults planted in {name}",
        "",
        f"`{command}`, spec {document['spec']}, {_packages(result['versions'])}: {counts}, "
        f"{score['false_alarms']} false alarms, {score['not_applicable']} faults that it cannot have"
        f"{'' if result['complete'] else '; INCOMPLETE'}.",
        "",
        "Found by: the first clause of each tier. Asked: how many questions until then.",
        "",
        "| fault | what is wrong | verdict | found by | asked |",
        "|---|---|---|---|---:|",
    ]
    for row in result["rows"]:
        verdict = row["verdict"] if row["verdict"].islower() else f"**{row['verdict']}**"
        found = ", ".join(row["killers"].values()) or "–"
        lines.append(
            f"| {_escaped(row['fault'])} | {_escaped(row['sentence'])} | {verdict} | {found} | {row['asked']} |"
        )
    return "\n".join(lines) + "\n"


def summary_json(kept: Mapping[str, Any]) -> str:
    """Return a summary as JSON, a line per row."""
    head = json.dumps({key: value for key, value in kept.items() if key != "rows"})[:-1]
    rows = ",\n".join(json.dumps(row, allow_nan=False) for row in kept["rows"])
    return f'{head}, "rows": [\n{rows}\n]}}\n'


def runs_page(kept: Mapping[str, Any]) -> str:
    """Return a summary as a Markdown page: a line per run, and what they come to."""
    profile = kept["profile"]
    lines = [f"# Runs of profile {profile}", "", f"Spec {kept['spec']}. {_total(kept)}", ""]
    for backend, found in groupby(kept["rows"], key=lambda row: row["backend"]):
        rows = list(found)
        lines += [f"## {backend}", "", f"`{_command(kept, rows)}`", ""]
        for versions, same in groupby(rows, key=lambda row: _packages(row.get("versions", {}))):
            lines += [f"With {versions or 'nothing'}:", ""] if versions else []
            lines += [*_runs(list(same)), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _runs(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    yield "| device | seed | examples | clauses | questions | numbers compared | failures | s of CPU |"
    yield "|---|---:|---:|---:|---:|---:|---|---:|"
    for row in rows:
        asked = f"| {row['device']} | {row.get('seed', '–')} | {row.get('examples') or 'default'} |"
        if "not_run" in row:
            yield f"{asked} NOTRUN: {_escaped(row['not_run'])} | | | | |"
            continue
        clauses, failed = sum(statuses(row).values()), ", ".join(row["failed"]) or "none"
        state = failed if row["conforms"] or row["failed"] else f"{failed}; INCOMPLETE"
        numbers = f"{clauses} | {row['cells']:,} | {row['compared']:,}"
        yield f"{asked} {numbers} | {state} | {row['cpu_seconds']:.0f} |"


def _total(kept: Mapping[str, Any]) -> str:
    ran = [row for row in kept["rows"] if "not_run" not in row]
    cells, compared = (sum(row[key] for row in ran) for key in ("cells", "compared"))
    wrong = [row for row in ran if not row["conforms"]]
    return f"{len(ran)} runs, {cells:,} questions, {compared:,} numbers compared; {len(wrong)} runs do not conform."


def _command(kept: Mapping[str, Any], rows: list[Mapping[str, Any]]) -> str:
    command = f"arspec conformance run --backend {rows[0]['backend']} --profile {kept['profile']}"
    examples = {row["examples"] for row in rows if row.get("examples")}
    if any("seed" in row for row in rows):
        command += " --seed SEED" + (f" --examples {examples.pop()}" if len(examples) == 1 else "")
    return command


def _packages(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{package} {number}" for package, number in versions.items())


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
