"""What runs of the suite and of the benchmarks found, as tables and a plot, made from files in the repository."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from arspec_conformance.clauses import TIERS

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / "conformance" / "reports"
# Where a page in docs/ wants what is made here.
MATRIX, HUNTS, COSTS = "<!-- reports: matrix -->", "<!-- reports: hunts -->", "<!-- table: begin -->"


def filled(markdown: str) -> str:
    """Return a page with tables and plots where its marks ask for them."""
    for mark, name, written in ((MATRIX, "quick", matrix), (HUNTS, "hunt", hunts)):
        if mark in markdown:
            markdown = markdown.replace(mark, written(json.loads((REPORTS / f"{name}.json").read_text("utf-8"))))
    if COSTS in markdown:
        measured = rows_of(markdown.partition(COSTS)[2].partition("<!-- table: end -->")[0])
        if any(row.get("ratio") for row in measured):
            markdown = markdown.replace(COSTS, f"{costs(measured)}\n\n{COSTS}")
    return markdown


def matrix(kept: Mapping[str, Any]) -> str:
    """Return adapter × tier: the clauses that hold, of those that were asked."""
    asked = [row for row in kept["rows"] if "not_run" not in row]
    head = ["adapter", *(f'<abbr title="{escape(TIERS[tier])}">{tier}</abbr>' for tier in TIERS)]
    lines = [[_name(row), *_tiers(row), f"{row['compared']:,}", _share(row)] for row in asked]
    text = _table([*head, "numbers compared", "largest error"], lines) + "\n\n" + _legend(kept)
    missing = [f"{escape(row['backend'])} on {escape(row['device'])}" for row in kept["rows"] if "not_run" in row]
    return text + (f" Not run, for want of such a device: {', '.join(missing)}." if missing else "")


def _name(row: Mapping[str, Any]) -> str:
    versions = [f"{package} {number}" for package, number in row["versions"].items()]
    small = "".join(f"<br><small>{escape(text)}</small>" for text in [*versions, f"on {row['device']}"])
    return f"<b>{escape(row['backend'])}</b>{small}"


def _tiers(row: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield text and class of the cell of each tier."""
    for tier in TIERS:
        counts = row["tiers"].get(tier, {})
        asked = sum(count for status, count in counts.items() if status not in ("UNSUPPORTED", "NOTRUN"))
        held = sum(counts.get(status, 0) for status in ("PASS", "QUALITY"))
        kind = "none" if not asked else "held" if held == asked else "failed"
        yield (f"{held}/{asked}" if asked else "–"), kind


def _share(row: Mapping[str, Any]) -> str:
    share = row["largest_share_of_a_bound"]
    return f"{share:.0%}" if share else "none"


def _legend(kept: Mapping[str, Any]) -> str:
    tiers = "; ".join(f"**{tier}** {meaning.partition(':')[0]}" for tier, meaning in TIERS.items())
    return (
        f"Clauses that hold, of those asked, in every mode and dtype of profile {kept['profile']}, specification "
        f"{kept['spec']}. Tiers: {tiers}. A dash: the adapter has no such thing, or the profile does not ask it. "
        "The largest error is a share of what the bound derived for it allows; none: each is the exact number, rounded."
    )


def hunts(kept: Mapping[str, Any]) -> str:
    """Return what random numbers found, by adapter: seeds, numbers compared, and clauses that failed."""
    by_adapter: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in kept["rows"]:
        if "not_run" not in row:
            by_adapter.setdefault((row["backend"], row["device"]), []).append(row)
    lines = []
    for found in by_adapter.values():
        failed = sum(row["tiers"].get(tier, {}).get("FAIL", 0) for row in found for tier in TIERS)
        seeds = ", ".join(str(row["seed"]) for row in found)
        compared = f"{sum(row['compared'] for row in found):,}"
        lines.append([_name(found[0]), seeds, compared, (str(failed), "failed" if failed else "held")])
    return _table(["adapter", "seeds", "numbers compared", "clauses that failed"], lines)


Cell = str | tuple[str, str]


def _table(head: Sequence[str], lines: Iterable[Sequence[Cell]]) -> str:
    """Return an HTML table whose cells are text, or text and a class."""
    rows = "\n".join(f"<tr>{''.join(map(_cell, line))}</tr>" for line in lines)
    titles = "".join(f"<th>{title}</th>" for title in head)
    body = f"<thead><tr>{titles}</tr></thead>\n<tbody>\n{rows}\n</tbody>"
    return f'<div class="matrix"><table class="matrix">\n{body}</table></div>'


def _cell(cell: Cell) -> str:
    return f"<td>{cell}</td>" if isinstance(cell, str) else f'<td class="{cell[1]}">{cell[0]}</td>'


def rows_of(table: str) -> list[dict[str, str]]:
    """Return the rows of a Markdown table by column, without empty cells."""
    lines = [
        [cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines() if "|" in line
    ]
    if len(lines) < 3:
        return []
    head, _, *body = lines
    return [{name: cell for name, cell in zip(head, line, strict=True) if cell} for line in body]


OTHERS = "others"
PENALTIES = {"L1": "#3478d6", "L2": "#e0802b", "KL": "#219a8b", OTHERS: "#8f63c7"}


def costs(rows: Sequence[Mapping[str, str]]) -> str:
    """Draw what a penalty costs as an SVG: the ratio to the idiom by hand, by framework and mode, on a log scale."""
    import matplotlib
    from matplotlib.figure import Figure

    from arspec_studies._study.svg import INK, STYLE, svg

    measured = [row for row in rows if "ratio" in row]
    groups = list(dict.fromkeys(map(_group, measured)))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 0.9 + 0.3 * len(groups)), layout="constrained")
        axes = figure.subplots()
        for row in measured:
            for column, style in (("ratio", "full"), ("ratio bounded", "none")):
                if column in row:
                    point = [float(row[column])], [groups.index(_group(row))]
                    axes.plot(*point, "o", color=_colour(row), fillstyle=style, markersize=5)
        there = set(map(_colour, measured))
        for name, colour in ((name, colour) for name, colour in PENALTIES.items() if colour in there):
            axes.plot([], [], "o", color=colour, markersize=5, label=name)
        axes.plot([], [], "o", color=INK, fillstyle="none", markersize=5, label='numerics="bounded"')
        axes.axvline(1, color=INK, linewidth=0.8)
        axes.set(xscale="log", yticks=range(len(groups)), yticklabels=groups, ylim=(len(groups) - 0.5, -0.5))
        axes.set_xlabel("time added by a penalty, as a multiple of the idiom by hand (left is faster)")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(color=INK, alpha=0.12, linewidth=0.6)
        figure.legend(loc="outside upper left", ncols=5)
        drawn = svg(figure, "Cost of penalties by framework")
    return f'<figure class="plot">{drawn}</figure>'


def _colour(row: Mapping[str, str]) -> str:
    """The colour of "L1", also for "activity L1"."""
    return PENALTIES.get(row["penalty"].split()[-1], PENALTIES[OTHERS])


def _group(row: Mapping[str, str]) -> str:
    parts = [row["framework"], row["mode"]]
    parts += [row["allocator"]] if row.get("allocator") not in (None, "default") else []
    return " ".join(parts) + (", " + row["workload"] if row["workload"].startswith("step") else "")
