"""The inputs of the identity matrix: values that break engines, on shapes that break trees.

Cases are grouped by what a compiler specializes on. The first group holds most values on
one shape, so that a mode whose compiler is slow sees every value for one compilation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from arspec_conformance.family import Member

SHAPE = (7, 5, 6)
SEED = 20260101
DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
    "float64": np.dtype(np.float64),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One input. `name` says what is in it; the options are those of `arspec.value`."""

    name: str
    x: np.ndarray
    axes: str | None = None
    mean_over: str | tuple[str, ...] = "sum"
    mask: np.ndarray | None = None
    cotangent: float = 1.0


@dataclass(frozen=True, slots=True)
class Group:
    """Cases of one shape and one set of options.

    Attributes
    ----------
    name : what the group is for.
    needs : the capability it needs, if any.
    level : 1 is measured everywhere, 2 and 3 where there is time for it.
    cases : the cases; no group is empty.
    """

    name: str
    needs: str | None
    level: int
    cases: tuple[Case, ...]


def groups(member: Member, dtype: str) -> Iterator[Group]:
    """Yield the groups of cases for one penalty and dtype."""
    core = [Case(name, x, mean_over="batchmean", cotangent=-0.37) for name, x in _ordinary(member, dtype)]
    yield Group("values", None, 1, tuple(core))
    special = [Case(name, x, mean_over="batchmean") for name, x in _special(member, dtype)]
    yield Group("special values", "special values", 1, tuple(special))
    if member.mask:
        yield Group("mask", "mask", 2, tuple(_masked(member, dtype)))
    *small, large = (Case("×".join(map(str, s)), _random(member, dtype, s, 11)) for s in _sizes(member))
    yield Group("large", None, 2, (large,))
    yield Group("sizes", None, 3, tuple(small))
    random = _random(member, dtype, SHAPE, 7)
    reductions = (Case(f"mean over: {name}", random, mean_over=name) for name in ("sum", "mean"))
    yield Group("reductions", None, 3, tuple(reductions))
    named = Case("axes: batch feature time", random, axes="batch feature time", mean_over="batchmean")
    yield Group("axes", None, 3, (named,))
    yield Group("empty", "empty", 3, (Case("0×5×6", np.zeros((0, 5, 6), DTYPES[dtype]), mean_over="batchmean"),))


def random_values(member: Member, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return float64 numbers: signed, over 2¹⁶ in magnitude, a tenth exact zeros; or inside (0, 1)."""
    rng = np.random.default_rng((SEED, seed))
    if member.unit_interval:
        return np.asarray(0.02 + 0.96 * rng.random(shape))
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-8, 8, shape))
    return np.asarray(np.where(rng.random(shape) < 0.1, 0.0, x))


def _random(member: Member, dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    return random_values(member, shape, seed).astype(DTYPES[dtype])


def _ordinary(member: Member, dtype: str) -> Iterator[tuple[str, np.ndarray]]:
    for seed in range(3):
        yield f"random {seed}", _random(member, dtype, SHAPE, seed)
    zeros_and_ties = random_values(member, SHAPE, 3)
    zeros_and_ties.reshape(-1)[:9] = 0.0
    zeros_and_ties[2] = zeros_and_ties[1]
    zeros_and_ties[:, 3] = zeros_and_ties[:, 2]
    yield "zeros and ties", zeros_and_ties.astype(DTYPES[dtype])
    yield "all zero", np.zeros(SHAPE, DTYPES[dtype])
    constant = 0.25 if member.unit_interval else -2.5
    yield "all equal", np.full(SHAPE, constant, np.float64).astype(DTYPES[dtype])


def _special(member: Member, dtype: str) -> Iterator[tuple[str, np.ndarray]]:
    info = ml_dtypes.finfo(DTYPES[dtype])
    tiny, small = float(info.smallest_subnormal), float(info.smallest_normal)
    if member.unit_interval:
        placed = {"0 and 1": (0.0, 1.0), "tiny": (tiny, small), "NaN": (np.nan,)}
    else:
        largest = float(info.max)
        placed = {"NaN": (np.nan,), "infinity": (np.inf, -np.inf, 0.0), "largest": (largest, -largest)}
        placed |= {"tiny": (tiny, -tiny, small, -small, -0.0)}
    for name, values in placed.items():
        x = random_values(member, SHAPE, 5)
        x[1, 1, : len(values)] = values
        yield name, x.astype(DTYPES[dtype])
    if not member.unit_interval:
        yield "all tiny", np.full(SHAPE, 3 * tiny, np.float64).astype(DTYPES[dtype])
        every = random_values(member, SHAPE, 6)
        every[0, 0, :4] = (np.nan, np.inf, -np.inf, float(info.max))
        yield "everything", every.astype(DTYPES[dtype])


def _sizes(member: Member) -> tuple[tuple[int, ...], ...]:
    """Return one element, sizes beside powers of two, and one beyond a block of an eager engine."""
    needs_time = member.penalty.name in ("temporal_difference", "norm_stabilizer", "total_variation", "sum")
    matrix = member.penalty.name in ("orthogonal", "soft_orthogonal", "decov", "kl_sparsity")
    if matrix:
        return (1, 1, 1), (33, 65), (9, 3, 17)
    if needs_time or member.penalty.name == "group_lasso":
        return (1, 1, 1), (33, 2, 65), (31, 129, 50)
    return (), (1,), (33, 65), (2, 3, 2, 5), (200_003,)


def _masked(member: Member, dtype: str) -> Iterator[Case]:
    x = random_values(member, SHAPE, 9)
    x[1] = np.nan  # whole examples, so that a mask over "batch" alone hides them too
    by_batch = np.ones((SHAPE[0], 1), bool)
    by_batch[1] = False
    x, options = x.astype(DTYPES[dtype]), {"mean_over": "batchmean", "cotangent": -0.37}
    yield Case("mask over batch", x, mask=by_batch, **options)
    yield Case("all masked", x, mask=np.zeros_like(by_batch), **options)
    if "time" in member.mask:
        steps = np.array([5, 0, 4, 3, 2, 1, 5])
        ragged = np.arange(SHAPE[1]) < steps[:, None]
        yield Case("ragged mask", x, mask=ragged, **options)
        yield Case("ragged mask, mean", x, mask=ragged, mean_over="mean")


def options(case: Case) -> dict[str, Any]:
    """Return the options of a case that are not tensors."""
    return {"axes": case.axes, "mean_over": case.mean_over}
