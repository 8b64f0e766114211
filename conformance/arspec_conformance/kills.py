"""Does the suite kill adapters that are wrong, and spare those that are right?"""

import argparse
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from arspec import SPEC_VERSION, SpecError
from arspec_conformance._adapter import INSTANT, Adapter
from arspec_conformance.clauses import CLAUSES
from arspec_conformance.family import FAMILY
from arspec_conformance.faulty import FAULTS, NO_FAULT, Fault, FaultyAdapter
from arspec_conformance.matrix import Column
from arspec_conformance.runner import FAIL, Question, declared, questions, run

KILLED, SURVIVED, SPARED, FALSE_ALARM, NOT_APPLICABLE = "killed", "SURVIVED", "spared", "FALSE ALARM", "not applicable"
DEFAULT = ("l1", "group_lasso feature", "huber")


@dataclass(slots=True)
class Row:
    """One row of the kill matrix.

    Attributes
    ----------
    fault, sentence : which fault.
    verdict : KILLED or SURVIVED; SPARED or FALSE_ALARM for the adapter without a fault.
    killers : by tier, the first clause that failed.
    message : what the first of them said.
    asked : how many questions were asked.
    """

    fault: str
    sentence: str
    verdict: str
    killers: dict[str, str] = field(default_factory=dict)
    message: str = ""
    asked: int = 0
    seconds: float = 0.0

    def to_document(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return asdict(self)


def matrix(adapter: Adapter, *, device: str = "cpu", faults: Sequence[Fault] = FAULTS) -> Iterator[Row]:
    """Yield the row of the adapter as it is, then one for each fault planted in it."""
    yield _row(adapter, NO_FAULT, device)
    for fault in faults:
        yield _row(adapter, fault, device)


def chosen(pattern: str) -> tuple[Fault, ...]:
    """Return the faults whose names match a pattern, in which "*" stands for anything.

    Raises
    ------
    SpecError: none does.
    """
    found = tuple(fault for fault in FAULTS if fnmatchcase(fault.name, pattern))
    if not found:
        raise SpecError(f"no fault matches {pattern!r}; there is {', '.join(fault.name for fault in FAULTS)}.")
    return found


def answer(adapter: Adapter, arguments: argparse.Namespace, emit: Any) -> int:
    """Plant the faults in a worker, emitting one event per row."""
    faults = chosen(arguments.selftest)
    emit("start", name=adapter.name, versions=adapter.versions(), cells=len(faults) + 1)
    for row in matrix(adapter, device=arguments.device, faults=faults):
        emit("cell", cell={**row.to_document(), "status": row.verdict, "clause": row.fault})
    emit("done", cpu_seconds=round(sum(os.times()[:4]), 1))
    return 0


def document(columns: Sequence[Column], *, device: str) -> dict[str, Any]:
    """Return the kill matrices as JSON values."""
    results = [
        {
            "backend": column.name,
            "versions": column.versions,
            "complete": column.complete,
            "not_run": column.refused,
            "error": column.error,
            "score": score(column.cells),
            "rows": column.cells,
        }
        for column in columns
    ]
    holds = all(r["complete"] and not r["score"]["survived"] and not r["score"]["false_alarms"] for r in results)
    killed = all(r["score"]["killed"] for r in results)
    return {
        "report": "arspec selftest",
        "spec": SPEC_VERSION,
        "device": device,
        "holds": bool(results) and holds and killed,
        "results": results,
    }


def score(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return how many faults were planted and killed, how many survived, and how many alarms were false."""
    counts = Counter(row["verdict"] for row in rows)
    planted = counts[KILLED] + counts[SURVIVED]
    found = {"planted": planted, "killed": counts[KILLED], "survived": counts[SURVIVED]}
    return {**found, "false_alarms": counts[FALSE_ALARM], "not_applicable": counts[NOT_APPLICABLE]}


def _row(adapter: Adapter, fault: Fault, device: str) -> Row:
    row, started = Row(fault.name, fault.sentence, SURVIVED), time.perf_counter()
    served = set(adapter.dtypes(device))
    needs = {*fault.needs, *(("placements",) if fault.model else ())}
    if len(adapter.modes()) < fault.modes or not set(fault.dtypes) & served or needs - declared(adapter):
        row.verdict = NOT_APPLICABLE
        return row
    near, far = _ordered(adapter, fault, device)
    # First where the fault shows, tier by tier; all the rest only if nothing has been found there.
    _hunt(FaultyAdapter(adapter, fault), near, device, row, all_tiers=True)
    if not row.killers:
        _hunt(FaultyAdapter(adapter, fault), far, device, row, all_tiers=False)
    row.verdict = KILLED if row.killers else SURVIVED
    if fault is NO_FAULT:
        row.verdict = FALSE_ALARM if row.killers else SPARED
    row.seconds = round(time.perf_counter() - started, 2)
    return row


def _hunt(adapter: FaultyAdapter, asked: Sequence[Question], device: str, row: Row, *, all_tiers: bool) -> None:
    for question in asked:
        if question.clause.tier in row.killers:
            continue
        for result in run(adapter, [question], device=device, profile="quick"):
            row.asked += 1
            if result.status == FAIL:
                row.killers[result.tier] = result.clause
                row.message = row.message or result.message
        if row.killers and not all_tiers:
            return


def _ordered(adapter: Adapter, fault: Fault, device: str) -> tuple[list[Question], list[Question]]:
    """Return the questions near the fault, and all others of the quick profile."""
    names = {member.label for member in FAMILY if member.penalty.name in fault.about} or set(DEFAULT)
    first, *others = adapter.modes()
    chosen = [first.name, *(mode.name for mode in others[:1] if fault.modes > 1)]
    must = [clause for clause in CLAUSES if clause.must]
    asked = list(questions(adapter, must, device=device, profile="quick", modes=chosen))
    near, far = [], []
    for question in asked:
        at_home = question.clause.subject in names and question.dtype in fault.dtypes
        if fault.model:
            at_home = question.clause.tier == "P"
        # What needs a compiler for every new shape is asked last.
        quick = question.mode.cost == INSTANT or question.clause.level == 1
        (near if at_home and quick and fault is not NO_FAULT else far).append(question)
    # A clause that needs what the fault needs is the likeliest to see it.
    near.sort(key=lambda question: not set(fault.needs) & set(question.clause.needs))
    return near, far
