"""The figures that every study has: paired differences, and metrics over the coefficient."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from arspec_studies._study.study import Metric, Study
from arspec_studies._study.summary import TITLES, Effect, Group
from arspec_studies._study.svg import COLOURS, INK, PALETTE, STYLE, svg

WIDTH = 9.6
MOST_TICKS = 8


def differences(effects: Sequence[Effect]) -> str:
    """Draw every paired difference as a dot, their mean with its interval, and the published difference."""
    metric = effects[0].metric
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.42 * len(effects)), layout="constrained")
        axes = figure.subplots()
        for row, effect in enumerate(effects):
            _difference(axes, row, effect)
        axes.axvline(0, color=INK, linewidth=0.7, alpha=0.6)
        published = [(metric.scale * e.published, row) for row, e in enumerate(effects) if e.published is not None]
        if published:
            axes.plot(*zip(*published, strict=True), "D", markersize=8, fillstyle="none", color=INK)
        several = len({effect.group.framework for effect in effects}) > 1
        labels = [_label(effect.group, several=several) for effect in effects]
        axes.set(yticks=range(len(effects)), yticklabels=labels, ylim=(len(effects) - 0.45, -0.55))
        axes.set(xlabel=f"change of {metric.title}, compared with no penalty on the same seed")
        axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.6)
        return svg(figure, f"Paired differences of {metric.title}")


def _difference(axes: Axes, row: int, effect: Effect) -> None:
    values = effect.metric.scale * np.array(effect.paired.differences)
    colour = COLOURS[effect.group.framework]
    jitter = 0.28 * (np.modf(np.arange(len(values)) * 0.618)[0] - 0.5) * 2
    axes.plot(values, row + jitter, "o", markersize=3.8, color=colour, alpha=0.6, markeredgewidth=0)
    mean = effect.metric.scale * effect.paired.spread.mean
    axes.plot(mean, row, "o", markersize=6, color=colour, markeredgecolor=INK, markeredgewidth=0.8)
    if effect.paired.interval is not None:
        low, high = (effect.metric.scale * end for end in effect.paired.interval)
        axes.plot([low, high], [row, row], color=INK, linewidth=1.6)


def _label(group: Group, *, several: bool) -> str:
    return f"{group.variant.title}, {TITLES[group.framework]}" if several else group.variant.title


def over_coefficient(study: Study, found: Sequence[Group], metrics: Sequence[Metric]) -> str:
    """Draw metrics over the coefficient, a column per framework: mean, deviation, and no penalty as a dashed line."""
    names = list(dict.fromkeys(group.framework for group in found))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.5 + 2.2 * len(metrics)), layout="constrained")
        grid = figure.subplots(len(metrics), len(names), sharex=True, sharey="row", squeeze=False)
        for row, metric in zip(grid, metrics, strict=True):
            row[0].set_ylabel(metric.title)
            for axes, framework in zip(row, names, strict=True):
                _over_coefficient(axes, study, [g for g in found if g.framework == framework], metric)
        for axes, name in zip(grid[-1], names, strict=True):
            axes.set(xlabel="coefficient" if len(names) == 1 else f"coefficient, {TITLES[name]}")
        figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
        return svg(figure, "Metrics over the coefficient")


def _over_coefficient(axes: Axes, study: Study, found: Sequence[Group], metric: Metric) -> None:
    for index, variant in enumerate(study.variants):
        of_variant = [g for g in found if g.variant == variant and (g.coefficient or study.is_plain(variant))]
        line = sorted(of_variant, key=lambda group: group.coefficient)
        if not line:
            continue
        spreads = [group.spread(metric.name) for group in line]
        mean = metric.scale * np.array([spread.mean for spread in spreads])
        deviation = metric.scale * np.array([spread.deviation for spread in spreads])
        if study.is_plain(variant):
            style = ("--", ":", "-.")[sum(map(study.is_plain, study.variants[:index])) % 3]
            axes.axhspan(mean[0] - deviation[0], mean[0] + deviation[0], color=INK, alpha=0.07, linewidth=0)
            axes.axhline(mean[0], color=INK, linestyle=style, linewidth=0.9, alpha=0.7, label=variant.title)
            continue
        x = [group.coefficient for group in line]
        colour = PALETTE[(index - 1) % len(PALETTE)]
        axes.fill_between(x, mean - deviation, mean + deviation, color=colour, alpha=0.13, linewidth=0)
        axes.plot(x, mean, "o-", markersize=3.5, linewidth=1.3, color=colour, label=variant.title)
    axes.set_xscale("log")
    tried = sorted({group.coefficient for group in found if group.coefficient})
    if len(tried) <= MOST_TICKS:
        axes.set_xticks(tried, [f"{coefficient:g}" for coefficient in tried])
        axes.minorticks_off()
    axes.grid(color=INK, alpha=0.1, linewidth=0.6)
