"""The results in numbers: means and deviations over seeds, as rows for a table or for JSON."""

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from arspec_studies.circles.agreement import Row
from arspec_studies.circles.data import CONFIGURATIONS
from arspec_studies.circles.run import FRAMEWORKS, Outcome


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation (divided by n − 1; 0 for a single seed)."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.deviation:.3f}"


@dataclass(frozen=True, slots=True)
class Line:
    """One configuration in one framework, at the last epoch."""

    configuration: str
    title: str
    framework: str
    seeds: int
    train: Spread
    test: Spread
    mean_activation: Spread
    exact_zeros: Spread
    published: tuple[float, float] | None


def lines(outcomes: Mapping[str, Outcome]) -> list[Line]:
    """Summarize every configuration that every framework finished."""
    return [
        _line(configuration, outcome, outcome.results[configuration.name])
        for configuration in CONFIGURATIONS
        for outcome in outcomes.values()
        if configuration.name in outcome.results
    ]


def _line(configuration: Any, outcome: Outcome, result: dict[str, Any]) -> Line:
    return Line(
        configuration.name,
        configuration.title,
        outcome.framework,
        outcome.seeds,
        Spread.of(result["curves"]["train"][-1]),
        Spread.of(result["curves"]["test"][-1]),
        Spread.of(result["mean_activation"]),
        Spread.of(result["exact_zeros"]),
        configuration.published,
    )


def title(framework: str) -> str:
    """Return how tables call a framework."""
    return FRAMEWORKS[framework].title if framework in FRAMEWORKS else framework


def document(outcomes: Mapping[str, Outcome], rows: list[Row], *, epochs: int) -> dict[str, Any]:
    """Return the whole study as plain data for `--json`."""
    return {
        "study": "circles",
        "epochs": epochs,
        "frameworks": {
            name: {
                "seeds": outcome.seeds,
                "versions": outcome.versions,
                "note": outcome.note,
                "seconds": outcome.seconds,
                "error": outcome.error,
            }
            for name, outcome in outcomes.items()
        },
        "results": [asdict(line) for line in lines(outcomes)],
        "agreement": [{**asdict(row), "agrees": row.agrees} for row in rows],
        "agrees": bool(rows) and all(row.agrees for row in rows),
    }
