"""Probe: what a model is fed to be measured, and `measure`, which measures it.

The same function runs in the process of the source and in that of the target: a framework
gives a `Subject`, which computes in float64 what it is asked for, in canonical layout.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from arspec.port._graph import Graph

BATCHES = {"a": 5, "b": 3}  # training uses the first; two sizes show what divides by the batch
FREE_SIZES = (13, 11, 7)  # for axes whose size a model leaves open
LEARNING_RATE = 0.05
SAMPLE = 4096  # of a longer tensor so many entries are kept, and SKETCH sums over all of it
SKETCH = 8

Arrays = dict[str, np.ndarray]


class Subject(Protocol):
    """A model in some framework, in float64, with the weights of a bundle. Dropout is off."""

    def outputs(self, inputs: Sequence[np.ndarray], *, training: bool) -> list[np.ndarray]:
        """Return the outputs, channels-last."""
        ...

    def trace(self, inputs: Sequence[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Return, in evaluation, path and result of the layers that can be seen, in the order of running."""
        ...

    def penalties(self, inputs: Sequence[np.ndarray], *, training: bool) -> dict[str, float]:
        """Return the value of every rule at every layer, by key, in names of the source."""
        ...

    def gradients(self, inputs: Sequence[np.ndarray], cotangents: Sequence[np.ndarray] | None) -> Arrays:
        """Return the gradient of every trainable weight, in training mode.

        Of Σ cotangent · output / batch; with None, of the total of the penalties.
        """
        ...

    def step(self, inputs: Sequence[np.ndarray], cotangents: Sequence[np.ndarray], rate: float) -> Arrays:
        """Return every weight after one step of gradient descent on the data loss plus the penalties."""
        ...


@dataclass(frozen=True, slots=True)
class Probe:
    """Inputs and cotangents for each batch, all exact in float32."""

    inputs: Mapping[str, list[np.ndarray]]
    cotangents: list[np.ndarray]


def make_probe(graph: Graph, output_shapes: Sequence[tuple[int, ...]]) -> Probe:
    """Return inputs for a graph, the same wherever it is made.

    Parameters
    ----------
    output_shapes : with the batch, of the first batch.
    """
    inputs = {
        name: [_input(one, f"{name}/{position}", batch) for position, one in enumerate(graph.inputs)]
        for name, batch in BATCHES.items()
    }
    cotangents = [normal(f"cotangent/{index}", shape) for index, shape in enumerate(output_shapes)]
    return Probe(inputs, cotangents)


def _input(one: Any, key: str, batch: int) -> np.ndarray:
    free = iter(FREE_SIZES)
    shape = (batch, *(next(free) if size is None else size for size in one.shape))
    if one.dtype == "int32":
        limit = one.limit or 2
        first = 1 if one.padding == 0 and limit > 1 else 0  # padding comes below, on purpose
        found = (first + uniform(key, shape) * (limit - first)).astype(np.int32).clip(0, limit - 1)
    else:
        found = normal(key, shape)
    return found if one.padding is None else _padded(found, one.padding)


def _padded(array: np.ndarray, value: float) -> np.ndarray:
    """Pad rows by turns behind, in front, in the middle, and not at all; no row is padding alone."""
    steps = array.shape[1]
    share = max(1, steps // 3)
    cuts = (slice(steps - share, None), slice(0, share), slice(share, share + 1))
    found = array.copy()
    for row in range(len(found) if steps > 1 else 0):
        if row % 4 < 3:
            found[row, cuts[row % 4]] = value
    return found


def padding_mask(graph: Graph, path: str, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Return what the `PaddingMask` at a path gives for the inputs of a graph, (batch, time) and bool."""
    given = dict(zip((one.name for one in graph.inputs), inputs, strict=True))
    name, _, rest = path.partition("/")
    node = next(each for each in graph.nodes if each.name == name)
    held = [given[str(reference)] for reference in node.inputs]
    if isinstance(node.layer, Graph):
        return padding_mask(node.layer, rest, held)
    valid = held[0] != getattr(node.layer, "value", 0.0)
    return valid.any(-1) if getattr(node.layer, "feature", False) else valid


def uniform(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers in [0, 1) that depend on the key alone, on any machine and NumPy."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape))) if np.prod(shape) else np.zeros(0, np.uint64)
    return (raw >> np.uint64(11)).astype(np.float64).reshape(shape) * 2.0**-53


def normal(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return roughly normal numbers, exact in float32: sums of uniform ones, rounded to 2⁻¹²."""
    total = sum(uniform(f"{key}#{part}", shape) for part in range(4)) - 2.0
    return np.round(total * np.sqrt(3.0) * 4096) / 4096


def perturbed(weights: Mapping[str, np.ndarray]) -> Arrays:
    """Return the weights, in float64, at which a certificate measures.

    A weight whose entries are all alike, such as a fresh bias or statistic, would hide
    faults: it is multiplied by numbers in [0.75, 1.25] and, where it was below 1e-3, gets
    0.1 of a normal number on top; for variances its absolute value.
    """
    found = {}
    for name, weight in weights.items():
        lifted = np.asarray(weight, np.float64)
        constant = name.rpartition("/")[2] in ("mean", "variance")  # of a Standardize
        if not constant and lifted.size > 1 and (lifted == lifted.reshape(-1)[0]).all():
            lifted = lifted * (0.75 + 0.5 * uniform(f"factor/{name}", lifted.shape))
            if np.abs(lifted).max() < 1e-3:
                lifted = lifted + 0.1 * normal(f"offset/{name}", lifted.shape)
            if name.endswith("variance"):
                lifted = np.abs(lifted)
        found[name] = lifted
    return found


def measure(subject: Subject, probe: Probe) -> Iterator[tuple[str, np.ndarray]]:
    """Yield what a certificate compares, by name, cheapest first; see `summary` for long tensors.

    Names: "eval/BATCH/output/N", "penalty/BATCH/KEY", "train/output/N", "penalty/train/KEY",
    "gradient/data/WEIGHT", "gradient/penalty/WEIGHT", "after/WEIGHT".
    """
    first = probe.inputs["a"]
    passes = [(batch, f"eval/{batch}", inputs, False) for batch, inputs in probe.inputs.items()]
    for key, kind, inputs, training in [*passes, ("train", "train", first, True)]:
        for index, output in enumerate(subject.outputs(inputs, training=training)):
            yield f"{kind}/output/{index}", output
        for site, number in subject.penalties(inputs, training=training).items():
            yield f"penalty/{key}/{site}", np.asarray(number, np.float64)
    for name, gradient in subject.gradients(first, probe.cotangents).items():
        yield f"gradient/data/{name}", gradient
    for name, gradient in subject.gradients(first, None).items():
        yield f"gradient/penalty/{name}", gradient
    for name, weight in subject.step(first, probe.cotangents, LEARNING_RATE).items():
        yield f"after/{name}", weight


def gather(subject: Subject, probe: Probe, progress: Callable[[str], None]) -> Arrays:
    """Return the evidence of a source: what `measure` yields and "trace/LAYER", as summaries."""
    evidence: Arrays = {}
    for name, array in measure(subject, probe):
        progress(name)
        evidence[name] = summary(array)
    return evidence | {f"trace/{path}": summary(array) for path, array in subject.trace(probe.inputs["b"])}


def summary(array: np.ndarray) -> np.ndarray:
    """Return a tensor as it is kept: all of it, or of a long one SAMPLE entries and SKETCH sums.

    The sums run over all entries with signs that look random, divided by √size: a
    difference anywhere shows in them, so none can hide between the sampled entries.
    """
    flat = np.asarray(array, np.float64).reshape(-1)
    if flat.size <= SAMPLE:
        return flat
    positions = np.linspace(0, flat.size - 1, SAMPLE).astype(np.int64)
    return np.concatenate([flat[positions], _signed_sums(flat) / np.sqrt(flat.size)])


def _signed_sums(flat: np.ndarray) -> np.ndarray:
    sums = np.zeros(SKETCH)
    block = 1 << 20
    for start in range(0, flat.size, block):
        part = flat[start : start + block]
        seed = np.arange(start, start + part.size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        seed ^= seed >> np.uint64(31)
        seed *= np.uint64(0xBF58476D1CE4E5B9)
        seed ^= seed >> np.uint64(29)
        for index in range(SKETCH):
            sign = 1.0 - 2.0 * ((seed >> np.uint64(index + 20)) & np.uint64(1)).astype(np.float64)
            sums[index] += part @ sign
    return sums
