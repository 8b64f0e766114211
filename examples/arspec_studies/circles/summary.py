"""The results in numbers: means and deviations over seeds, as rows for a table or for JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arspec_studies._study.spread import Spread
from arspec_studies.circles import agreement
from arspec_studies.circles.agreement import PENALIZED, Row
from arspec_studies.circles.data import CONFIGURATIONS
from arspec_studies.circles.run import Outcome, frameworks


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


PUBLISHED = (
    "Published: one seed on Keras 2.3, which summed activity penalties over the batch; Keras >= 3.14 averages them."
)
LEGEND = (
    "Mean ± one standard deviation over seeds. Activation and zeros: mean and fraction of exact zeros of the hidden "
    "output, after the ReLU, on the training points."
)
AGREEMENT_NOTE = (
    "Differences are relative to the largest magnitude; in brackets, as a share of what the rounding of float32 allows."
)

TITLES = {name: framework.title for name, framework in frameworks().items()}


def agreement_rows(outcomes: Mapping[str, Outcome], folder: Path) -> list[Row]:
    """Compare every framework that gave evidence in this run with the reference."""
    return [
        row
        for name in outcomes
        if agreement.evidence_path(folder, name).exists()
        for row in agreement.compare(folder, name)
    ]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One quantity of one configuration in all frameworks, as text for a table."""

    title: str
    quantity: str
    elements: int
    reference: str
    cells: tuple[str, ...]
    agrees: tuple[bool, ...]


_QUANTITIES = {
    "given/value": "tensor given: value",
    "given/gradient": "tensor given: gradient",
    "model/value": "model: value",
    "model/hidden/kernel": "model: hidden kernel",
    "model/hidden/bias": "model: hidden bias",
    "model/output/kernel": "model: output kernel",
    "model/output/bias": "model: output bias",
}


def comparisons(rows: Sequence[Row], names: Sequence[str]) -> list[Comparison]:
    """Arrange the rows by configuration and quantity, one cell per framework of `names`."""
    found = {(row.configuration, row.quantity, row.framework): row for row in rows}
    table: list[Comparison] = []
    for configuration in PENALIZED if names else ():
        for quantity, label in _QUANTITIES.items():
            line = [found[configuration.name, quantity, name] for name in names]
            reference = next((f"{row.reference:.9g}" for row in line if row.reference is not None), "")
            cells, agrees = tuple(map(_cell, line)), tuple(row.agrees for row in line)
            table.append(Comparison(configuration.title, label, line[0].elements, reference, cells, agrees))
    return table


def _cell(row: Row) -> str:
    if row.identical == row.elements:
        return "same bits"
    if row.exact or not math.isfinite(row.of_bound):
        return f"DIFFERS: {row.elements - row.identical} of {row.elements}"
    return f"{'' if row.agrees else 'DIFFERS: '}{row.difference:.1e} ({row.of_bound:.0%})"


def verdict(rows: Sequence[Row]) -> str:
    """Say in one sentence whether the frameworks agree."""
    wrong = [row for row in rows if not row.agrees]
    if wrong:
        first = f"{wrong[0].framework}, {wrong[0].configuration}, {wrong[0].quantity}"
        return f"DISAGREEMENT in {len(wrong)} of {len(rows)} comparisons, the first: {first}."
    numbers = sum(row.elements for row in rows if row.exact)
    worst = max(row.of_bound for row in rows)
    return (
        f"Agreement: on a given tensor all {numbers} numbers have the bits of the NumPy reference; "
        f"through the model no difference exceeds {worst:.0%} of what float32 rounding allows."
    )


def document(outcomes: Mapping[str, Outcome], rows: list[Row], *, epochs: int) -> dict[str, Any]:
    """Return the whole study as plain data for `--json`; a number that is not finite is null."""
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
        "agreement": [_finite({**asdict(row), "agrees": row.agrees}) for row in rows],
        "agrees": bool(rows) and all(row.agrees for row in rows),
    }


def _finite(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in fields.items()
    }
