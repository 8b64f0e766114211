"""Ordinary and special inputs of the clauses, and how Hypothesis draws them.

One shape serves most clauses, so that a mode whose compiler is slow compiles one function
for many questions; Hypothesis draws values, cotangents and coefficients, never shapes.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.extra import numpy as hnp

import arspec as ar
from arspec.penalties import Penalty
from arspec_conformance._adapter import INSTANT
from arspec_conformance.bench import Bench, Violation
from arspec_conformance.cases import DTYPES, Case
from arspec_conformance.exact_inputs import SHAPE
from arspec_conformance.family import Member

BATCHMEAN = "batchmean"
LARGEST = 8.0
Seed = int | tuple[int, int]
CONSTANT_ALONE = ("temporal_difference", "norm_stabilizer", "total_variation", "orthogonal", "decov")


def drawn(bench: Bench, strategy: st.SearchStrategy[Any], question: Callable[[Any], object]) -> None:
    """Put the question to examples of the strategy; the smallest one that fails is what is reported."""
    chosen = settings(
        max_examples=bench.examples,
        deadline=None,
        derandomize=bench.seed is None,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
        print_blob=False,
        report_multiple_bugs=False,
    )

    @chosen
    @given(strategy)
    def ask(example: Any) -> None:
        try:
            question(example)
        except Violation as error:
            seen.append(error)
            raise

    seen: list[Violation] = []
    if bench.seed is not None:
        ask = seed(zlib.crc32(f"{bench.seed} {bench.clause} {bench.mode.name} {bench.dtype}".encode()))(ask)
    try:
        ask()
    except Flaky:
        raise Violation(f"right and wrong by turns, on the same input: {seen[0]}") from None


def integers(shape: tuple[int, ...] = SHAPE) -> st.SearchStrategy[np.ndarray]:
    """Draw int arrays within ±8: dense ones from a seed, sparse ones entry by entry."""
    dense = st.integers(0, 1 << 30).map(lambda seed: np.random.default_rng(seed).integers(-8, 9, shape))
    return st.one_of(dense, hnp.arrays(np.int64, shape, elements=st.integers(-8, 8)))


def ordinary(member: Member, dtype: str, shape: tuple[int, ...] = SHAPE) -> st.SearchStrategy[np.ndarray]:
    """Draw numbers a penalty is made for: over a few magnitudes, with zeros and ties among them."""
    low, high = (0.0625, 0.9375) if member.unit_interval else (-LARGEST, LARGEST)
    dense = st.integers(0, 1 << 30).map(lambda seed: plain(member, dtype, shape, seed))
    entry = st.floats(low, high, width=32, allow_subnormal=False)
    return st.one_of(dense, hnp.arrays(np.float64, shape, elements=entry).map(lambda x: as_dtype(x, dtype)))


def plain(member: Member, dtype: str, shape: tuple[int, ...] = SHAPE, seed: Seed = 0) -> np.ndarray:
    """Return random numbers within ±8, a tenth of them zeros and some ties; or inside (0, 1)."""
    rng = np.random.default_rng(seed)
    if member.unit_interval:
        return as_dtype(0.0625 + 0.875 * rng.random(shape), dtype)
    x = np.asarray(rng.standard_normal(shape) * np.exp2(rng.integers(-4, 1, shape)))
    x = np.where(rng.random(shape) < 0.1, 0.0, np.clip(x, -LARGEST, LARGEST))
    if x.ndim > 1 and x.shape[1] > 1:
        x[0, 1] = x[0, 0]
    return as_dtype(x, dtype)


def plain_case(bench: Bench, member: Member, number: int, shape: tuple[int, ...] = SHAPE, **options: Any) -> Case:
    """Return numbers as of `plain`, known by a number; a hunt has others for each of its seeds."""
    x = plain(member, bench.dtype, shape, bench.numbered(number))
    return Case("ordinary numbers", x, **{"mean_over": BATCHMEAN, **options})


def as_dtype(x: Any, dtype: str) -> np.ndarray:
    """Round numbers to a dtype."""
    with np.errstate(over="ignore"):
        return np.asarray(x, np.float64).astype(DTYPES[dtype])


def coefficients(bench: Bench, dyadic: bool = False) -> st.SearchStrategy[float]:
    """Draw coefficients where nothing is compiled for each; elsewhere there is one."""
    numbers = (0.5, 0.25, 1.0, 3.0, 0.0078125) if dyadic else (0.3, 1e-4, 0.7071067811865476, 2.5, 33.3)
    return st.sampled_from(numbers if bench.mode.cost == INSTANT else numbers[:1])


def with_coefficient(penalty: Penalty, coefficient: float) -> Penalty:
    """Return the penalty with another coefficient; a sum is multiplied by it."""
    if isinstance(penalty, ar.Sum):
        return coefficient * penalty
    if isinstance(penalty, ar.L1L2):
        return ar.L1L2(coefficient, coefficient / 3)
    parameters = {f.name: getattr(penalty, f.name) for f in fields(penalty)}  # pyright: ignore[reportArgumentType]
    return type(penalty)(**{**parameters, "coefficient": coefficient})


def shapes(member: Member) -> tuple[tuple[int, ...], ...]:
    """Return the pool of shapes beside SHAPE: other ranks, axes of size 1, and one with many entries."""
    if member.of_kernel or member.penalty.name in ("decov", "kl_sparsity"):
        return (5, 3), (1, 1), (2, 3, 3, 5)
    if member.penalty.name in ("temporal_difference", "norm_stabilizer"):
        return (2, 5, 3), (1, 2, 1), (3, 1, 2), (2, 33, 5)
    if member.penalty.name == "total_variation":
        return (2, 5, 3), (1, 2, 1), (3, 1, 2), (2, 5, 33)
    if member.penalty.name == "group_lasso":
        return (5, 3), (1, 1), (2, 3, 3, 5), (2, 3, 2, 3, 5)
    return (), (1,), (257,), (5, 3), (1, 1, 1), (2, 3, 3, 5), (2, 3, 2, 3, 5)


def extremes(member: Member, dtype: str) -> Iterator[Case]:
    """Yield inputs at both ends of the dtype's range."""
    info = ml_dtypes.finfo(DTYPES[dtype])
    large, small, tiny = float(info.max), float(info.smallest_normal), float(info.smallest_subnormal)
    ends = {"tiny": (small, -small, 2 * small), "subnormal": (3 * tiny, -tiny, 0.0)}
    if not member.unit_interval:
        ends = {"large": (large / 4, -large / 8, large / 2), **ends}
    else:
        ends = {"subnormal": (3 * tiny, tiny, 0.0)}
    for name, values in ends.items():
        x = np.resize(np.array(values), SHAPE)
        yield Case(name, as_dtype(x, dtype), mean_over=BATCHMEAN)


def placed(member: Member, dtype: str, values: tuple[float, ...], seed: Seed = 5) -> np.ndarray:
    """Return ordinary numbers with some values set into the second example, at its first step."""
    x = plain(member, dtype, SHAPE, seed)
    x[1, 1, : len(values)] = as_dtype(values, dtype)
    return x


def masks(member: Member) -> Iterator[tuple[str, np.ndarray]]:
    """Yield masks that the penalty takes."""
    by_batch = np.array([True, False, True, True])
    yield "mask over the batch", by_batch
    if "time" in member.mask:
        yield "ragged mask", np.arange(SHAPE[1]) < np.array([3, 0, 2, 1])[:, None]


def replaced(case: Case, **changes: Any) -> Case:
    """Return the case with other values in some fields."""
    return replace(case, **changes)
