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
PUBLISHED = "Published: one seed on Keras 2.3, which summed activity penalties over the batch; Keras >= 3.14 averages them."


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
        tasks = {f.name: bars.add_task(f.name, total=total, title=f.title, doing="waiting", start=False) for f in frameworks}

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
    console.print(PUBLISHED)
    console.print("Activation and zeros: hidden output on the 30 training points. ± is one standard deviation over seeds.")
    for name, outcome in outcomes.items():
        if outcome.results:
            versions = ", ".join(f"{package} {version}" for package, version in outcome.versions.items())
            note = f"; {outcome.note}" if outcome.note else ""
            console.print(f"{summary.TITLES[name]}: {versions}{note}; {outcome.seconds:.0f} s")
    if rows:
        console.print(_agreement(rows))
        console.print(verdict(rows))
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


def verdict(rows: Sequence[Row]) -> str:
    """Say in one sentence whether the frameworks agree."""
    wrong = [row for row in rows if not row.agrees]
    if wrong:
        row = wrong[0]
        return f"DISAGREEMENT in {len(wrong)} of {len(rows)} comparisons, first: {row.framework}, {row.configuration}, {row.quantity}."
    numbers = sum(row.elements for row in rows if row.exact)
    worst = max(row.of_bound for row in rows)
    return (
        f"Agreement: on a given tensor all {numbers} numbers have the bits of the NumPy reference; "
        f"through the model no difference exceeds {worst:.0%} of what float32 rounding allows."
    )


def _results(outcomes: Mapping[str, Outcome]) -> Table:
    table = Table(title="Two circles: accuracy at the last epoch", title_justify="left")
    for heading in ("", "framework"):
        table.add_column(heading)
    for heading in ("seeds", "train", "test", "published", "mean activation", "exact zeros"):
        table.add_column(heading, justify="right")
    previous = None
    for line in summary.lines(outcomes):
        if previous not in (None, line.configuration):
            table.add_section()
        name = line.title if line.configuration != previous else ""
        published = "{:.3f} / {:.3f}".format(*line.published) if line.published else "-"
        spreads = (str(line.train), str(line.test), published, f"{line.mean_activation.mean:.3f}", f"{line.exact_zeros.mean:.1%}")
        table.add_row(name, summary.TITLES[line.framework], str(line.seeds), *spreads)
        previous = line.configuration
    return table


def _agreement(rows: Sequence[Row]) -> Table:
    names = list(dict.fromkeys(row.framework for row in rows))
    table = Table(title="\nThe penalty and its gradients on the same weights", title_justify="left")
    for heading in ("", "quantity", "NumPy", *(summary.TITLES[name] for name in names)):
        table.add_column(heading)
    previous = None
    for comparison in summary.comparisons(rows, names):
        if previous not in (None, comparison.title):
            table.add_section()
        title = comparison.title if comparison.title != previous else ""
        table.add_row(title, comparison.quantity, comparison.reference, *comparison.cells)
        previous = comparison.title
    return table
