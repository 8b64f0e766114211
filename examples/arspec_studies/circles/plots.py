"""The figures of the report, as SVG text that takes its ink from the page around it."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.colors
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from arspec_studies._study.svg import COLOURS, INK, OTHER_COLOUR, STYLE, svg
from arspec_studies.circles import summary
from arspec_studies.circles.data import CONFIGURATIONS, GRID_EXTENT, GRID_SIDE, Circles, Configuration
from arspec_studies.circles.run import Outcome

CLASSES = ("#3478d6", "#e0802b")


def scatter(data: Circles) -> str:
    """Draw the points: filled to train, open to test."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 3.9), layout="constrained")
        axes = figure.subplots()
        _points(axes, data.x_test, data.y_test, filled=False, size=18)
        _points(axes, data.x_train, data.y_train, filled=True, size=30)
        axes.set(aspect="equal", xlabel="$x_1$", ylabel="$x_2$", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        return svg(figure, "The 100 points; filled: the 30 to train, open: the 70 to test")


def headline(lines: Sequence[summary.Line]) -> str:
    """Draw test accuracy per configuration: one mark per framework, and what was published."""
    names = list(dict.fromkeys(line.framework for line in lines))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.0), layout="constrained")
        axes = figure.subplots()
        for line in lines:
            row, offset = _row(line.configuration), 0.2 * (names.index(line.framework) - (len(names) - 1) / 2)
            colour = COLOURS.get(line.framework, OTHER_COLOUR)
            axes.errorbar(
                line.test.mean, row + offset, xerr=line.test.deviation, fmt="o", markersize=5, capsize=2,
                color=colour, elinewidth=1.2, label=summary.TITLES[line.framework] if row == 0 else None,
            )  # fmt: skip
        published = [(c.published[1], _row(c.name)) for c in CONFIGURATIONS if c.published]
        axes.plot(*zip(*published, strict=True), "D", markersize=7, fillstyle="none", color=INK, label="published")
        axes.set(yticks=range(len(CONFIGURATIONS)), yticklabels=[c.title for c in CONFIGURATIONS])
        axes.set(ylim=(len(CONFIGURATIONS) - 0.5, -0.5))
        axes.set(xlabel="test accuracy, mean ± one standard deviation over seeds")
        axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.6)
        figure.legend(loc="outside upper left", ncols=len(names) + 1)
        return svg(figure, "Test accuracy of every configuration in every framework")


def curves(outcomes: Mapping[str, Outcome]) -> str:
    """Draw accuracy over epochs: a row per framework, a column per configuration."""
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(outcomes, height=1.65)
        for axes, outcome, configuration, result in panels:
            colour = COLOURS.get(outcome.framework, OTHER_COLOUR)
            _band(axes, result["epochs"], result["curves"]["train"], INK, opacity=0.45)
            _band(axes, result["epochs"], result["curves"]["test"], colour)
            if configuration.published:
                axes.axhline(configuration.published[1], color=INK, linewidth=0.7, linestyle=":", alpha=0.8)
            axes.set_ylim(0.35, 1.03)
        return svg(figure, "Train and test accuracy over epochs, mean and deviation over seeds")


def boundaries(outcomes: Mapping[str, Outcome], data: Circles) -> str:
    """Draw the probability that the networks of all seeds give on average, and where it is ½."""
    extent = (-GRID_EXTENT, GRID_EXTENT, -GRID_EXTENT, GRID_EXTENT)
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(outcomes, height=1.9)
        for axes, _, _, result in panels:
            probability = np.asarray(result["boundary"]).reshape(GRID_SIDE, GRID_SIDE)
            axes.imshow(_tint(probability), extent=extent, origin="lower", interpolation="none")
            axes.contour(probability, levels=[0.5], extent=extent, colors=[INK], linewidths=0.9)
            _points(axes, data.x_train, data.y_train, filled=True, size=8)
            axes.set(aspect="equal", xticks=(), yticks=())
        return svg(figure, "Decision boundaries at the last epoch")


Panel = tuple[Axes, Outcome, Configuration, dict[str, Any]]


def _panels(outcomes: Mapping[str, Outcome], *, height: float) -> tuple[Figure, list[Panel]]:
    """Lay out framework × configuration; a panel whose run is missing stays empty."""
    shown = [outcome for outcome in outcomes.values() if outcome.results]
    figure = Figure(figsize=(9.6, 0.3 + height * len(shown)), layout="constrained")
    grid = figure.subplots(len(shown), len(CONFIGURATIONS), sharex=True, sharey=True, squeeze=False)
    panels = []
    for row, outcome in zip(grid, shown, strict=True):
        row[0].set_ylabel(summary.TITLES[outcome.framework])
        for axes, configuration in zip(row, CONFIGURATIONS, strict=True):
            if axes in grid[0]:
                axes.set_title(configuration.title.replace(", ", ",\n"))
            if configuration.name in outcome.results:
                panels.append((axes, outcome, configuration, outcome.results[configuration.name]))
    return figure, panels


def _band(
    axes: Axes, epochs: Sequence[int], values: Sequence[Sequence[float]], colour: str, *, opacity: float = 1.0
) -> None:
    array = np.asarray(values)
    mean, deviation = array.mean(axis=1), array.std(axis=1, ddof=1 if array.shape[1] > 1 else 0)
    axes.fill_between(epochs, mean - deviation, mean + deviation, color=colour, alpha=0.2 * opacity, linewidth=0)
    axes.plot(epochs, mean, color=colour, linewidth=1.3, alpha=opacity)


def _points(axes: Axes, x: np.ndarray, y: np.ndarray, *, filled: bool, size: float) -> None:
    for label, colour in enumerate(CLASSES):
        chosen = x[y == label]
        fill = {"color": colour} if filled else {"facecolors": "none", "edgecolors": colour, "linewidths": 1.0}
        axes.scatter(chosen[:, 0], chosen[:, 1], s=size, **fill)  # pyright: ignore[reportArgumentType]


def _tint(probability: np.ndarray) -> np.ndarray:
    """Colour by the likelier class, more opaque the surer the networks are."""
    rgba = np.zeros((*probability.shape, 4))
    for chosen, colour in ((probability <= 0.5, CLASSES[0]), (probability > 0.5, CLASSES[1])):
        rgba[chosen, :3] = matplotlib.colors.to_rgb(colour)
    rgba[..., 3] = 0.4 * np.abs(2 * probability - 1)
    return rgba


def _row(configuration: str) -> int:
    return [c.name for c in CONFIGURATIONS].index(configuration)
