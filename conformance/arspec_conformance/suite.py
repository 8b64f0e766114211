"""The suite over several adapters: a worker each, what is kept on disk, and the verdict."""

import argparse
import json
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from arspec import SPEC_VERSION, SpecError
from arspec._errors import unknown
from arspec_conformance import matrix
from arspec_conformance._adapter import Adapter
from arspec_conformance.cases import DTYPES, SEED
from arspec_conformance.clauses import CLAUSES, Clause
from arspec_conformance.matrix import Column, OnEvent
from arspec_conformance.runner import FAIL, NOTRUN, PROFILES, Question, questions, run

PARTIAL = ("smoke", "hunt")  # profiles that do not ask about every capability
MOST_PARTS = 4  # processes to a backend; each has to import it
STATUSES = ("PASS", "QUALITY", "FAIL", "WAIVED", "UNSUPPORTED", "NOTRUN")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of every adapter; two runs with equal requests ask the same."""

    device: str = "cpu"
    profile: str = "quick"
    modes: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = tuple(DTYPES)
    clauses: tuple[str, ...] = ()  # patterns of ids; none: all
    seed: int | None = None  # of a hunt
    examples: int | None = None  # of a hunt; none: those of the profile

    @property
    def is_whole(self) -> bool:
        """Whether it asks for everything that the profile has."""
        return not self.modes and not self.clauses and set(self.dtypes) == set(DTYPES)


def chosen_clauses(patterns: Sequence[str]) -> tuple[Clause, ...]:
    """Return the clauses whose ids a pattern matches, "*" standing for anything; or all.

    Raises
    ------
    SpecError: a pattern that no clause matches.
    """
    from fnmatch import fnmatchcase

    for pattern in patterns:
        if not any(fnmatchcase(clause.id, pattern) for clause in CLAUSES):
            raise SpecError(f"no clause matches {pattern!r}; `arspec conformance list` shows them.")
    return tuple(c for c in CLAUSES if not patterns or any(fnmatchcase(c.id, p) for p in patterns))


def check(request: Request) -> None:
    """Raise SpecError for a name that there is not."""
    chosen_clauses(request.clauses)
    for name in request.dtypes:
        if name not in DTYPES:
            raise unknown("dtype", name, DTYPES)
    if request.profile not in PROFILES:
        raise unknown("profile", request.profile, PROFILES)
    if request.profile != "hunt" and (request.seed, request.examples) != (None, None):
        raise SpecError(f"seed and examples are those of a hunt; the profile is {request.profile!r}.")
    for name in ("seed", "examples"):
        number = getattr(request, name)
        if number is not None and number < (name == "examples"):
            raise SpecError(f"{name}={number}; expected a number from {int(name == 'examples')} on.")


def answer(adapter: Adapter, arguments: argparse.Namespace, emit: Any) -> int:
    """Run the clauses in a worker, emitting one event per result."""
    from arspec_conformance.probes import probe

    asked = json.loads(arguments.suite)
    listed = list(
        questions(
            adapter,
            chosen_clauses(asked["clauses"]),
            device=arguments.device,
            profile=arguments.profile,
            dtypes=asked["dtypes"],
            modes=asked["modes"],
            seed=asked["seed"],
        )
    )
    if asked["versions"] and asked["versions"] != adapter.versions():
        emit("refused", reason="its versions changed since the run that is resumed; run again without --resume.")
        return 3
    done = {tuple(cell) for cell in asked["done"]}
    known = {"capabilities": sorted(adapter.capabilities()), "probes": probe(adapter, arguments.device)}
    known["modes"] = [mode.name for mode in adapter.modes()]
    emit("start", name=adapter.name, versions=adapter.versions(), cells=len(listed), **known)
    rest = [q for q in listed if (q.clause.id, q.mode.name, q.dtype) not in done]
    drawn = {"seed": asked["seed"], "examples": asked["examples"]}
    mine = unclaimed(rest, asked["claims"], lambda subject: emit("claim", subject=subject or "models"))
    for result in run(adapter, mine, device=arguments.device, profile=arguments.profile, **drawn):
        emit("cell", cell=result.to_document())
    emit("done", cpu_seconds=round(sum(os.times()[:4]), 1))
    return 0


def measure(
    columns: Sequence[Column],
    request: Request,
    *,
    jobs: int,
    journal: "Journal | None" = None,
    on_event: OnEvent = lambda name, event: None,
) -> None:
    """Ask every column, each in processes of its own; results are stored in them."""
    parts = 1 if request.profile == "smoke" else min(max(jobs // len(columns), 1), MOST_PARTS)

    def options(column: Column) -> list[str]:
        done = [(cell["clause"], cell["mode"], cell["dtype"]) for cell in column.cells]
        claims = tempfile.mkdtemp(dir=folder)
        asked = {**asdict(request), "versions": column.versions, "done": done, "claims": claims}
        return ["--profile", request.profile, "--suite", json.dumps(asked)]

    def remember(name: str, event: Mapping[str, Any]) -> None:
        if journal is not None:
            journal.write(name, event)
        on_event(name, event)

    with tempfile.TemporaryDirectory() as folder:
        matrix.start(columns, options, device=request.device, jobs=jobs, parts=parts, on_event=remember)
    for column in columns:
        _sort(column)


def unclaimed(
    listed: Sequence[Question], folder: str, on_claim: Callable[[str], object] = lambda subject: None
) -> Iterator[Question]:
    """Yield the questions about one subject after the other, of those that no other process has claimed.

    A process claims a subject by making a file of its name in the folder. What is compiled for
    one clause of a subject serves the others, so a subject is never divided.
    """
    by_subject: dict[str, list[Question]] = {}
    for question in listed:
        by_subject.setdefault(question.clause.subject, []).append(question)
    # Models first: they take longest, and whoever comes last shall be done soon.
    for subject in sorted(by_subject, key=bool):
        try:
            (Path(folder) / f"claimed {subject}").touch(exist_ok=False)
        except FileExistsError:
            continue
        on_claim(subject)
        yield from by_subject[subject]


def _sort(column: Column) -> None:
    """Bring cells, which come from several processes, into the order of clauses, dtypes and modes."""
    clauses = {clause.id: number for number, clause in enumerate(CLAUSES)}
    modes = {name: number for number, name in enumerate(column.facts.pop("modes", ()))}
    dtypes = list(DTYPES)
    column.cells.sort(key=lambda c: (clauses[c["clause"]], dtypes.index(c["dtype"]), modes.get(c["mode"], 0)))


class Journal:
    """The results as they come, one JSON object per line, so that a run can be resumed.

    Parameters
    ----------
    folder : where it is written.
    request : what is asked.
    resume : whether what is there already is kept.

    Raises
    ------
    SpecError: what is there answers another request.
    """

    def __init__(self, folder: Path, request: Request, *, resume: bool) -> None:
        self.path, self._lock = folder / "results.jsonl", threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self.events = self._read(request) if resume and self.path.exists() else []
        with self.path.open("a" if self.events else "w", encoding="utf-8") as file:
            if not self.events:
                file.write(json.dumps({"request": _header(request)}) + "\n")

    def restore(self, columns: Sequence[Column]) -> None:
        """Put the results of an earlier run into the columns."""
        for column in columns:
            for event in self.events:
                if event.get("backend") == column.name:
                    column.versions = event.get("versions", column.versions)
                    column.cells += [event["cell"]] if "cell" in event else []

    def write(self, name: str, event: Mapping[str, Any]) -> None:
        """Append what can be restored."""
        kept = {key: event[key] for key in ("versions", "cell") if key in event}
        if kept:
            with self._lock, self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"backend": name, **kept}) + "\n")

    def _read(self, request: Request) -> list[dict[str, Any]]:
        events = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                break  # the line that was being written when the run was killed, and nothing after it
        if not events or events[0].get("request") != _header(request):
            raise SpecError(f"{self.path} answers another request; run without --resume, or with its options.")
        return events


def _header(request: Request) -> dict[str, Any]:
    return json.loads(json.dumps({"spec": SPEC_VERSION, "suite": suite_version(), **asdict(request)}))


def suite_version() -> str:
    """Return the version of the package that holds the suite."""
    try:
        return version("arspec")
    except PackageNotFoundError:
        return "a checkout"


def document(columns: Sequence[Column], request: Request, stale: Sequence[str] = ()) -> dict[str, Any]:
    """Return everything found as JSON values."""
    results = [_column_document(column, request) for column in columns]
    head = {"report": "arspec conformance", "spec": SPEC_VERSION, "suite": suite_version(), "seed": SEED}
    ran = [result for result in results if not result["not_run"]]
    conforms = bool(ran) and not stale and all(result["conforms"] for result in ran)
    asked = {key: value for key, value in asdict(request).items() if value is not None}
    return {**head, **asked, "conforms": conforms, "stale_waivers": list(stale), "results": results}


def _column_document(column: Column, request: Request) -> dict[str, Any]:
    counts = Counter(cell["status"] for cell in column.cells)
    idle = _idle_capabilities(column) if request.is_whole and column.complete and request.profile not in PARTIAL else []
    return {
        "backend": column.name,
        "versions": column.versions,
        **column.facts,
        "seconds": round(column.seconds, 1),
        "cpu_seconds": column.cpu_seconds,
        "complete": column.complete,
        "conforms": column.complete and not counts[FAIL] and not idle,
        "idle_capabilities": idle,
        "not_run": column.refused,
        "error": column.error,
        "clauses": clause_counts(column.cells),
        "counts": {status: counts[status] for status in STATUSES},
        "observed": sum(cell["observed"] for cell in column.cells),
        "cells": column.cells,
    }


def clause_counts(cells: Collection[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many clauses have which status, each taken at its worst."""
    order = ("FAIL", "WAIVED", "QUALITY", "PASS", "UNSUPPORTED", "NOTRUN")
    worst: dict[str, str] = {}
    for cell in cells:
        known = worst.get(cell["clause"], NOTRUN)
        worst[cell["clause"]] = min(known, cell["status"], key=order.index)
    counts = Counter(worst.values())
    return {"total": len(worst), **{status: counts[status] for status in STATUSES}}


def _idle_capabilities(column: Column) -> list[str]:
    """Return declared capabilities that no check that ran asked for."""
    asked = {need for clause in CLAUSES for need in clause.needs}
    ran = {cell["clause"] for cell in column.cells if cell["status"] not in ("UNSUPPORTED", "NOTRUN")}
    met = {need for clause in CLAUSES if clause.id in ran for need in clause.needs}
    return sorted((set(column.facts.get("capabilities", ())) & asked) - met)
