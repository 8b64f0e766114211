"""How a benchmark measures: variants interleaved in one process, reported as ratios.

Every round runs each variant once, in random order, with the garbage collector off. What a
variant adds is its time minus the time of the variant "none" in the same round; the median
over the rounds is divided by that of the idiom people write by hand. Times are CPU times,
which another process cannot take away, or wall times on an accelerator.
"""

import gc
import os
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

Variants = dict[str, Callable[[], Any]]

# Under this a tick of the clock and the call itself would be part of what is measured.
SHORTEST_SAMPLE = 3e-4
FEWEST_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Options:
    """What one worker process measures: where, how large, how long per case (in seconds)."""

    framework: str
    regime: str = "default"
    device: str = "cpu"
    max_size: int = 10_000_000
    quick: bool = False
    time_limit: float = 0.0

    @property
    def seconds(self) -> float:
        return self.time_limit or (0.4 if self.quick else 2.5)

    @property
    def sizes(self) -> list[int]:
        sizes = [64_000, 1_000_000] if self.quick else [10_000, 64_000, 1_000_000, 10_000_000, 100_000_000]
        return [size for size in sizes if size <= self.max_size]


@dataclass(frozen=True, slots=True)
class Row:
    """One workload: what each variant adds, relative to the idiom and to the limit.

    Attributes
    ----------
    ratio : added by a variant / added by the idiom "naive"; empty where the idiom adds less
        than the noise.
    spread : quartile distance of the added time / its median, a measure of the noise.
    of_step : time of a whole step with a variant / without any penalty.
    limit : added by a variant / time of the triad y += a·x of the same size.
    memory : peak memory added by a variant, in units of the tensor penalized.
    """

    framework: str
    mode: str
    regime: str
    workload: str
    penalty: str
    size: int
    ratio: dict[str, float]
    spread: dict[str, float] = field(default_factory=dict)
    of_step: dict[str, float] = field(default_factory=dict)
    limit: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    rounds: int = 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def interleave(
    variants: Variants, *, clock: Callable[[], float], seconds: float, seed: int = 0
) -> dict[str, list[float]]:
    """Return the times of one call of each variant, round by round."""
    inner = {name: _repetitions(run, clock) for name, run in variants.items()}
    order, shuffler = list(variants), random.Random(seed)
    times: dict[str, list[float]] = {name: [] for name in variants}
    gc.collect()
    gc.disable()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[order[0]]) < FEWEST_ROUNDS:
        shuffler.shuffle(order)
        for name in order:
            times[name].append(_sample(variants[name], inner[name], clock))
    gc.enable()
    return times


def _repetitions(run: Callable[[], Any], clock: Callable[[], float]) -> int:
    run()
    once = min(_sample(run, 1, clock) for _ in range(2))
    return max(1, min(1000, round(SHORTEST_SAMPLE / max(once, 1e-7))))


def _sample(run: Callable[[], Any], count: int, clock: Callable[[], float]) -> float:
    before = clock()
    for _ in range(count):
        run()
    return (clock() - before) / count


def compare(
    times: dict[str, list[float]], *, options: Options, mode: str, workload: str, penalty: str, size: int,
    memory: dict[str, float] | None = None,
) -> Row:  # fmt: skip
    """Turn the times of "none", "naive", "triad" (if measured) and other variants into a Row."""
    base = times.get("none", [0.0] * len(times["naive"]))
    added = {
        name: [one - none for one, none in zip(samples, base, strict=True)]
        for name, samples in times.items()
        if name not in ("none", "triad")
    }
    medians = {name: statistics.median(samples) for name, samples in added.items()}
    limit = statistics.median(times["triad"]) if "triad" in times else None
    measurable = medians["naive"] > _quartile_distance(added["naive"]) / 2
    whole = {
        name: statistics.median(a / b for a, b in zip(times[name], base, strict=True)) for name in added if base[0]
    }
    return Row(
        framework=options.framework, mode=mode, regime=options.regime, workload=workload, penalty=penalty, size=size,
        ratio={name: one / medians["naive"] for name, one in medians.items()} if measurable else {},
        spread={name: _quartile_distance(added[name]) / abs(one) for name, one in medians.items()},
        of_step=whole,
        limit={} if limit is None else {name: one / limit for name, one in medians.items()},
        memory=memory or {}, rounds=len(times["naive"]),
    )  # fmt: skip


def _quartile_distance(samples: list[float]) -> float:
    low, _, high = statistics.quantiles(samples, n=4)
    return high - low


def peak_memory(run: Callable[[], Any]) -> int | None:
    """Return the bytes by which the resident memory of this process rises at most while `run` runs.

    None where the kernel does not let a process reset its high-water mark.
    """
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return None
    before = _status("VmRSS")
    run()
    return max(0, _status("VmHWM") - before)


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(name))
    return int(line.split()[1]) * 1024


def pin_to_one_core() -> None:
    """Keep this process on one core, so that CPU time is the time of the work."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
