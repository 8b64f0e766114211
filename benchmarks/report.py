"""The rows of a benchmark as a table for people, as JSON, and as a plot."""

import json
import sys
from pathlib import Path
from typing import Any

from harness import Row


def print_table(rows: list[Row]) -> None:
    """Print one line per workload; ratios below 1 are faster than the idiom by hand."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="cost of a penalty: arspec / by hand (for Keras: / its own regularizer)")
    for name in ("framework", "mode", "allocator", "workload", "penalty"):
        table.add_column(name, no_wrap=True)
    for name in (
        "entries", "ratio", "bounded", "noise", "× triad", "by hand", "step", "bounded", "by hand", "memory", "by hand",
    ):  # fmt: skip
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _cells(row: Row) -> list[str]:
    step = row.of_step if row.workload.startswith("step") else {}
    return [
        row.framework, row.mode, row.regime, row.workload, row.penalty, f"{row.size:.0e}",
        _number(row.ratio, "arspec"), _number(row.ratio, "bounded"), _number(row.spread, "arspec"),
        _number(row.limit, "arspec", 1), _number(row.limit, "naive", 1),
        _number(step, "arspec", 3), _number(step, "bounded", 3), _number(step, "naive", 3),
        _number(row.memory, "arspec"), _number(row.memory, "naive"),
    ]  # fmt: skip


def _number(held: dict[str, float], name: str, digits: int = 2) -> str:
    return f"{held[name]:.{digits}f}" if name in held else ""


def save(rows: list[Row], description: dict[str, Any], folder: Path) -> None:
    """Write bench.json and bench.svg into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {**description, "rows": [row.as_json() for row in rows]}
    (folder / "bench.json").write_text(json.dumps(document, indent=1) + "\n")
    plot(rows, folder / "bench.svg")


def load(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """Read what `save` wrote."""
    document = json.loads(path.read_text())
    return document, [Row(**row) for row in document.pop("rows")]


COLUMNS = (
    "framework", "mode", "allocator", "workload", "penalty", "entries", "ratio", "ratio bounded", "noise", "× triad",
    "by hand × triad", "step", "step bounded", "step by hand", "memory", "memory by hand",
)  # fmt: skip
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def document(rows: list[Row], description: dict[str, Any], path: Path) -> None:
    """Replace what stands between the markers of a Markdown file by the table."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{path} has no lines {BEGIN} and {END} to write the table between.")
    versions = ", ".join(f"{name} {number}" for name, number in description["versions"].items())
    head = f"{description['device']}, {description['machine']}, Python {description['python']}; {versions}."
    lines = [f"| {' | '.join(cells)} |" for cells in (COLUMNS, ["---"] * len(COLUMNS), *map(_cells, rows))]
    path.write_text("\n".join([before + BEGIN, head, "", *lines, END + after]))


def plot(rows: list[Row], path: Path) -> None:
    """Draw the ratio over the size, one panel per framework and mode, one line per penalty."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    isolated = [row for row in rows if row.workload == "value+gradient"]
    panels = list(dict.fromkeys((row.framework, row.mode, row.regime) for row in isolated))
    if not panels:
        return
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure, grid = plt.subplots(lines, columns, figsize=(4.2 * columns, 3.2 * lines), squeeze=False, sharey=True)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _panel(axes, panel, [row for row in isolated if (row.framework, row.mode, row.regime) == panel])
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=4, loc="lower center", frameon=False)
    figure.tight_layout(rect=(0, 0.5 / (3.2 * lines), 1, 1))
    figure.savefig(path)
    plt.close(figure)


def _panel(axes: Any, panel: tuple[str, str, str], rows: list[Row]) -> None:
    framework, mode, regime = panel
    for penalty in dict.fromkeys(row.penalty for row in rows):
        line = sorted((row.size, row.ratio["arspec"]) for row in rows if row.penalty == penalty and row.ratio)
        if line:
            axes.plot(*zip(*line, strict=True), marker="o", markersize=3, label=penalty)
    axes.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", yscale="log", title=f"{framework} {mode}" + (", caching" if regime != "default" else ""))
    axes.set_xlabel("entries")
    axes.set_ylabel("time / by hand")
