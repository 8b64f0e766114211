"""The identity matrix in a terminal: progress while it runs, tables when it is done."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from arspec_conformance.cases import DTYPES
from arspec_conformance.family import BOUNDED
from arspec_conformance.identity import SAMPLE
from arspec_conformance.matrix import Column, OnEvent, holds

SHORT = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "float64": "f64"}
LEGEND = """
0: every bit as in NumPy (subnormals count as 0, -0 as +0, any NaN as NaN). A number: the largest
distance in units in the last place. ≤7%: float64 through log, exp, tanh, a general power or a
product of matrices, held to a bound derived from its own formula, of which 7% was used.
-: not measured in this profile."""
NOTES = {
    "quick": """Profile quick: what compiles gets one shape, and beyond float32 only {sample}; what
compiles slowly (torch.compile, Keras' trainers) gets those in float32.""",
    "standard": """Profile standard: what compiles slowly (torch.compile, Keras' trainers) gets one shape, and
beyond float32 only {sample}.""",
    "full": "Profile full: every penalty, dtype and mode.",
}


@contextmanager
def progress(console: Console, columns: Sequence[Column]) -> Iterator[OnEvent]:
    """Show one bar per backend; gives the function to call with each event."""
    looks = (TextColumn("{task.description:<16}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*looks, TextColumn("{task.fields[doing]}", style="dim"), console=console) as bars:
        tasks = {c.name: bars.add_task(c.name, total=None, start=False, doing="waiting") for c in columns}

        def on_event(name: str, event: Mapping[str, Any]) -> None:
            task = tasks[name]
            if event["event"] == "start":
                bars.start_task(task)
                bars.update(task, total=event["cells"], doing="")
            elif event["event"] == "cell":
                cell = event["cell"]
                bars.update(task, advance=1, doing=f"{cell['penalty']} {cell['dtype']} {cell['mode']}")
            elif event["event"] == "refused":
                bars.update(task, doing="not run")
            elif event["event"] == "end":
                bars.stop_task(task)
                bars.update(task, doing="done")

        yield on_event


def show(console: Console, columns: Sequence[Column], *, device: str, profile: str, every_cell: bool = False) -> None:
    """Print the matrix, the modes, what failed, and the verdict."""
    ran = [column for column in columns if column.cells]
    console.print(_matrix(ran, device))
    console.print(_modes(ran))
    if every_cell:
        console.print(_cells([(c.name, cell) for c in ran for cell in c.cells], "\nEvery cell"))
    console.print(LEGEND)
    console.print(NOTES[profile].format(sample=", ".join(SAMPLE)))
    _show_runs(console, columns)
    compared = sum(cell[part]["compared"] for c in ran for cell in c.cells for part in ("value", "gradient"))
    cells = sum(len(c.cells) for c in ran)
    verdict = "every claim holds" if holds(columns) else "NOT every claim holds"
    console.print(f"\n{cells:,} cells, {compared:,} elements compared: {verdict}.", style="bold")


def _matrix(columns: Sequence[Column], device: str) -> Table:
    title = f"Identity with the definition on {device}: penalty × dtype, worst over modes, of value and gradient"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("penalty", no_wrap=True, min_width=23)
    dtypes = [dtype for dtype in DTYPES if any(cell["dtype"] == dtype for c in columns for cell in c.cells)]
    for column in columns:
        table.add_column(f"{column.name}\n{' '.join(SHORT[dtype] for dtype in dtypes)}", no_wrap=True)
    for penalty in dict.fromkeys(cell["penalty"] for c in columns for cell in c.cells):
        row = []
        for column in columns:
            found = [[c for c in column.cells if c["penalty"] == penalty and c["dtype"] == t] for t in dtypes]
            row.append(" ".join(_worst(f).ljust(len(SHORT[t])) for f, t in zip(found, dtypes, strict=True)))
        table.add_row(penalty, *row)
    return table


def _modes(columns: Sequence[Column]) -> Table:
    table = Table(title="\nBy mode", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in ("backend", "mode", "dtype"):
        table.add_column(heading, no_wrap=True)
    for heading in ("penalties", "elements", "differ", "value", "gradient"):
        table.add_column(heading, justify="right", no_wrap=True)
    for column in columns:
        for mode, dtype in dict.fromkeys((cell["mode"], cell["dtype"]) for cell in column.cells):
            cells = [c for c in column.cells if (c["mode"], c["dtype"]) == (mode, dtype)]
            parts = [cell[part] for cell in cells for part in ("value", "gradient")]
            sums = [f"{sum(part[key] for part in parts):,}" for key in ("compared", "different")]
            worst = [_worst(cells, (part,)) for part in ("value", "gradient")]
            table.add_row(column.name, mode, SHORT[dtype], str(len(cells)), *sums, *worst)
    return table


def _worst(cells: Sequence[Mapping[str, Any]], names: Sequence[str] = ("value", "gradient")) -> str:
    """Return "0", the worst distance in ulp, the share of a bound that was used, "error", or "-"."""
    if not cells:
        return "-"
    parts = [cell[name] for cell in cells for name in names]
    broken = [part for part in parts if part["claim"] != BOUNDED and part["different"]]
    if any(cell["errors"] for cell in cells):
        return "[red]error[/]"
    if broken:
        return f"[red]{_ulps(max(part['worst_ulp'] for part in broken))}[/]"
    bounded = [part for part in parts if part["claim"] == BOUNDED and part["different"]]
    if not bounded:
        return "0"
    share = max(part["worst_of_bound"] for part in bounded)
    return f"≤{share:.0%}" if share <= 1 else f"[red]≤{share:.0%}[/]"


def _ulps(distance: int) -> str:
    return str(distance) if distance < 10_000 else f"{distance:.0e}"


def _show_runs(console: Console, columns: Sequence[Column]) -> None:
    for column in columns:
        if column.cpu_seconds is not None:
            versions = ", ".join(f"{package} {version}" for package, version in column.versions.items())
            console.print(f"{column.name}: {versions}; {column.seconds:.0f} s, {column.cpu_seconds:.0f} s of CPU")
        if column.refused:
            console.print(f"\n{column.name}: not run. {column.refused}", markup=False)
        if column.error:
            console.print(f"\n{column.name}: {column.error}", style="red", markup=False)
    failed = [(c.name, cell) for c in columns for cell in c.cells if not cell["holds"]]
    if failed:
        console.print(_cells(failed, "\nCells that do not hold their claim"))


def _cells(listed: Sequence[tuple[str, Mapping[str, Any]]], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in ("backend", "mode", "dtype", "penalty", "part", "claim", "elements", "different", "ulp", "worst"):
        table.add_column(heading)
    for name, cell in listed:
        for part in ("value", "gradient"):
            held = cell[part]
            worst = held["worst"]
            where = f"{worst['case']} {worst['index']}: {worst['got']}, not {worst['expected']}" if worst else ""
            where = where or (cell["errors"][0] if cell["errors"] else "")
            numbers = (f"{held['compared']:,}", f"{held['different']:,}", _ulps(held["worst_ulp"]))
            table.add_row(name, cell["mode"], cell["dtype"], cell["penalty"], part, held["claim"], *numbers, where)
    return table
