"""The figures of the sparse autoencoders: error over sparsity, and pictures of features."""

from collections.abc import Sequence

import matplotlib
import matplotlib.colors
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure

from arspec_studies._study.store import Row
from arspec_studies._study.svg import INK, PALETTE, STYLE, svg

_PENALTIES = {"none": "no penalty", "l1": "L1", "kl": "KL", "l0": "L0"}
_WIDTHS = {"over": ("over-complete", "o-"), "under": ("under-complete", "s--")}


def figures(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return error over the number of active latents, and the features of the first seed."""
    caption = (
        "Error over active latents, one mark per coefficient, the mean over seeds: left and low is good. A line joins "
        "the coefficients of one penalty."
    )
    found = [(_pareto(rows), caption)]
    pictures = [row for row in rows if row.shown and row.run.variant.startswith("over_")]
    if pictures:
        found.append((_features(pictures), _FEATURES))
    return found


_FEATURES = (
    "Features of the over-complete autoencoders of the first seed: the 16 latents that are most often active; blue "
    "takes ink away, orange adds it. Each penalty with the coefficient whose number of active latents is nearest to 10."
)


def _pareto(rows: Sequence[Row]) -> str:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.9), layout="constrained")
        axes = figure.subplots()
        for width, (words, style) in _WIDTHS.items():
            for colour, (penalty, title) in zip((INK, *PALETTE), _PENALTIES.items(), strict=False):
                points = _points(rows, f"{width}_{penalty}")
                if points:
                    active, unexplained = np.array(points).T
                    label = f"{words}, {title}"
                    axes.plot(active, unexplained, style, color=colour, markersize=4.5, linewidth=1.2, label=label)
        axes.set(xlabel="active latents per image", ylabel="error (% of variance)", xscale="log", yscale="log")
        axes.set(xticks=(2, 5, 10, 20, 50, 100), yticks=(0.1, 0.3, 1, 3, 10, 30))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        axes.grid(color=INK, alpha=0.1, linewidth=0.6, which="both")
        figure.legend(loc="outside upper left", ncols=4)
        return svg(figure, "Error over the number of active latents")


def _points(rows: Sequence[Row], variant: str) -> list[tuple[float, float]]:
    """Return the mean (active latents, error in %) of every coefficient, from small to large."""
    by_coefficient: dict[float, list[dict[str, float]]] = {}
    for row in rows:
        if row.run.variant == variant:
            by_coefficient.setdefault(row.run.coefficient, []).append(row.metrics)
    return [
        (float(np.mean([m["active"] for m in runs])), 100 * float(np.mean([m["unexplained"] for m in runs])))
        for _, runs in sorted(by_coefficient.items())
    ]


def _features(rows: Sequence[Row]) -> str:
    chosen = {
        title: min(candidates, key=lambda row: abs(row.metrics["active"] - 10))
        for penalty, title in _PENALTIES.items()
        if (candidates := [row for row in rows if row.run.variant == f"over_{penalty}"])
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 0.78 * len(chosen)), layout="constrained")
        grid = figure.subplots(len(chosen), 1, squeeze=False)[:, 0]
        for axes, (title, row) in zip(grid, chosen.items(), strict=True):
            images = np.array(row.shown).reshape(-1, 8, 8)
            strip = np.full((8, 9 * len(images) - 1), np.nan)
            for index, image in enumerate(images):
                strip[:, 9 * index : 9 * index + 8] = image
            limit = float(np.abs(images).max())
            axes.imshow(strip, cmap=_colours(), vmin=-limit, vmax=limit, interpolation="none")
            axes.set(xticks=(), yticks=())
            axes.spines[:].set_visible(False)
            label = f"{title}\n{row.metrics['active']:.1f} active"
            axes.set_ylabel(label, rotation=0, ha="right", va="center")
        return svg(figure, "Features of the autoencoders")


def _colours() -> matplotlib.colors.Colormap:
    ends = [PALETTE[0], "#f4f4f2", PALETTE[1]]
    return matplotlib.colors.LinearSegmentedColormap.from_list("features", ends)
