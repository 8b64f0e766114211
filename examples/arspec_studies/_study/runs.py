"""Runs: which networks a study trains, and in which portions."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from arspec import SpecError
from arspec_studies._study.study import Study, Variant, coefficient_of

LARGEST_PORTION = 16
MOST_POINTS = 50


@dataclass(frozen=True, slots=True, order=True)
class Run:
    """One network: a variant, the coefficient of its first rule, and a seed."""

    variant: str
    coefficient: float
    seed: int


@dataclass(frozen=True, slots=True)
class Portion:
    """Runs of one variant, which one process trains together."""

    variant: str
    runs: tuple[Run, ...]


def parse_grid(text: str) -> tuple[float, ...]:
    """Return the coefficients of "1e-1:1e-6": one per decade, both ends included; "1e-1:1e-6:11" has 11.

    Raises
    ------
    SpecError: it is not two positive numbers and, at most, a count from 2 to 50.

    Example
    -------
    >>> parse_grid("1e-1:1e-3")
    (0.1, 0.01, 0.001)
    """
    expected = f"--grid {text!r}: expected two numbers > 0, and a count if wanted, such as 1e-1:1e-6 or 1e-1:1e-6:11."
    try:
        first, last, *count = text.split(":")
        ends = math.log10(float(first)), math.log10(float(last))
        points = int(count[0]) if count else round(abs(ends[0] - ends[1])) + 1
    except (ValueError, OverflowError):
        raise SpecError(expected) from None
    if len(count) > 1 or not 2 <= points <= MOST_POINTS:
        raise SpecError(expected)
    # Rounded, so that a point of the grid is the number people write, and the same one every time.
    return tuple(float(f"{10**exponent:.6g}") for exponent in np.linspace(ends[0], ends[1], points))


def coefficients(study: Study, variant: Variant, grid: Sequence[float], *, quick: bool = False) -> list[float]:
    """Return the coefficients to train a variant with, largest first; that of its spec file is among them.

    A quick run has that one alone, unless a grid is asked for.
    """
    own = coefficient_of(study.spec(variant.name))
    if study.is_plain(variant):
        return [0.0]
    more = grid if grid and variant.on_grid else () if quick else variant.coefficients
    return sorted({own, *more}, reverse=True)


def planned(study: Study, seeds: int, grid: Sequence[float], *, quick: bool = False) -> list[Run]:
    """Return every run of a study, those of the baseline first."""
    return [
        Run(variant.name, coefficient, seed)
        for variant in study.variants
        for coefficient in coefficients(study, variant, grid, quick=quick)
        for seed in range(seeds)
    ]


def portions(runs: Iterable[Run], jobs: int) -> list[Portion]:
    """Split runs by variant into portions of nearly equal size: one per job, or more if they were too large."""
    by_variant: dict[str, list[Run]] = {}
    for run in runs:
        by_variant.setdefault(run.variant, []).append(run)
    found = []
    for variant, members in by_variant.items():
        count = min(len(members), max(jobs, -(-len(members) // LARGEST_PORTION)))
        cuts = [round(len(members) * part / count) for part in range(count + 1)]
        found += [Portion(variant, tuple(members[a:b])) for a, b in pairwise(cuts)]
    return found
