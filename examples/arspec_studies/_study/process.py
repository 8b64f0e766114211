"""How a study talks to its worker processes: one JSON object per line, and an environment of one core."""

import json
import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def emit(event: str, **content: Any) -> None:
    """Write one event as a line of JSON."""
    print(json.dumps({"event": event, **content}), flush=True)


def parse_event(line: str) -> dict[str, Any] | None:
    """Return the event on a line, or None for whatever else a library prints."""
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the installed version of each distribution that is there."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def worker_environment() -> dict[str, str]:
    """Return the environment of a worker: the CPU, and one core each, since they run side by side."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"}
    cpu = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "KERAS_TORCH_DEVICE": "cpu"}
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
    return {**os.environ, **quiet, **cpu, **threads, "XLA_FLAGS": flags.strip()}


def how_it_ended(code: int) -> str:
    """Say what an exit code other than 0 means."""
    return f"was killed by signal {-code}" if code < 0 else f"stopped with exit code {code}"
