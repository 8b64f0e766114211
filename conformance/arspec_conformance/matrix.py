"""Measure several adapters, each in a process of its own, and merge what they found."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any

from arspec import SPEC_VERSION
from arspec._errors import unknown
from arspec_conformance._adapter import adapter_names, missing_modules
from arspec_conformance.cases import SEED

KERAS_BACKENDS = ("torch", "jax", "tensorflow")

OnEvent = Callable[[str, Mapping[str, Any]], None]


@dataclass(slots=True)
class Column:
    """One adapter, and what came of measuring it.

    Attributes
    ----------
    name : as on the command line, such as "torch" or "keras-jax".
    adapter : the registered name of the adapter.
    environment : variables its process needs.
    versions, cells : what the worker said.
    facts : whatever else it said when it started.
    seconds, cpu_seconds : what it took, the compilers it called included.
    refused : why it could not be measured, or None.
    error : how its process ended, where it broke off, with the end of its standard error.
    """

    name: str
    adapter: str
    environment: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    cells: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    expected: int | None = None
    refused: str | None = None
    error: str | None = None
    seconds: float = 0.0
    cpu_seconds: float | None = None

    @property
    def complete(self) -> bool:
        """Whether every cell was measured, and there was one."""
        return self.expected is not None and 0 < self.expected == len(self.cells)


def columns(names: Sequence[str]) -> list[Column]:
    """Return the columns with these names; "keras" stands for all its backends.

    Raises
    ------
    SpecError: no adapter has that name.
    """
    known = {name: Column(name, name) for name in adapter_names() if name != "keras"}
    for backend in KERAS_BACKENDS:
        known[f"keras-{backend}"] = Column(f"keras-{backend}", "keras", {"KERAS_BACKEND": backend})
    chosen: dict[str, Column] = {}
    for name in names:
        found = {n: c for n, c in known.items() if n == name or (name == "keras" and n.startswith("keras-"))}
        if not found and ":" in name:
            found = {name: Column(name, name)}
        if not found:
            raise unknown("backend", name, ["keras", *known])
        chosen |= found
    return list(chosen.values())


def run(
    chosen: Sequence[Column],
    *,
    device: str,
    dtypes: Sequence[str],
    penalties: Sequence[str],
    profile: str,
    jobs: int,
    on_event: OnEvent = lambda name, event: None,
) -> None:
    """Measure the columns, `jobs` processes at a time; results are stored in them."""
    options = ["--profile", profile, "--dtypes", ",".join(dtypes), "--penalties", ",".join(penalties)]
    start(chosen, lambda column: options, device=device, jobs=jobs, on_event=on_event)


def start(
    chosen: Sequence[Column],
    options: Callable[[Column], Sequence[str]],
    *,
    device: str,
    jobs: int,
    parts: int = 1,
    on_event: OnEvent = lambda name, event: None,
) -> None:
    """Run the worker with some options for each column, `jobs` processes at a time.

    A column may have several processes, its parts, that share the work out among themselves. One
    that crashed is followed by another, which goes on with what nobody has begun.
    """

    def measured(column: Column) -> None:
        started, missing = time.monotonic(), missing_modules(column.name)
        if missing:
            extra = column.adapter if column.adapter != "keras" else f"keras,{column.name.removeprefix('keras-')}"
            column.refused = f"{', '.join(missing)} not installed. Try: pip install 'arspec[{extra}]'"
            on_event(column.name, {"event": "refused", "reason": column.refused})
            return
        given = ["--device", device, *options(column)]
        with ThreadPoolExecutor(parts) as pool:
            ended = [
                e for ends in pool.map(lambda _: _part(column, given, device, on_event), range(parts)) for e in ends
            ]
        column.seconds = time.monotonic() - started
        column.cpu_seconds = sum(end.said.cpu_seconds for end in ended)
        failed = [end for end in ended if end.code] or [end for end in ended if not column.complete]
        if failed and not column.refused:
            column.error = "\n".join(
                f"its process stopped with exit code {end.code}{end.at}\n{end.log}" for end in failed
            )
        on_event(column.name, {"event": "end"})

    with ThreadPoolExecutor(max(jobs // parts, 1)) as pool:
        list(pool.map(measured, chosen))


def document(chosen: Sequence[Column], *, device: str, profile: str) -> dict[str, Any]:
    """Return everything measured as JSON values."""
    results = [
        {
            "backend": c.name,
            "versions": c.versions,
            "seconds": round(c.seconds, 1),
            "cpu_seconds": c.cpu_seconds,
            "complete": c.complete,
            "not_run": c.refused,
            "error": c.error,
            "cells": c.cells,
        }
        for c in chosen
    ]
    head = {"report": "arspec identity", "spec": SPEC_VERSION, "device": device, "profile": profile, "seed": SEED}
    return {**head, "holds": holds(chosen), "results": results}


def holds(chosen: Sequence[Column]) -> bool:
    """Whether something was measured and every cell of every column that could run holds."""
    ran = [column for column in chosen if not column.refused]
    return bool(ran) and all(c.complete and all(cell["holds"] for cell in c.cells) for c in ran)


@dataclass(slots=True)
class _Said:
    """What a process said about itself: the CPU seconds it took, and what it began, in order."""

    cpu_seconds: float = 0.0
    claims: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _End:
    """How a process ended: its exit code, the end of its standard error, and what it said."""

    code: int
    log: str
    said: _Said

    @property
    def at(self) -> str:
        return f", asked about {self.said.claims[-1]}" if self.said.claims else ""


def _part(column: Column, options: list[str], device: str, on_event: OnEvent) -> list[_End]:
    """Run one process after the other until one ends by itself, or crashes having begun nothing."""
    ends = [_run(column, options, device, on_event)]
    while ends[-1].code and ends[-1].said.claims:
        ends.append(_run(column, options, device, on_event))
    return ends


def _run(column: Column, options: list[str], device: str, on_event: OnEvent) -> _End:
    command = [sys.executable, "-m", "arspec_conformance.worker", column.adapter, *options]
    environment = {**_environment(device), **column.environment}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process:
            said = _follow(process, column, on_event)
        return _End(process.returncode, _end_of(log), said)


def _follow(process: subprocess.Popen[str], column: Column, on_event: OnEvent) -> _Said:
    """Store what a process says about the column, and return what it says about itself."""
    said = _Said()
    for line in process.stdout or ():
        event = json.loads(line)
        if event["event"] == "start":
            column.versions, column.expected = event["versions"], event["cells"]
            column.facts = {k: v for k, v in event.items() if k not in ("event", "name", "versions", "cells")}
        elif event["event"] == "cell":
            column.cells.append(event["cell"])
        elif event["event"] == "done":
            said.cpu_seconds = event["cpu_seconds"]
        elif event["event"] == "claim":
            said.claims.append(event["subject"])
        elif event["event"] == "refused":
            column.refused = event["reason"]
        on_event(column.name, event)
    return said


def _end_of(log: IO[str]) -> str:
    log.seek(0)
    return "\n".join(log.read().strip().splitlines()[-15:])


def _environment(device: str) -> dict[str, str]:
    """Return the environment of a worker: one thread each, and on the CPU no other device."""
    found = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    if device == "cpu":
        found |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    # Several frameworks share the accelerator, and JAX alone would take three quarters of it.
    found |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    return {**os.environ, **found}
