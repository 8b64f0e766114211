"""The published equations in mpmath, by loops over positions: an oracle that shares nothing with arspec.

A tensor is a dict from position to number that holds valid positions only, so a mask needs
no rule of its own. An equation returns terms, each with the position it lives at; `reduced`
averages and sums them. The gradient is a central difference with hundreds of digits.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from typing import Any, NamedTuple

import mpmath as mp
import numpy as np

import arspec as ar

Place = tuple[tuple[str, int], ...]
Term = tuple[Place, Any]


class Cells(NamedTuple):
    """The valid entries of a tensor: the names of its axes, and the number at each position."""

    names: tuple[str, ...]
    numbers: dict[tuple[int, ...], Any]
    mean_over: tuple[str, ...]

    def places(self) -> Iterator[tuple[dict[str, int], Any]]:
        for position, number in self.numbers.items():
            yield dict(zip(self.names, position, strict=True)), number

    def groups(self, over: Iterable[str]) -> dict[Place, list[Any]]:
        """Gather the numbers that differ only along the axes `over`."""
        found: dict[Place, list[Any]] = defaultdict(list)
        for place, number in self.places():
            found[tuple((name, i) for name, i in place.items() if name not in over)].append(number)
        return found

    def kept(self) -> tuple[str, ...]:
        return tuple(name for name in self.names if name not in self.mean_over)

    def matrix(self, column: str) -> list[list[Any]]:
        """Rows (every axis but `column`) of a tensor without a mask."""
        return list(self.groups((column,)).values())


def cells(x: np.ndarray, names: Iterable[str], mean_over: Iterable[str] = (), mask: Any = None) -> Cells:
    """Read an array, whose mask covers its leading axes."""
    numbers = {
        position: mp.mpf(float(x[position]))
        for position in np.ndindex(x.shape)
        if mask is None or mask[tuple(0 if n == 1 else i for i, n in zip(position, mask.shape, strict=False))]
    }
    return Cells(tuple(names), numbers, tuple(mean_over))


def reduced(terms: Iterable[Term], mean_over: Iterable[str]) -> Any:
    """Σ over kept positions of the mean over `mean_over`."""
    rows: dict[Place, list[Any]] = defaultdict(list)
    for place, term in terms:
        rows[tuple(pair for pair in place if pair[0] not in mean_over)].append(term)
    return mp.fsum(mp.fsum(row) / len(row) for row in rows.values())


def value(penalty: ar.Penalty, x: Cells) -> Any:
    """Return the penalty of x; every parameter is the float64 it is."""
    if isinstance(penalty, ar.Sum):
        return mp.fsum(mp.mpf(factor) * value(part, x) for factor, part in penalty.summands)
    equation = EQUATIONS[penalty.name]
    coefficient = mp.mpf(getattr(penalty, "coefficient", 1.0))
    return coefficient * mp.fsum(reduced(terms, x.mean_over) for terms in equation(penalty, x))


def gradient(penalty: ar.Penalty, x: Cells, position: tuple[int, ...], digits: int = 160) -> Any:
    """Return d value / d x at one position by a central difference, good to about 2 · `digits` digits."""
    number = x.numbers[position]
    near = abs(number) or min((abs(n) for n in x.numbers.values() if n), default=mp.mpf(1))
    step = near * mp.mpf(10) ** -digits
    low, high = ({**x.numbers, position: number + sign * step} for sign in (-1, 1))
    return (value(penalty, x._replace(numbers=high)) - value(penalty, x._replace(numbers=low))) / (2 * step)


def _each(function: Callable[[Any, Any], Any]) -> Callable[[Any, Cells], Any]:
    def terms(penalty: Any, x: Cells) -> Any:
        yield [(tuple(place.items()), function(penalty, number)) for place, number in x.places()]

    return terms


def _grouped(function: Callable[[list[Any]], Any]) -> Callable[[Any, Cells], Any]:
    """One term per position of the averaged axes: a function of everything else."""

    def terms(penalty: Any, x: Cells) -> Any:
        yield [(place, function(group)) for place, group in x.groups(x.kept()).items()]

    return terms


def length(group: Iterable[Any]) -> Any:
    return mp.sqrt(mp.fsum(n * n for n in group))


def ratio(group: list[Any]) -> Any:
    return mp.fsum(map(abs, group)) / length(group) if any(group) else mp.mpf(0)


def huber(penalty: Any, x: Any) -> Any:
    delta = mp.mpf(penalty.delta)
    return x * x / 2 if abs(x) <= delta else delta * (abs(x) - delta / 2)


def pseudo_huber(penalty: Any, x: Any) -> Any:
    delta = mp.mpf(penalty.delta)
    return delta**2 * (mp.sqrt(1 + (x / delta) ** 2) - 1)


def divergence(target: Any, mean: Any) -> Any:
    if mean in (0, 1):
        return mp.inf
    return target * mp.log(target / mean) + (1 - target) * mp.log((1 - target) / (1 - mean))


def entropy(_: Any, x: Any) -> Any:
    return -sum(p * mp.log(p) for p in (x, 1 - x) if p)


def group_lasso(penalty: Any, x: Cells) -> Any:
    groups = x.groups(penalty.norm_over)
    yield [(p, length(g) * (mp.sqrt(len(g)) if penalty.size_scaled else 1)) for p, g in groups.items()]


def kl_sparsity(penalty: Any, x: Cells) -> Any:
    target = mp.mpf(penalty.target)
    yield [(place, divergence(target, mp.fsum(g) / len(g))) for place, g in x.groups(x.mean_over).items()]


def steps(numbers: dict[Place, Any], axis: str) -> Iterator[tuple[Place, Any, Any]]:
    """Neighbours along an axis, both of which are there."""
    for place, number in numbers.items():
        after = tuple((name, i + (name == axis)) for name, i in place)
        if after in numbers:
            yield place, number, numbers[after]


def _by_place(x: Cells) -> dict[Place, Any]:
    return {tuple(place.items()): number for place, number in x.places()}


def temporal_difference(_: Any, x: Cells) -> Any:
    yield [(place, (after - before) ** 2) for place, before, after in steps(_by_place(x), "time")]


def norm_stabilizer(_: Any, x: Cells) -> Any:
    lengths = {place: length(group) for place, group in x.groups(("feature",)).items()}
    yield [(place, (after - before) ** 2) for place, before, after in steps(lengths, "time")]


def total_variation(penalty: Any, x: Cells) -> Any:
    for axis in penalty.over:
        yield [(place, abs(after - before)) for place, before, after in steps(_by_place(x), axis)]


def _column(x: Cells) -> str:
    return "output" if "output" in x.names else x.names[-1]


def rows_of(penalty: Any, x: Cells) -> list[list[Any]]:
    """The vectors that `mode` speaks of, in the matrix view of a kernel."""
    matrix = x.matrix(_column(x))
    return matrix if penalty.mode == "rows" else [list(column) for column in zip(*matrix, strict=True)]


def dot(a: Iterable[Any], b: Iterable[Any]) -> Any:
    return mp.fsum(p * q for p, q in zip(a, b, strict=True))


def orthogonal(penalty: Any, x: Cells) -> Any:
    pairs = list(combinations(rows_of(penalty, x), 2))
    cosines = (abs(dot(a, b)) / (length(a) * length(b)) for a, b in pairs if any(a) and any(b))
    yield [((), mp.fsum(cosines) / max(len(pairs), 1))]


def soft_orthogonal(penalty: Any, x: Cells) -> Any:
    vectors = rows_of(penalty, x)
    yield [((), mp.fsum((dot(a, b) - (i == j)) ** 2 for i, a in enumerate(vectors) for j, b in enumerate(vectors)))]


def centred_columns(x: Cells) -> list[list[Any]]:
    """Features, each a list over the batch minus its mean."""
    columns = x.groups(("batch",)).values()
    return [[n - mp.fsum(column) / len(column) for n in column] for column in columns]


def decov(_: Any, x: Cells) -> Any:
    columns = centred_columns(x)
    covariances = [dot(a, b) / len(a) for a in columns for b in columns]
    variances = [dot(a, a) / len(a) for a in columns]
    yield [((), (mp.fsum(c**2 for c in covariances) - mp.fsum(v**2 for v in variances)) / 2)]


EQUATIONS: dict[str, Callable[[Any, Cells], Any]] = {
    "l1": _each(lambda p, x: abs(x)),
    "l2": _each(lambda p, x: x**2),
    "l1_l2": _each(lambda p, x: mp.mpf(p.l1) * abs(x) + mp.mpf(p.l2) * x**2),
    "lp": _each(lambda p, x: abs(x) ** mp.mpf(p.p)),
    "group_lasso": group_lasso,
    "l2_norm": _grouped(length),
    "linf": _grouped(lambda group: max(map(abs, group))),
    "hoyer": _grouped(ratio),
    "hoyer_square": _grouped(lambda group: ratio(group) ** 2),
    "huber": _each(huber),
    "pseudo_huber": _each(pseudo_huber),
    "smooth_l1": _each(lambda p, x: mp.sqrt(x**2 + mp.mpf(p.epsilon))),
    "student_t": _each(lambda p, x: mp.log(1 + (x / mp.mpf(p.scale)) ** 2)),
    "tanh": _each(lambda p, x: mp.tanh(mp.mpf(p.scale) * abs(x))),
    "kl_sparsity": kl_sparsity,
    "binary_entropy": _each(entropy),
    "binarize": _each(lambda p, x: x**2 * (1 - x) ** 2),
    "temporal_difference": temporal_difference,
    "norm_stabilizer": norm_stabilizer,
    "total_variation": total_variation,
    "orthogonal": orthogonal,
    "soft_orthogonal": soft_orthogonal,
    "decov": decov,
    "l0_step": _each(lambda p, x: mp.mpf(x > mp.mpf(p.threshold))),
}
