"""A study in a terminal: a progress bar while it runs, tables when it is done."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from arspec._table import aligned
from arspec_studies._study import summary
from arspec_studies._study.store import Row
from arspec_studies._study.study import Study


@contextmanager
def progress(console: Console, title: str, networks: int) -> Iterator[Callable[[float], None]]:
    """Show a bar; gives the function to call with the share of a network that was trained."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("networks"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(title, total=networks)
        trained = 0.0

        def advance(share: float) -> None:
            nonlocal trained
            trained += share
            bars.update(task, completed=round(trained))

        yield advance


def show(console: Console, study: Study, rows: Sequence[Row]) -> None:
    """Print the results, and what each penalty changed."""
    found = summary.groups(study, rows)
    head = ["", "coefficient", f"{study.seed}s", *(metric.title for metric in study.metrics)]
    table = [head, *(_cells(study, group) for group in found)]
    console.print(f"{study.title}\nMean ± deviation over {study.seed}s\n\n{aligned(table)}\n", markup=False)
    for effect in summary.effects(study, found, study.headline):
        console.print(summary.sentence(study, effect), markup=False)
    for best in summary.best(study, found):
        change = summary.signed(study.headline, best.paired.spread.mean)
        console.print(
            f"{best.group.variant.title}: best coefficient {best.group.coefficient:g} by the even {study.seed}s; "
            f"{change} in {study.headline.title} on the odd ones.",
            markup=False,
        )


def _cells(study: Study, group: summary.Group) -> list[str]:
    spreads = [(metric, group.spread(metric.name)) for metric in study.metrics]
    numbers = [f"{metric.shown(spread.mean)} ± {metric.shown(spread.deviation)}" for metric, spread in spreads]
    coefficient = "–" if study.is_plain(group.variant) else f"{group.coefficient:g}"
    name = f"{summary.TITLES[group.framework]}: {group.variant.title}"
    return [name, coefficient, str(len(group.runs)), *numbers]
