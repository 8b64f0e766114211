"""The study in a terminal: progress bars while it runs, tables when it is done."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from arspec_studies.circles import summary
from arspec_studies.circles.agreement import Row
from arspec_studies.circles.data import CONFIGURATIONS
from arspec_studies.circles.run import Framework, OnEvent, Outcome

_TITLES = {configuration.name: configuration.title for configuration in CONFIGURATIONS}


@contextmanager
def progress(console: Console, frameworks: Sequence[Framework], epochs: int) -> Iterator[OnEvent]:
    """Show one bar per framework; gives the function to call with each event."""
    columns = (
        TextColumn("{task.fields[title]:<8}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[doing]}", style="dim"),
    )
    with Progress(*columns, console=console) as bars:
        total = epochs * len(CONFIGURATIONS)
        tasks = {
            f.name: bars.add_task("", total=total, title=f.title, doing="waiting", start=False) for f in frameworks
        }

        def on_event(framework: str, event: Mapping[str, Any]) -> None:
            task = tasks[framework]
            if event["event"] == "start":
                bars.start_task(task)
                bars.update(task, doing="compiling")
            elif event["event"] == "progress":
                bars.update(task, completed=event["done"], doing=_TITLES[event["configuration"]])
            elif event["event"] == "done":
                bars.update(task, completed=total, doing="done")

        yield on_event


def show(console: Console, outcomes: Mapping[str, Outcome], rows: Sequence[Row], page: Path) -> None:
    """Print the results, the proof of agreement, and what to do next."""
    console.print(_results(outcomes))
    console.print(summary.PUBLISHED)
    console.print(summary.LEGEND)
    for name, outcome in outcomes.items():
        if outcome.results:
            versions = ", ".join(f"{package} {version}" for package, version in outcome.versions.items())
            note = f"; {outcome.note}" if outcome.note else ""
            console.print(f"{summary.TITLES[name]}: {versions}{note}; {outcome.seconds:.0f} s")
    if rows:
        console.print(_agreement(rows))
        console.print(summary.AGREEMENT_NOTE)
        console.print(summary.verdict(rows))
    console.print(f"\nThe page: {page.resolve()}")
    console.print("Next: read the file behind a column, for example")
    console.print("  python -m arspec_studies.circles.train_torch --help")
    console.print("and regularize your own model with `attach` and a spec of your own (arspec spec validate FILE).")


def show_failures(console: Console, outcomes: Mapping[str, Outcome]) -> None:
    """Say which frameworks did not finish, and why."""
    for name, outcome in outcomes.items():
        if outcome.error:
            console.print(f"\n{summary.TITLES[name]} {outcome.error}", style="bold red", markup=False)
        if outcome.details:
            console.print(outcome.details, markup=False)


def _results(outcomes: Mapping[str, Outcome]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), title="Two circles: accuracy at the last epoch", title_justify="left")
    table.add_column("", no_wrap=True)
    for heading in ("seeds", "train", "test", "activation", "zeros"):
        table.add_column(heading, justify="right", no_wrap=True)
    for configuration in CONFIGURATIONS:
        table.add_row(configuration.title, style="bold")
        for line in summary.lines(outcomes):
            if line.configuration == configuration.name:
                name = f"  {summary.TITLES[line.framework]}"
                hidden = (f"{line.mean_activation.mean:.3f}", f"{line.exact_zeros.mean:.1%}")
                table.add_row(name, str(line.seeds), str(line.train), str(line.test), *hidden)
        if configuration.published:
            train, test = configuration.published
            table.add_row("  published", "1", f"{train:.3f}        ", f"{test:.3f}        ", style="dim")
    return table


def _agreement(rows: Sequence[Row]) -> Table:
    names = list(dict.fromkeys(row.framework for row in rows))
    title = "\nThe penalty and its gradients, compared with NumPy"
    table = Table(box=None, padding=(0, 1, 0, 0), title=title, title_justify="left")
    for heading in ("", *(summary.TITLES[name] for name in names)):
        table.add_column(heading)
    previous = None
    for comparison in summary.comparisons(rows, names):
        if previous != comparison.title:
            table.add_row(comparison.title, style="bold")
        table.add_row(f"  {comparison.quantity}", *comparison.cells, style="" if all(comparison.agrees) else "bold red")
        previous = comparison.title
    return table
