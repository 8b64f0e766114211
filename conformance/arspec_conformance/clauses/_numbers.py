"""Tiers E, B, Q, I and M: what the numbers are, and that they stay so."""

from collections.abc import Iterator

import numpy as np
from hypothesis import strategies as st

from arspec.penalties import Penalty
from arspec_conformance.bench import Bench, Violation
from arspec_conformance.cases import Case
from arspec_conformance.clauses._clause import Clause, class_name
from arspec_conformance.exact_inputs import BY_PENALTY, ExactInput
from arspec_conformance.family import Member
from arspec_conformance.inputs import (
    BATCHMEAN,
    as_dtype,
    coefficients,
    drawn,
    integers,
    ordinary,
    plain_case,
    shapes,
    with_coefficient,
)
from arspec_conformance.judges import bounded, exact, exact_value, quality
from arspec_conformance.trials import Trial

COTANGENTS = (1.0, -0.37)
MATRICES = ("orthogonal", "soft_orthogonal", "decov")
MANY = 5501


def clauses(members: tuple[Member, ...]) -> Iterator[Clause]:
    """Yield the clauses of one class of penalties."""
    name, subject = class_name(members[0]), members[0].label
    inputs = BY_PENALTY.get(members[0].penalty.name, ())
    if inputs:
        what = "value and gradient have" if all(i.gradient_too for i in inputs) else "the value has"
        yield Clause(
            f"{name}-E1",
            f"On binary fractions, on which nothing is rounded, {what} every bit of the definition of {name}.",
            "E",
            lambda bench: _exact(bench, inputs),
            subject,
        )
    if inputs and members[0].penalty.name not in MATRICES:
        yield Clause(
            f"{name}-E2",
            f"The same on {4 * 3 * MANY} entries, more than an engine may treat as few.",
            "E",
            lambda bench: _exact_and_large(bench, inputs),
            subject,
            level=3,
        )
    yield Clause(
        f"{name}-B1",
        f"Value and gradient of {name}, a mean over the batch, are within what float32 arithmetic may lose.",
        "B",
        lambda bench: _bounded(bench, members),
        subject,
        level=1,
    )
    yield Clause(
        f"{name}-B2",
        f'{name} is summed with mean_over="sum", averaged over every axis with "mean", and over those named.',
        "B",
        lambda bench: _reductions(bench, members),
        subject,
        level=3,
    )
    yield Clause(
        f"{name}-B3",
        f"{name} goes by the names of the axes, not by their order.",
        "B",
        lambda bench: _axes(bench, members),
        subject,
        level=3,
    )
    yield Clause(
        f"{name}-B4",
        f"{name} is right for other ranks, for axes of size 1 and for many entries.",
        "B",
        lambda bench: _shapes(bench, members),
        subject,
        level=3,
    )
    yield Clause(
        f"{name}-Q1",
        f"The value of {name} over 1 155 entries is within (log₂ n + 8) · u · S.",
        "Q",
        lambda bench: _quality(bench, members),
        subject,
        level=3,
        must=False,
    )
    yield Clause(
        f"{name}-M1",
        f"{name} gives the same bits when it is asked again, other numbers having been asked between.",
        "M",
        lambda bench: _again(bench, members),
        subject,
        level=1,
    )
    yield Clause(
        f"{name}-M2",
        f"The gradient of c · {name} is c times the gradient, c being known only at run time, 0 included.",
        "M",
        lambda bench: _chain_rule(bench, members),
        subject,
        level=1,
    )
    yield Clause(
        f"{name}-I1",
        f"Value and gradient of {name} have the bits of the definition.",
        "I",
        lambda bench: _identical(bench, members),
        subject,
        level=1,
        needs=("identical",),
        dtypes=("float32", "bfloat16", "float16"),
    )


def _exact(bench: Bench, inputs: tuple[ExactInput, ...]) -> None:
    for given in inputs:
        example = st.tuples(integers(), coefficients(bench, dyadic=True), st.sampled_from((1.0, -0.5)))

        def question(drawn: tuple[np.ndarray, float, float], given: ExactInput = given) -> None:
            k, coefficient, cotangent = drawn
            x = as_dtype(given.numbers(k), bench.dtype)
            case = Case("binary fractions", x, given.axes, given.mean_over, cotangent=cotangent)
            bench.ask(Trial(given.penalty(coefficient), case), exact if given.gradient_too else exact_value)

        drawn(bench, example, question)


def _exact_and_large(bench: Bench, inputs: tuple[ExactInput, ...]) -> None:
    k = np.random.default_rng(bench.numbered(13)).integers(-2, 3, (4, 3, MANY))
    for given in inputs:
        x = as_dtype(given.numbers(k), bench.dtype)
        case = Case("many binary fractions", x, given.axes, given.mean_over)
        bench.ask(Trial(given.penalty(0.5), case), exact if given.gradient_too else exact_value)


def _bounded(bench: Bench, members: tuple[Member, ...]) -> None:
    for member in bench.of(members):
        example = st.tuples(ordinary(member, bench.dtype), coefficients(bench), st.sampled_from(COTANGENTS))

        def question(drawn: tuple[np.ndarray, float, float], member: Member = member) -> None:
            x, coefficient, cotangent = drawn
            case = Case("ordinary numbers", x, mean_over=BATCHMEAN, cotangent=cotangent)
            bench.ask(Trial(_chosen(bench, member, coefficient), case))

        drawn(bench, example, question)


def _chosen(bench: Bench, member: Member, coefficient: float) -> Penalty:
    """Return the penalty of the family where a new one would be compiled anew."""
    return with_coefficient(member.penalty, coefficient) if bench.mode.cost == 0 else member.penalty


def _reductions(bench: Bench, members: tuple[Member, ...]) -> None:
    for member in bench.of(members):
        for mean_over in ("sum", "mean", ("time",), ("batch", "time")):
            bench.ask(Trial(member.penalty, plain_case(bench, member, 1, mean_over=mean_over)))


def _axes(bench: Bench, members: tuple[Member, ...]) -> None:
    for member in bench.of(members):
        # Sizes 4, 3 and 7 say which axis was taken for which.
        bench.ask(Trial(member.penalty, plain_case(bench, member, 2, axes="time feature batch")))


def _shapes(bench: Bench, members: tuple[Member, ...]) -> None:
    for member in bench.of(members):
        right, wrong = [], []
        for shape in shapes(member):
            try:
                bench.ask(Trial(member.penalty, plain_case(bench, member, 3, shape, mean_over="sum")))
            except Violation as error:
                wrong.append((shape, error, bench.tally.token))
            else:
                right.append(shape)
        if wrong:
            # Which shapes are right says more about a wrong one than its numbers.
            _, error, bench.tally.token = wrong[0]
            listed = ", ".join(str(shape) for shape, _, _ in wrong)
            contrast = f"; right on {', '.join(map(str, right))}" if right else ""
            raise Violation(f"{error} It is wrong on shapes {listed}{contrast}.")


def _quality(bench: Bench, members: tuple[Member, ...]) -> None:
    for member in bench.of(members):
        case = plain_case(bench, member, 4, (7, 5, 33), mean_over="sum")
        bench.ask(Trial(member.penalty, case), quality)


def _again(bench: Bench, members: tuple[Member, ...]) -> None:
    for member in bench.of(members):
        first, other = (Trial(member.penalty, plain_case(bench, member, number)) for number in (10, 11))
        one = bench.ask(first)
        bench.ask(other)
        for _ in range(3):
            bench.same(first, one, bench.answer(first), "changes when it is asked again")


def _chain_rule(bench: Bench, members: tuple[Member, ...]) -> None:
    for member in bench.of(members):
        for cotangent in (0.0, -1.0, 3.7, 1 / 1024):
            bench.ask(Trial(member.penalty, plain_case(bench, member, 12, cotangent=cotangent)), bounded)


def _identical(bench: Bench, members: tuple[Member, ...]) -> None:
    for member in bench.of(members):
        for number in (20, 21):
            bench.ask(Trial(member.penalty, plain_case(bench, member, number, cotangent=-0.37)), exact)
