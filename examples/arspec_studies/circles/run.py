"""Run the study in several frameworks at once, each in a process of its own.

No framework is imported here, and one that fails or is missing does not stop the others.
"""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from arspec_studies._study.process import how_it_ended, parse_event, worker_environment
from arspec_studies.circles.data import CONFIGURATIONS


@dataclass(frozen=True, slots=True)
class Framework:
    """How one framework takes part.

    Attributes
    ----------
    name : on the command line.
    title : in tables.
    modules : what must be importable.
    seeds : networks per configuration, chosen so that the whole demo stays under three
        minutes on two cores.
    command : the command that runs its worker, without options.
    environment : variables the worker needs.
    """

    name: str
    title: str
    modules: tuple[str, ...]
    seeds: int
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def missing(self) -> list[str]:
        """Return the modules that are not installed, without importing any."""
        return [module for module in self.modules if importlib.util.find_spec(module) is None]


KERAS_BACKENDS = ("jax", "torch", "tensorflow")


def frameworks(keras_backend: str = "jax") -> dict[str, Framework]:
    """Return every framework by name; the one that takes longest stands first, to start first."""
    keras_seeds = 10 if keras_backend == "jax" else 1
    environment = {"KERAS_BACKEND": keras_backend}
    found = (
        Framework("torch", "PyTorch", ("torch",), 10, _worker("torch")),
        Framework("keras", "Keras", ("keras", keras_backend), keras_seeds, _worker("keras"), environment),
        Framework("jax", "JAX", ("jax", "flax", "optax"), 30, _worker("jax")),
    )
    return {framework.name: framework for framework in found}


def _worker(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"arspec_studies.circles.train_{name}")


@dataclass(slots=True)
class Outcome:
    """What came of one framework.

    Attributes
    ----------
    framework : its name.
    seeds : networks per configuration.
    results : the worker's "result" events by configuration.
    versions, note : from its "start" event.
    error : why it did not finish, or None.
    details : the end of what it wrote on standard error, where it failed.
    seconds : wall-clock time.
    """

    framework: str
    seeds: int
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    note: str = ""
    error: str | None = None
    details: str = ""
    seconds: float = 0.0


OnEvent = Callable[[str, dict[str, Any]], None]


def run(
    chosen: Sequence[Framework],
    output: Path,
    *,
    epochs: int,
    seeds: int | None = None,
    on_event: OnEvent = lambda framework, event: None,
    processes: int | None = None,
) -> dict[str, Outcome]:
    """Run the workers, a few at a time, and collect what they say.

    Parameters
    ----------
    chosen : which frameworks, in the order in which they start.
    output : folder that holds the shared weights and receives evidence and logs.
    epochs : full-batch steps per network.
    seeds : networks per configuration; None for each framework's own number.
    on_event : called with a framework's name and each of its events, from several threads.
    processes : how many run at a time; by default one per CPU core.

    Returns
    -------
    The outcome of every framework, by name, in the order given.
    """
    workers = max(1, min(processes or os.cpu_count() or 1, len(chosen)))
    running: list[subprocess.Popen[str]] = []
    pool = ThreadPoolExecutor(workers)
    try:
        futures = {
            framework.name: pool.submit(
                _run_one, framework, output, epochs, seeds or framework.seeds, on_event, running
            )
            for framework in chosen
        }
        return {name: future.result() for name, future in futures.items()}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(running):
            process.kill()
            process.wait()


def _run_one(
    framework: Framework,
    output: Path,
    epochs: int,
    seeds: int,
    on_event: OnEvent,
    running: list[subprocess.Popen[str]],
) -> Outcome:
    outcome, started = Outcome(framework.name, seeds), time.monotonic()
    if missing := framework.missing():
        outcome.error = f"not installed: {', '.join(missing)}. Try: pip install 'arspec[{framework.name}]'"
        return outcome
    options = ["--seeds", str(seeds), "--epochs", str(epochs), "--output", str(output)]
    log = output / f"{framework.name}.log"
    with (
        log.open("w", encoding="utf-8") as errors,
        _start([*framework.command, *options], framework, errors) as process,
    ):
        running.append(process)
        finished = _follow(process, outcome, on_event)
    running.remove(process)
    code = process.returncode
    outcome.seconds = round(time.monotonic() - started, 1)
    if code != 0 or not finished:
        outcome.error = how_it_ended(code) if code else "stopped before it was done"
        outcome.details = "\n".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-15:])
    return outcome


def _start(command: list[str], framework: Framework, errors: TextIO) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={**worker_environment(), **framework.environment},
    )


def _follow(process: subprocess.Popen[str], outcome: Outcome, on_event: OnEvent) -> bool:
    """Read events until the stream ends; return whether the last one was "done"."""
    finished = False
    for line in process.stdout or ():
        event = parse_event(line)
        if event is None:
            continue
        if event["event"] == "start":
            outcome.versions, outcome.note = event["versions"], event["note"]
        elif event["event"] == "result":
            outcome.results[event["configuration"]] = event
        finished = event["event"] == "done" and len(outcome.results) == len(CONFIGURATIONS)
        on_event(outcome.framework, event)
    return finished
