"""Run clauses on one adapter: clause × mode × dtype, each with a verdict."""

import itertools
import random
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from arspec_conformance._adapter import COMPILED, COSTLY, INSTANT, Adapter, Mode
from arspec_conformance._models import ModelAdapter
from arspec_conformance.bench import Bench, Violation
from arspec_conformance.cases import DTYPES
from arspec_conformance.clauses import Clause
from arspec_conformance.explain import explanation
from arspec_conformance.family import members
from arspec_conformance.identity import SAMPLE
from arspec_conformance.trials import to_token

PASS, QUALITY, FAIL, WAIVED, UNSUPPORTED, NOTRUN = "PASS", "QUALITY", "FAIL", "WAIVED", "UNSUPPORTED", "NOTRUN"
PROFILES = {"smoke": 1, "quick": 4, "standard": 10, "full": 40, "hunt": 60}  # with the examples drawn
BROAD = ("quick", "standard", "full")  # a hunt asks nothing about models: it has no other numbers for them
SMOKED = ("l1", "linf", "group_lasso feature")
ONCE = Mode("once")


@dataclass(frozen=True, slots=True)
class Question:
    """One cell of the run: a clause in a mode for a dtype."""

    clause: Clause
    mode: Mode
    dtype: str


@dataclass(slots=True)
class Result:
    """What came of one question; the counts are those of `bench.Tally`."""

    clause: str
    tier: str
    mode: str
    dtype: str
    status: str
    message: str = ""
    trials: int = 0
    observed: int = 0
    worst: float = 0.0
    worst_in_u: dict[str, float] = field(default_factory=dict)
    worst_input: dict[str, Any] | None = None
    token: str | None = None
    seconds: float = 0.0

    def to_document(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self)


def questions(
    adapter: Adapter,
    clauses: Sequence[Clause],
    *,
    device: str = "cpu",
    profile: str = "quick",
    dtypes: Collection[str] = tuple(DTYPES),
    modes: Collection[str] = (),
    seed: int | None = None,
) -> Iterator[Question]:
    """Yield what a profile asks an adapter. A clause it asks nowhere is not among them."""
    served = [dtype for dtype in DTYPES if dtype in dtypes and dtype in adapter.dtypes(device)]
    chosen = [mode for mode in adapter.modes() if not modes or mode.name in modes]
    sample = SAMPLE
    if profile == "hunt" and seed is not None:
        sample, served = drawn_sample(clauses, seed), drawn_dtypes(served, seed)
    for clause in clauses:
        if clause.once:
            if "float32" in served and (profile in BROAD or (profile == "smoke" and clause.level == 1)):
                yield Question(clause, ONCE, "float32")
            continue
        for dtype, mode in itertools.product(served, chosen):
            about = dtype in (clause.dtypes or served) and dtype in (mode.dtypes or served)
            if about and clause.level <= reach(profile, mode, clause, dtype, mode is chosen[0], sample):
                yield Question(clause, mode, dtype)


def drawn_sample(clauses: Sequence[Clause], seed: int) -> tuple[str, ...]:
    """Return a few subjects of clauses, others for every seed: a quarter of all."""
    subjects = sorted({clause.subject for clause in clauses if clause.subject})
    return tuple(random.Random(seed).sample(subjects, -(-len(subjects) // 4)))


def drawn_dtypes(served: Sequence[str], seed: int) -> list[str]:
    """Return float32 and one other dtype, of which a hunt has another with the next seed."""
    others = [dtype for dtype in served if dtype != "float32"]
    return [dtype for dtype in served if dtype == "float32" or dtype == others[seed % len(others)]]


def reach(
    profile: str,
    mode: Mode,
    clause: Clause,
    dtype: str,
    first: bool = False,
    sample: Sequence[str] = SAMPLE,
) -> int:
    """Return up to which level a profile asks the clauses of a penalty; 0 is not at all.

    Level 1 needs one shape and one set of options, so that a compiler runs once for it.
    `first` says whether the mode is the first one of the adapter. The penalties of `sample`
    stand for all where a question is too dear to be asked about each.
    """
    (member, *_) = members([clause.subject])
    if member.of_kernel and not mode.sizes_known:
        return 0
    narrow, sampled = dtype != "float32", member.label in sample
    if profile == "smoke":
        return (2, 1, 0)[mode.cost] if member.label in SMOKED and not narrow else 0
    if profile == "hunt" and mode.cost > INSTANT:
        return int(sampled and (mode.cost == COMPILED or (not narrow and member.label in sample[:1])))
    if profile in ("quick", "hunt"):
        return _quick(mode, clause, dtype, first, member.label, sample)
    if profile == "standard":
        return (3, 1 if narrow else 2, int(not narrow or sampled))[mode.cost]
    return (3, 3, 2)[mode.cost]


def _quick(mode: Mode, clause: Clause, dtype: str, first: bool, label: str, sample: Sequence[str]) -> int:
    """Return the level of the profile quick: the first mode is asked most, and one that compiles little."""
    narrow, sampled, few = dtype != "float32", label in sample, label in sample[:2]
    if mode.cost == COSTLY:
        return int(sampled and not narrow)
    if mode.cost == INSTANT and first:
        # What is handed on, and what stands in JSON, does not depend on the dtype.
        return 3 if not narrow else 2 if sampled else int(clause.tier not in "MR")
    if mode.cost == INSTANT:
        return int(sampled) if narrow else 1
    if narrow:
        return int(sampled and (few or (first and dtype == "float64")))
    # Where every mode compiles, one penalty has to stand for all in the clauses of level 3.
    return 3 if first and label in sample[:1] else 2 if few or (first and sampled) else 1


def run(
    adapter: Adapter,
    asked: Iterable[Question],
    *,
    device: str = "cpu",
    profile: str = "quick",
    seed: int | None = None,
    examples: int | None = None,
) -> Iterator[Result]:
    """Answer questions one by one.

    Parameters
    ----------
    seed : what random numbers are drawn from; None for the same ones in every run.
    examples : how many are drawn per question; by default as many as the profile has.
    """
    has = declared(adapter)
    for question in asked:
        clause = question.clause
        result = Result(clause.id, clause.tier, question.mode.name, question.dtype, PASS)
        missing = [need for need in clause.needs if need not in has]
        if missing:
            result.status, result.message = UNSUPPORTED, f"the adapter does not declare {', '.join(missing)}"
            yield result
            continue
        bench = Bench(
            adapter,
            question.mode,
            question.dtype,
            device,
            clause.id,
            examples=examples or PROFILES[profile],
            seed=seed,
            few=profile not in ("standard", "full") and (question.mode.cost > INSTANT or question.dtype != "float32"),
        )
        _judged(clause, bench, result)
        yield result


def declared(adapter: Adapter) -> frozenset[str]:
    """Return what a clause may need and the adapter has: its capabilities, and the layers it builds."""
    layers = adapter.layers() if isinstance(adapter, ModelAdapter) else ()
    return adapter.capabilities() | {f"layer {name}" for name in layers}


def _judged(clause: Clause, bench: Bench, result: Result) -> None:
    """Run the check of a clause, and write what came of it into the result."""
    started = time.perf_counter()
    try:
        clause.check(bench)
    except Violation as error:
        result.status, result.message = FAIL if clause.must else QUALITY, str(error)
    tally = replace(bench.tally)
    if result.status == FAIL:
        result.message += explanation(bench, tally.token)
    result.trials, result.observed, result.token = tally.trials, tally.observed, tally.token
    result.worst, result.worst_in_u, result.worst_input = tally.worst, tally.worst_in_u, tally.worst_input
    if result.status == FAIL and result.token is None:
        known = {"clause": clause.id, "adapter": bench.adapter.name, "device": bench.device}
        result.token = to_token({**known, "mode": bench.mode.name, "dtype": bench.dtype})
    if result.status == PASS and not tally.observed:
        # A check that saw nothing has shown nothing.
        result.status, result.message = FAIL, "vacuous: the check compared nothing"
    result.seconds = round(time.perf_counter() - started, 4)
