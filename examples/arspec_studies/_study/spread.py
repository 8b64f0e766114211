"""Mean and deviation over seeds, and differences between pairs of runs that share a seed."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation (divided by n − 1; 0 for a single seed)."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.deviation:.3f}"


@dataclass(frozen=True, slots=True)
class Paired:
    """Differences of two ways to train that start from the same seeds.

    Attributes
    ----------
    differences : one per seed.
    spread : their mean and deviation.
    interval : 95 % confidence interval of the mean by Student's t; None for fewer than 3 seeds.
    higher, equal, lower : how many are above, at and below 0.
    """

    differences: tuple[float, ...]
    spread: Spread
    interval: tuple[float, float] | None
    higher: int
    equal: int
    lower: int

    @classmethod
    def of(cls, differences: Sequence[float]) -> "Paired":
        spread = Spread.of(differences)
        signs = [(d > 0) - (d < 0) for d in differences]
        counts = (signs.count(1), signs.count(0), signs.count(-1))
        return cls(tuple(differences), spread, _interval(spread, len(differences)), *counts)

    @property
    def is_clear(self) -> bool:
        """Whether the interval is known and does not contain 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def _interval(spread: Spread, count: int) -> tuple[float, float] | None:
    if count < 3:
        return None
    from scipy.stats import t

    half = float(t.ppf(0.975, count - 1)) * spread.deviation / count**0.5
    return spread.mean - half, spread.mean + half
