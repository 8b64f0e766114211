"""Worker processes, a few at a time, that share the portions of a study among them."""

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from arspec_studies._study.process import how_it_ended, parse_event, worker_environment
from arspec_studies._study.runs import Portion, Run

OnResult = Callable[[Run, dict[str, float], Any], None]
OnProgress = Callable[[float], None]


@dataclass(slots=True)
class Outcome:
    """What came of a study in one framework, beside the results that were stored.

    Attributes
    ----------
    versions, note : from the workers.
    error, details : why one of them did not finish, and the end of what it wrote.
    seconds : wall-clock time.
    """

    versions: dict[str, str] = field(default_factory=dict)
    note: str = ""
    error: str | None = None
    details: str = ""
    seconds: float = 0.0


class Pool:
    """Processes that train portions.

    Parameters
    ----------
    command : what starts a worker.
    environment : variables it needs besides.
    log : file name, without its end, for what workers write on standard error.
    on_result : called with each result, one at a time.
    on_progress : called with the share of a network that was trained since the last call.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        on_result: OnResult,
        on_progress: OnProgress = lambda networks: None,
    ) -> None:
        self._command, self._environment, self._log = command, environment, log
        self._on_result, self._on_progress = on_result, on_progress
        self._portions: queue.SimpleQueue[Portion] = queue.SimpleQueue()
        self._running: list[subprocess.Popen[str]] = []
        self._lock = threading.Lock()
        self._outcome = Outcome()

    def run(self, portions: Sequence[Portion], jobs: int) -> Outcome:
        """Train all portions; a worker that fails does not stop the others."""
        started = time.monotonic()
        for portion in portions:
            self._portions.put(portion)
        pool = ThreadPoolExecutor(max(1, jobs))
        try:
            workers = [pool.submit(self._work, number) for number in range(min(jobs, len(portions)))]
            for worker in workers:
                worker.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(self._running):
                process.kill()
                process.wait()
        self._outcome.seconds = round(time.monotonic() - started, 1)
        return self._outcome

    def _work(self, number: int) -> None:
        log = self._log.with_name(f"{self._log.name}-{number}.log")
        with log.open("w", encoding="utf-8") as errors, self._start(errors) as process:
            self._running.append(process)
            try:
                finished = self._feed(process)
            except BrokenPipeError:
                finished = False
            except BaseException:
                process.kill()
                raise
        self._running.remove(process)
        if not finished or process.returncode:
            end = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-15:]
            how = how_it_ended(process.returncode) if process.returncode else "stopped before it was done"
            with self._lock:
                self._outcome.error, self._outcome.details = how, "\n".join(end)

    def _start(self, errors: TextIO) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**worker_environment(), **self._environment},
        )

    def _feed(self, process: subprocess.Popen[str]) -> bool:
        """Give a worker portion after portion; return whether it finished all it got."""
        assert process.stdin is not None
        with process.stdin:
            while True:
                try:
                    portion = self._portions.get_nowait()
                except queue.Empty:
                    return True
                runs = [(run.coefficient, run.seed) for run in portion.runs]
                process.stdin.write(json.dumps({"variant": portion.variant, "runs": runs}) + "\n")
                process.stdin.flush()
                if not self._follow(process, portion):
                    return False

    def _follow(self, process: subprocess.Popen[str], portion: Portion) -> bool:
        share, networks = 0.0, len(portion.runs)
        for line in process.stdout or ():
            event = parse_event(line)
            with self._lock:
                if event is None:
                    continue
                if event["event"] == "start":
                    self._outcome.versions, self._outcome.note = event["versions"], event["note"]
                elif event["event"] == "progress":
                    self._on_progress(networks * (event["share"] - share))
                    share = event["share"]
                elif event["event"] == "result":
                    run = Run(event["variant"], event["coefficient"], event["seed"])
                    self._on_result(run, event["metrics"], event["shown"])
                elif event["event"] == "done":
                    self._on_progress(networks * (1 - share))
                    return True
        return False


def worker_command(study: str, framework: str, *, quick: bool) -> list[str]:
    """Return the command that starts a worker."""
    command = [sys.executable, "-m", "arspec_studies._study.worker", study, framework]
    return [*command, "--quick"] if quick else command
