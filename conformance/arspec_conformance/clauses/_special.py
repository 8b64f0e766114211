"""Tier S: NaN, infinities, nothing at all, masked positions, the ends of the range. Tier R: JSON."""

from collections.abc import Iterator
from itertools import product

import numpy as np

from arspec.penalties._base import to_document
from arspec_conformance.bench import Bench
from arspec_conformance.cases import Case
from arspec_conformance.clauses._clause import Clause, class_name
from arspec_conformance.exact_inputs import SHAPE
from arspec_conformance.family import Member
from arspec_conformance.inputs import (
    BATCHMEAN,
    as_dtype,
    extremes,
    masks,
    placed,
    plain,
    plain_case,
)
from arspec_conformance.judges import bounded, exact, nan_is_kept, scaled
from arspec_conformance.trials import Trial, penalty_from

MATRICES = ("orthogonal", "soft_orthogonal", "decov")  # where the pattern of NaN is not pinned
SPECIAL = "special values"


def clauses(members: tuple[Member, ...]) -> Iterator[Clause]:
    """Yield the clauses of one class of penalties."""
    name, subject, kind = class_name(members[0]), members[0].label, members[0].penalty.name
    spread = "is never lost" if kind in MATRICES else "spreads over its group and no further"
    yield Clause(
        f"{name}-S1",
        f"A NaN makes the value of {name} NaN, and the gradient at that entry; it {spread}.",
        "S",
        lambda bench: _nan(bench, members),
        subject,
        level=1,
        needs=(SPECIAL,),
    )
    if kind not in MATRICES and not members[0].unit_interval:
        yield Clause(
            f"{name}-S2",
            f"At an infinite entry {name} has its limit, or NaN where there is none.",
            "S",
            lambda bench: _infinities(bench, members),
            subject,
            level=1,
            needs=(SPECIAL,),
        )
    yield Clause(
        f"{name}-S3",
        f"{name} of nothing is 0, and its gradient has the shape of nothing.",
        "S",
        lambda bench: _empty(bench, members),
        subject,
        level=2,
        needs=("empty",),
    )
    if members[0].mask:
        yield Clause(
            f"{name}-S4",
            f"Masked positions of {name} count in no sum and no mean, and get gradient 0, even where they are NaN.",
            "S",
            lambda bench: _masked(bench, members),
            subject,
            needs=("mask",),
        )
        yield Clause(
            f"{name}-S5",
            f"{name} of nothing but masked positions is 0, and so is its gradient.",
            "S",
            lambda bench: _all_masked(bench, members),
            subject,
            needs=("mask",),
        )
    if kind not in MATRICES:
        yield Clause(
            f"{name}-S6",
            f"{name} neither overflows nor underflows before its result does; a subnormal entry may count as 0.",
            "S",
            lambda bench: _extremes(bench, members),
            subject,
            level=1,
        )
    yield Clause(
        f"{name}-S7",
        f"With coefficient 0, {name} is exactly 0 and so is its gradient, whatever x holds.",
        "S",
        lambda bench: _coefficient_zero(bench, members),
        subject,
        level=3,
    )
    yield Clause(
        f"{name}-S8",
        f"{name} of float16, bfloat16 and float32 is a float32, of float64 a float64; the gradient has x's dtype.",
        "S",
        lambda bench: _dtypes(bench, members),
        subject,
        level=1,
    )
    yield Clause(
        f"{name}-R1",
        f"{name} read from its JSON form gives the same bits as the {name} that was written.",
        "R",
        lambda bench: _round_trip(bench, members),
        subject,
        level=1,
    )


def _nan(bench: Bench, members: tuple[Member, ...]) -> None:
    for member in bench.of(members):
        x = placed(member, bench.dtype, (np.nan,), bench.numbered(5))
        judge = nan_is_kept if member.penalty.name in MATRICES else bounded
        bench.ask(Trial(member.penalty, Case("one NaN", x, mean_over=BATCHMEAN)), judge)


def _infinities(bench: Bench, members: tuple[Member, ...]) -> None:
    for member in bench.of(members):
        for values in ((np.inf,), (-np.inf, 1.0), (np.inf, 2.0, -np.inf)):
            x = placed(member, bench.dtype, values, bench.numbered(5))
            bench.ask(Trial(member.penalty, Case("infinities", x, mean_over=BATCHMEAN)))


def _empty(bench: Bench, members: tuple[Member, ...]) -> None:
    for member in bench.of(members):
        for shape, mean_over in (((0, 3, 7), BATCHMEAN), ((4, 3, 0), "sum")):
            case = Case("empty", as_dtype(np.zeros(shape), bench.dtype), mean_over=mean_over)
            bench.ask(Trial(member.penalty, case), exact)


def _masked(bench: Bench, members: tuple[Member, ...]) -> None:
    for member in bench.of(members):
        pairs = list(product(masks(member), (BATCHMEAN, "mean")))
        # Where each pair is compiled anew: every mask and every reduction, but not each with each.
        for (name, mask), mean_over in pairs[:: 3 if bench.few else 1]:
            x = np.where(_full(mask), plain(member, bench.dtype, seed=bench.numbered(6)), as_dtype(np.nan, bench.dtype))
            bench.ask(Trial(member.penalty, Case(name, x, mean_over=mean_over, mask=mask)))


def _full(mask: np.ndarray) -> np.ndarray:
    return np.broadcast_to(mask.reshape(mask.shape + (1,) * (3 - mask.ndim)), SHAPE)


def _all_masked(bench: Bench, members: tuple[Member, ...]) -> None:
    for member in bench.of(members):
        x = as_dtype(np.full(SHAPE, np.nan), bench.dtype)
        case = Case("all masked", x, mean_over=BATCHMEAN, mask=np.zeros(SHAPE[0], bool))
        bench.ask(Trial(member.penalty, case), exact)


def _extremes(bench: Bench, members: tuple[Member, ...]) -> None:
    for member in bench.of(members):
        for case in extremes(member, bench.dtype):
            # A subnormal entry may count as 0, or not: what a norm divides by is then left open.
            bench.ask(Trial(member.penalty, case), bounded if case.name == "subnormal" else scaled)


def _coefficient_zero(bench: Bench, members: tuple[Member, ...]) -> None:
    x = as_dtype(np.resize([np.nan, np.inf, -1.0, 0.0], SHAPE), bench.dtype)
    for member in bench.of(members):
        bench.ask(Trial(0 * member.penalty, Case("anything", x, mean_over=BATCHMEAN)), exact)


def _dtypes(bench: Bench, members: tuple[Member, ...]) -> None:
    for member in bench.of(members):
        bench.ask(Trial(member.penalty, plain_case(bench, member, 7)))


def _round_trip(bench: Bench, members: tuple[Member, ...]) -> None:
    for member in bench.of(members):
        case = plain_case(bench, member, 8)
        written, read = Trial(member.penalty, case), Trial(penalty_from(to_document(member.penalty)), case)
        bench.same(read, bench.answer(written), bench.answer(read), "differs after JSON")
