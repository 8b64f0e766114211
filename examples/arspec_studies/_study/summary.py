"""The results of a study in numbers: means and deviations over seeds, paired differences, the best coefficient."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from arspec_studies._study.spread import Paired, Spread
from arspec_studies._study.store import Row
from arspec_studies._study.study import Metric, Study, Variant, coefficient_of

TITLES = {"torch": "PyTorch", "jax": "JAX", "keras": "Keras"}


@dataclass(frozen=True, slots=True)
class Group:
    """The runs of one variant with one coefficient in one framework, that differ in their seeds.

    Attributes
    ----------
    runs : the metrics of each seed.
    """

    framework: str
    variant: Variant
    coefficient: float
    runs: dict[int, dict[str, float]]

    def spread(self, metric: str) -> Spread:
        """Return mean and deviation of a metric."""
        return Spread.of([metrics[metric] for metrics in self.runs.values()])

    def paired(self, other: "Group", metric: str) -> Paired:
        """Return this minus `other` on the seeds that both have."""
        return Paired.of([self.runs[s][metric] - other.runs[s][metric] for s in self.runs if s in other.runs])

    def only(self, parity: int) -> "Group":
        """Return every second seed, the even ones for parity 0."""
        runs = {seed: metrics for seed, metrics in self.runs.items() if seed % 2 == parity}
        return Group(self.framework, self.variant, self.coefficient, runs)


def groups(study: Study, rows: Sequence[Row]) -> list[Group]:
    """Gather rows, in the order of frameworks, variants, and coefficients from large to small."""
    found: dict[tuple[str, str, float], dict[int, dict[str, float]]] = {}
    for row in sorted(rows, key=lambda row: row.run.seed):
        key = (row.framework, row.run.variant, row.run.coefficient)
        found.setdefault(key, {})[row.run.seed] = row.metrics
    order = [variant.name for variant in study.variants]
    keys = sorted(found, key=lambda key: (list(TITLES).index(key[0]), order.index(key[1]), -key[2]))
    return [Group(key[0], study.variant(key[1]), key[2], found[key]) for key in keys]


def at_spec(study: Study, found: Sequence[Group]) -> list[Group]:
    """Return the groups whose coefficient is that of their spec file."""
    own = {variant.name: coefficient_of(study.spec(variant.name)) for variant in study.variants}
    return [group for group in found if group.coefficient == own[group.variant.name]]


def baseline_of(study: Study, found: Sequence[Group], group: Group) -> Group | None:
    """Return the group without a penalty that another is compared with, of the same framework."""
    plain = study.against(group.variant)
    return next((g for g in found if (g.framework, g.variant) == (group.framework, plain)), None)


@dataclass(frozen=True, slots=True)
class Effect:
    """What a penalty changes in a metric, compared with the baseline seed by seed.

    Attributes
    ----------
    published : the same difference as published, or None.
    beyond : how many seeds differ by at least that much in that direction.
    """

    group: Group
    metric: Metric
    paired: Paired
    published: float | None = None
    beyond: int | None = None


def effects(study: Study, found: Sequence[Group], metric: Metric) -> list[Effect]:
    """Return the effect of every variant, at the coefficient of its spec file."""
    listed = []
    for group in at_spec(study, found):
        baseline = baseline_of(study, found, group)
        if baseline is group or baseline is None or not set(group.runs) & set(baseline.runs):
            continue
        paired = group.paired(baseline, metric.name)
        before, after = (g.variant.published.get(metric.name) for g in (baseline, group))
        published = None if before is None or after is None else after - before
        listed.append(Effect(group, metric, paired, published, _beyond(paired.differences, published)))
    return listed


def _beyond(differences: Sequence[float], published: float | None) -> int | None:
    if not published:
        return None
    slack = 1e-9
    return sum((d if published > 0 else -d) >= abs(published) - slack for d in differences)


def sentence(study: Study, effect: Effect) -> str:
    """Say in a sentence what a penalty changed, and where the published difference stands."""
    metric, paired, count = effect.metric, effect.paired, len(effect.paired.differences)
    who = f"{effect.group.variant.title} ({TITLES[effect.group.framework]})"
    text = f"{who}: {metric.title} changes by {signed(metric, paired.spread.mean)} on average"
    text += f" ({count} {study.seed}{'s' if count > 1 else ''}, deviation {metric.shown(paired.spread.deviation)}"
    if paired.interval is not None:
        low, high = (signed(metric, end) for end in paired.interval)
        text += f"; 95 % interval of the mean {low} to {high}"
    text += f"); {paired.higher} up, {paired.equal} equal, {paired.lower} down. "
    if paired.equal == count:
        text += "Nothing changes."
    elif paired.interval is None:
        text += "So few cannot tell it from chance."
    else:
        text += "The change is clear." if paired.is_clear else "That cannot be told from chance."
    if effect.published is not None and effect.beyond is not None:
        text += f" Published: {signed(metric, effect.published)}; {effect.beyond} of {count} {study.seed}s reach that."
    return text


def signed(metric: Metric, value: float) -> str:
    """Return a difference with its sign."""
    shown = metric.shown(abs(value))
    if not float(shown):
        return shown
    return f"{'+' if value > 0 else '−'}{shown}"


@dataclass(frozen=True, slots=True)
class Best:
    """The best coefficient of a grid, chosen on the even seeds and judged on the odd ones."""

    group: Group
    paired: Paired


def best(study: Study, found: Sequence[Group]) -> list[Best]:
    """Return the best coefficient of every variant that has several and at least 4 seeds."""
    metric = study.headline
    if metric.higher_is_better is None:
        return []
    sign = 1 if metric.higher_is_better else -1
    chosen: list[Best] = []
    for framework in dict.fromkeys(group.framework for group in found):
        for variant in study.variants:
            tried = [g for g in found if (g.framework, g.variant) == (framework, variant) and len(g.runs) >= 4]
            baseline = baseline_of(study, found, tried[0]) if tried else None
            if len(tried) < 2 or baseline is None:
                continue
            winner = max(reversed(tried), key=lambda group: sign * group.only(0).spread(metric.name).mean)
            chosen.append(Best(winner, winner.only(1).paired(baseline.only(1), metric.name)))
    return chosen


def document(study: Study, found: Sequence[Group], outcome: Any, *, missing: int) -> dict[str, Any]:
    """Return the study as plain data for `--json`."""
    return {
        "study": study.name,
        "missing_runs": missing,
        "versions": outcome.versions,
        "note": outcome.note,
        "seconds": outcome.seconds,
        "error": outcome.error,
        "results": [_group_document(study, group) for group in found],
        "effects": [
            {
                "framework": effect.group.framework,
                "variant": effect.group.variant.name,
                "metric": metric.name,
                "mean": effect.paired.spread.mean,
                "deviation": effect.paired.spread.deviation,
                "interval": effect.paired.interval,
                "published": effect.published,
                "seeds_beyond_published": effect.beyond,
            }
            for metric in study.metrics
            for effect in effects(study, found, metric)
        ],
        "best": [
            {"framework": b.group.framework, "variant": b.group.variant.name, "coefficient": b.group.coefficient}
            for b in best(study, found)
        ],
    }


def _group_document(study: Study, group: Group) -> dict[str, Any]:
    spreads = {metric.name: group.spread(metric.name) for metric in study.metrics}
    return {
        "framework": group.framework,
        "variant": group.variant.name,
        "coefficient": group.coefficient,
        "seeds": len(group.runs),
        "metrics": {name: {"mean": s.mean, "deviation": s.deviation} for name, s in spreads.items()},
        "published": dict(group.variant.published),
    }
