"""The suite in a terminal: live counts while it runs, tables when it is done."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from arspec_conformance.clauses import TIERS, Clause
from arspec_conformance.matrix import Column, OnEvent
from arspec_conformance.suite import STATUSES

SHOWN_FAILURES = 12


@contextmanager
def progress(console: Console, columns: Sequence[Column]) -> Iterator[OnEvent]:
    """Show one bar per backend with its counts; gives the function to call with each event."""
    looks = (TextColumn("{task.description:<16}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*looks, TextColumn("{task.fields[doing]}", style="dim"), console=console) as bars:
        tasks = {c.name: bars.add_task(c.name, total=None, start=False, doing="waiting") for c in columns}
        counts = {c.name: Counter(cell["status"] for cell in c.cells) for c in columns}

        def on_event(name: str, event: Mapping[str, Any]) -> None:
            task, counted = tasks[name], counts[name]
            if event["event"] == "start":
                bars.start_task(task)
                bars.update(task, total=event["cells"], completed=counted.total(), doing="")
            elif event["event"] == "cell":
                counted[event["cell"]["status"]] += 1
                bars.update(task, advance=1, doing=f"{_counted(counted)} {event['cell']['clause']}")
            elif event["event"] == "refused":
                bars.update(task, doing="not run")
            elif event["event"] == "end":
                bars.stop_task(task)
                bars.update(task, doing=_counted(counted) or "done")

        yield on_event


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[status]} {status.lower()}" for status in STATUSES if counts[status])


def show(console: Console, document: Mapping[str, Any]) -> None:
    """Print what a report says: clauses by tier and mode, failures, facts, the verdict."""
    ran = [result for result in document["results"] if result["cells"]]
    if ran:
        console.print(_tiers(ran, document["device"]))
    failures = [(r["backend"], cell) for r in ran for cell in r["cells"] if cell["status"] == "FAIL"]
    for backend, cell in failures[:SHOWN_FAILURES]:
        where = f"{cell['clause']} on {backend}, {cell['mode']}, {cell['dtype']}"
        console.print(f"\nFAIL {where}", style="bold red", markup=False)
        console.print(f"  {cell['message']}", markup=False)
        if cell["token"]:
            console.print(f"  arspec conformance repro {cell['token']}", style="dim", markup=False)
    if len(failures) > SHOWN_FAILURES:
        console.print(f"\n... and {len(failures) - SHOWN_FAILURES} failures more; --report has them all.")
    for result in document["results"]:
        _show_result(console, result)
    for stale in document["stale_waivers"]:
        console.print(f"stale: {stale}", style="bold red", markup=False)
    verdict = "conforms" if document["conforms"] else "does NOT conform"
    console.print(f"\nspec {document['spec']}, profile {document['profile']}: {verdict}.", style="bold")


def _tiers(results: Sequence[Mapping[str, Any]], device: str) -> Table:
    title = f"Clauses that hold on {device}, by tier and mode; of how many, where not all do"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("backend", no_wrap=True)
    table.add_column("mode", no_wrap=True)
    tiers = [t for t in TIERS if any(cell["tier"] == t for r in results for cell in r["cells"])]
    for tier in tiers:
        table.add_column(tier, justify="right", no_wrap=True)
    table.add_column("compared", justify="right", no_wrap=True)
    for result in results:
        for mode in dict.fromkeys(cell["mode"] for cell in result["cells"]):
            cells = [cell for cell in result["cells"] if cell["mode"] == mode]
            counts = [_passed([cell for cell in cells if cell["tier"] == tier]) for tier in tiers]
            table.add_row(result["backend"], mode, *counts, f"{sum(cell['observed'] for cell in cells):,}")
    return table


def _passed(cells: Sequence[Mapping[str, Any]]) -> str:
    asked = [cell for cell in cells if cell["status"] != "UNSUPPORTED"]
    passed = sum(cell["status"] in ("PASS", "QUALITY") for cell in asked)
    if not asked:
        return "-"
    return str(passed) if passed == len(asked) else f"[red]{passed}/{len(asked)}[/]"


def _show_result(console: Console, result: Mapping[str, Any]) -> None:
    if result["not_run"]:
        console.print(f"\n{result['backend']}: not run. {result['not_run']}", markup=False)
        return
    packages = ", ".join(f"{package} {number}" for package, number in result["versions"].items())
    counts = _counted(result["counts"])
    console.print(f"\n{result['backend']}: {badge_text(result)}", style="bold", markup=False)
    console.print(f"  {counts}; {packages}; {result['seconds']:.0f} s, {result['cpu_seconds'] or 0:.0f} s of CPU")
    for name, fact in result.get("probes", {}).items():
        console.print(f"  {name}: {fact}", style="dim", markup=False)
    if result["idle_capabilities"]:
        named = ", ".join(result["idle_capabilities"])
        console.print(f"  declared, and never asked for by a check that ran: {named}", style="red", markup=False)
    if result["error"]:
        console.print(f"  {result['error']}", style="red", markup=False)


def badge_text(result: Mapping[str, Any]) -> str:
    """Return such as "148/150 clauses, 2 waived"; never a percentage."""
    counts = result["clauses"]
    asked = counts["total"] - counts["UNSUPPORTED"] - counts["NOTRUN"]
    text = f"{counts['PASS'] + counts['QUALITY']}/{asked} clauses"
    for status in ("WAIVED", "UNSUPPORTED"):
        text += f", {counts[status]} {status.lower()}" if counts[status] else ""
    return text + ("" if result["complete"] else ", incomplete")


def show_answer(console: Console, cell: Mapping[str, Any]) -> None:
    """Print what came of a question that was asked again."""
    console.print(f"{cell['clause']}, {cell['mode']}, {cell['dtype']}: {cell['sentence']}", markup=False)
    for name in ("penalty", "x", "value", "gradient"):
        if name in cell:
            for what, shown in _parts(cell[name]):
                console.print(f"  {name}{what}: {shown}", markup=False)
    console.print(f"{cell['status']} {cell['message']}", style="bold", markup=False)


def _parts(shown: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "got" in shown:
        yield " got", _numbers(shown["got"])
        yield " expected", _numbers(shown["expected"])
    else:
        yield "", _numbers(shown) if "numbers" in shown else str(dict(shown))


def _numbers(shown: Mapping[str, Any]) -> str:
    listed, size = shown["numbers"], 1
    for n in shown["shape"]:
        size *= n
    more = ", ..." if size > len(listed) else ""
    return f"{shown['dtype']} {tuple(shown['shape'])} {', '.join(listed)}{more}"


def show_kills(console: Console, document: Mapping[str, Any]) -> None:
    """Print the kill matrix, and what survived or was a false alarm."""
    console.print("Which clauses, the first of each tier, find which planted fault:", style="bold")
    for result in document["results"]:
        for row in result["rows"]:
            found = ", ".join(row["killers"].values())
            console.print(f"{result['backend']:<16} {row['fault']:<26} {row['verdict']:<12} {found}", markup=False)
    for result in document["results"]:
        for row in result["rows"]:
            if row["verdict"] in ("SURVIVED", "FALSE ALARM"):
                console.print(f"\n{row['verdict']} {row['fault']}: {row['sentence']}", style="bold red", markup=False)
                console.print(f"  {row['message']}", markup=False)
        score = result["score"]
        text = f"{score['killed']}/{score['planted']} faults killed, {score['false_alarms']} false alarms"
        state = result["not_run"] or result["error"] or text
        console.print(f"\n{result['backend']}: {state}", style="bold", markup=False)


def show_clauses(console: Console, clauses: Sequence[Clause]) -> None:
    """Print clauses, one line each: id and sentence."""
    for clause in clauses:
        kind = "" if clause.must else " (a warning)"
        console.print(f"{clause.id:<24} {clause.sentence}{kind}", markup=False)
    console.print(f"\n{len(clauses)} clauses. Tiers:")
    for tier, meaning in TIERS.items():
        console.print(f"  {tier}  {meaning}", markup=False)
