"""How much cancels: Σ |summands| of a value or a gradient, the scale of its rounding errors in float64.

Rounding errors of a sum are relative to its summands, not to what is left of them. Where
nothing cancels this scale is the number itself; the entries below are those that do.
"""

from collections.abc import Iterator
from typing import Any

import mpmath as mp

import arspec as ar
from equations import Cells, Place, dot, length, rows_of, steps, value

REST = mp.mpf(2) ** -16  # of a product of matrices only what lies below the first slices is rounded


def of_value(penalty: ar.Penalty, x: Cells) -> Any:
    """Return the scale for a value."""
    if isinstance(penalty, ar.Sum):
        return mp.fsum(factor * of_value(part, x) for factor, part in penalty.summands)
    scale = {
        "norm_stabilizer": _norm_stabilizer,
        "orthogonal": _orthogonal,
        "soft_orthogonal": _soft,
        "decov": _decov,
        "kl_sparsity": _kl,
    }
    if penalty.name not in scale:
        return value(penalty, x)
    return value(penalty, x) + penalty.coefficient * scale[penalty.name](penalty, x)  # pyright: ignore


def of_gradient(penalty: ar.Penalty, x: Cells, position: tuple[int, ...], exact: Any) -> Any:
    """Return the scale for the gradient at `position`, which is `exact`."""
    scale = {
        "hoyer": _hoyer_slope,
        "hoyer_square": _hoyer_slope,
        "temporal_difference": _step_slope,
        "norm_stabilizer": _norm_slope,
        "orthogonal": _orthogonal_slope,
        "soft_orthogonal": _soft_slope,
        "decov": _decov_slope,
        "kl_sparsity": _kl_slope,
        "tanh": _tanh_slope,
    }
    if penalty.name not in scale:
        return abs(exact)
    return abs(exact) + penalty.coefficient * scale[penalty.name](penalty, x, position)  # pyright: ignore


def _shared_steps(x: Cells, numbers: dict[Place, Any]) -> Iterator[tuple[Place, Any, Any, Any]]:
    """Steps along time, each with 1 / (number of those averaged together)."""
    found = list(steps(numbers, "time"))
    for place, before, after in found:
        kept = [pair for pair in place if pair[0] not in x.mean_over]
        together = sum([pair for pair in other if pair[0] not in x.mean_over] == kept for other, _, _ in found)
        yield place, before, after, mp.mpf(1) / together


def _lengths(x: Cells) -> dict[Place, Any]:
    return {place: length(group) for place, group in x.groups(("feature",)).items()}


def _norm_stabilizer(_: Any, x: Cells) -> Any:
    return mp.fsum(2 * abs(b - a) * (a + b) * share for _, a, b, share in _shared_steps(x, _lengths(x)))


def _touches(place: Place, here: dict[str, int]) -> bool:
    return all(here[name] - i in ((0, 1) if name == "time" else (0,)) for name, i in place)


def _step_slope(_: Any, x: Cells, position: tuple[int, ...]) -> Any:
    here = dict(zip(x.names, position, strict=True))
    numbers = {tuple(place.items()): number for place, number in x.places()}
    return mp.fsum(2 * abs(b - a) * s for place, a, b, s in _shared_steps(x, numbers) if _touches(place, here))


def _norm_slope(_: Any, x: Cells, position: tuple[int, ...]) -> Any:
    here = dict(zip(x.names, position, strict=True))
    state = tuple((name, i) for name, i in here.items() if name != "feature")
    steps_here = (2 * (a + b) * s for place, a, b, s in _shared_steps(x, _lengths(x)) if _touches(place, here))
    return mp.fsum(steps_here) * abs(x.numbers[position]) / (_lengths(x)[state] or 1)


def _hoyer_slope(penalty: Any, x: Cells, position: tuple[int, ...]) -> Any:
    here = dict(zip(x.names, position, strict=True))
    groups = x.groups(x.kept())
    group = groups[tuple((name, i) for name, i in here.items() if name not in x.kept())]
    l1, l2 = mp.fsum(map(abs, group)), length(group)
    scale = (1 / l2 + abs(x.numbers[position]) * l1 / l2**3) / len(groups) if l2 else mp.mpf(0)
    return 2 * l1 / l2 * scale if penalty.name == "hoyer_square" and l2 else scale


def _tanh_slope(penalty: Any, x: Cells, position: tuple[int, ...]) -> Any:
    # exp(-2s|x|) makes an absolute error of its exponent a relative one.
    exponent = 2 * penalty.scale * abs(x.numbers[position])
    return exponent * penalty.scale * mp.sech(exponent / 2) ** 2


def _orthogonal(penalty: Any, x: Cells) -> Any:
    units = [[abs(n) / (length(v) or 1) for n in v] for v in rows_of(penalty, x)]
    cosines = [dot(a, b) for i, a in enumerate(units) for b in units[:i]]
    return REST * mp.fsum(cosines) / max(len(cosines), 1)


def _located(penalty: Any, x: Cells, position: tuple[int, ...]) -> tuple[list[list[Any]], int, int]:
    """The vectors of a matrix, and which entry of which of them stands at `position`."""
    marked = rows_of(penalty, x._replace(numbers={p: mp.mpf(p == position) for p in x.numbers}))
    row = next(i for i, vector in enumerate(marked) if any(vector))
    return rows_of(penalty, x), row, marked[row].index(1)


def _orthogonal_slope(penalty: Any, x: Cells, position: tuple[int, ...]) -> Any:
    vectors, row, entry = _located(penalty, x, position)
    size, pairs = length(vectors[row]), len(vectors) * (len(vectors) - 1) / 2
    units = [[n / (length(v) or 1) for n in v] for v in vectors]
    each = (abs(u[entry]) + abs(dot(u, units[row]) * units[row][entry]) for u in units)
    return mp.fsum(each) / (size * max(pairs, 1)) if size else mp.mpf(0)


def _off_identity(vectors: list[list[Any]], i: int, j: int) -> Any:
    product = [p * q for p, q in zip(vectors[i], vectors[j], strict=True)]
    return abs(mp.fsum(product) - (i == j)) + REST * (mp.fsum(map(abs, product)) + (i == j))


def _soft(penalty: Any, x: Cells) -> Any:
    vectors = rows_of(penalty, x)
    return mp.fsum(_off_identity(vectors, i, j) ** 2 for i in range(len(vectors)) for j in range(len(vectors)))


def _soft_slope(penalty: Any, x: Cells, position: tuple[int, ...]) -> Any:
    vectors, row, entry = _located(penalty, x, position)
    return 4 * mp.fsum(abs(v[entry]) * _off_identity(vectors, row, j) for j, v in enumerate(vectors))


def _spreads(x: Cells) -> dict[Place, list[Any]]:
    """|x| + mean |x| per feature: the mean is rounded before it is subtracted."""
    columns = x.groups(("batch",)).items()
    return {place: [abs(n) + mp.fsum(map(abs, c)) / len(c) for n in c] for place, c in columns}


def _decov(_: Any, x: Cells) -> Any:
    columns = x.groups(("batch",))
    centred = {place: [n - mp.fsum(c) / len(c) for n in c] for place, c in columns.items()}
    wide, pairs = _spreads(x), ((a, b) for a in columns for b in columns if a != b)
    return mp.fsum(abs(dot(centred[a], centred[b])) * dot(wide[a], wide[b]) / len(wide[a]) ** 2 for a, b in pairs)


def _decov_slope(_: Any, x: Cells, position: tuple[int, ...]) -> Any:
    here = dict(zip(x.names, position, strict=True))
    mine = tuple((name, i) for name, i in here.items() if name != "batch")
    wide, batch = _spreads(x), sorted({place["batch"] for place, _ in x.places()}).index(here["batch"])
    others = (column[batch] * dot(column, wide[mine]) for place, column in wide.items() if place != mine)
    return 2 * mp.fsum(others) / len(wide[mine]) ** 2


def _kl(penalty: Any, x: Cells) -> Any:
    target, scale = mp.mpf(penalty.target), mp.mpf(0)
    for group in x.groups(x.mean_over).values():
        mean = mp.fsum(group) / len(group)
        for weight, t in ((target, (mean - target) / target), (1 - target, (target - mean) / (1 - target))):
            scale += weight * (abs(t) + abs(mp.log1p(t))) if abs(t) > 0.1 else 0
        scale += abs(mean - target) / (1 - mean)
    return scale


def _kl_slope(penalty: Any, x: Cells, position: tuple[int, ...]) -> Any:
    here = dict(zip(x.names, position, strict=True))
    group = x.groups(x.mean_over)[tuple((n, i) for n, i in here.items() if n not in x.mean_over)]
    mean = mp.fsum(group) / len(group)
    return (1 + abs(mean - penalty.target) / (1 - mean)) / (1 - mean) / len(group)
