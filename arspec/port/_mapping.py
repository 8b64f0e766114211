"""WeightMap: where every weight goes, as data: explicit, bijective, reversible.

An entry moves one block of a canonical tensor to one block of a tensor of the target,
through steps that only move entries about. Two entries may add into one block (the two
biases of a GRU, where the target has one): this is written down, and not reversible. What
the target has besides is listed as derived, with its constant.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from arspec._errors import SpecError, shown, unknown

Block = tuple[tuple[int, int, int], ...]  # (axis, start, stop) for each axis that is cut
Step = tuple[str, tuple[int, ...]]
STEPS = ("transpose", "reshape", "flip", "order")


@dataclass(frozen=True, slots=True)
class Entry:
    """One block of a canonical tensor and where it goes.

    Attributes
    ----------
    source, target : names of the two tensors.
    steps : from source to target, in order: ("transpose", axes), ("reshape", shape),
        ("flip", axes), ("order", positions) for equal blocks of the last axis.
    take, put : the block of the source and of the target; () is all of it.
    adds : whether another entry puts a summand into the same block.
    """

    source: str
    target: str
    steps: tuple[Step, ...] = ()
    take: Block = ()
    put: Block = ()
    adds: bool = False

    def forward(self, canonical: np.ndarray) -> np.ndarray:
        """Return the block of the target that a canonical tensor gives."""
        return _run(self.steps, canonical[_index(self.take)])

    def backward(self, target: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return the block of the canonical tensor, of this shape, that a tensor of the target holds."""
        probe = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
        order = _run(self.steps, probe)
        block = target[_index(self.put)]
        if order.shape != block.shape:
            raise SpecError(f"{self.target}: shape {block.shape}; expected {order.shape}, from {self.source!r}.")
        found = np.empty(probe.size, block.dtype)
        found[order.reshape(-1)] = block.reshape(-1)
        return found.reshape(shape)


@dataclass(frozen=True, slots=True)
class WeightMap:
    """Every weight of a bundle and of a target.

    Attributes
    ----------
    entries : the moves.
    shapes : the shape of every tensor of the target.
    derived : tensors of the target, or what is left of them, that no weight fills, with
        their constant.
    layers : path of a layer in the source -> path in the target, for all that have a name there.
    trainable : target tensors that a gradient moves.
    """

    entries: tuple[Entry, ...]
    shapes: Mapping[str, tuple[int, ...]]
    derived: Mapping[str, float] = field(default_factory=dict)
    layers: Mapping[str, str] = field(default_factory=dict)

    @property
    def invertible(self) -> bool:
        """Whether the canonical weights can be read back from the target."""
        return not any(entry.adds for entry in self.entries)

    def require_bijective(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise unless every entry of every tensor goes to one place, and every place is filled.

        Parameters
        ----------
        shapes : of the canonical tensors, all of them.
        """
        unknown_source = sorted({entry.source for entry in self.entries} - set(shapes))
        if unknown_source:
            raise SpecError(f"the map moves {_listed(unknown_source)}, which the bundle does not have.")
        taken = {name: np.zeros(shape, np.int8) for name, shape in shapes.items()}
        filled = {name: np.zeros(shape, np.int8) for name, shape in self.shapes.items()}
        for entry in self.entries:
            if entry.target not in filled:
                raise SpecError(f"the map moves {entry.source!r} to {entry.target!r}, which the target does not have.")
            taken[entry.source][_index(entry.take)] += 1
            expected = entry.forward(np.broadcast_to(np.int8(0), shapes[entry.source])).shape
            got = filled[entry.target][_index(entry.put)].shape
            if expected != got:
                raise SpecError(f"{entry.source!r} has shape {expected} when it comes to {entry.target!r}: {got}.")
            filled[entry.target][_index(entry.put)] += 1
        lost = [name for name, count in taken.items() if (count == 0).any()]
        if lost:
            raise SpecError(f"the map does not move {_listed(lost)}.")
        twice = [name for name, count in taken.items() if (count > 1).any()]
        if twice:
            raise SpecError(f"the map moves {_listed(twice)} twice.")
        empty = [n for n, count in filled.items() if (count == 0).any() and n not in self.derived]
        if empty:
            raise SpecError(f"nothing fills {_listed(empty)} of the target.")
        adding = {entry.target for entry in self.entries if entry.adds}
        double = [n for n, count in filled.items() if (count > 1).any() and n not in adding]
        if double:
            raise SpecError(f"two weights go to the same place of {_listed(double)}.")

    def to_target(self, canonical: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the tensors of the target, by name."""
        dtypes = {entry.target: canonical[entry.source].dtype for entry in self.entries}
        found = {
            name: np.full(shape, self.derived.get(name, 0.0), dtypes.get(name, np.float32))
            for name, shape in self.shapes.items()
        }
        for entry in self.entries:
            if entry.adds:
                found[entry.target][_index(entry.put)] += entry.forward(canonical[entry.source])
            else:
                found[entry.target][_index(entry.put)] = entry.forward(canonical[entry.source])
        return found

    def to_canonical(
        self, target: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, np.ndarray]:
        """Return the canonical tensors, by name, that tensors of the target hold.

        Where several weights add up in one place each of them is given the whole: this is
        right for gradients and wrong for weights, so `invertible` is to be asked first.
        """
        found: dict[str, np.ndarray] = {}
        for entry in self.entries:
            if entry.target not in target:
                continue
            whole = shapes[entry.source]
            cut = np.broadcast_to(np.int8(0), whole)[_index(entry.take)].shape
            block = entry.backward(target[entry.target], cut)
            into = found.setdefault(entry.source, np.zeros(whole, block.dtype))
            into[_index(entry.take)] = block
        return found

    def to_document(self) -> dict[str, Any]:
        """Return the map as JSON."""
        return {
            "entries": [
                {
                    "source": entry.source,
                    "target": entry.target,
                    "steps": [[name, list(numbers)] for name, numbers in entry.steps],
                    "take": [list(cut) for cut in entry.take],
                    "put": [list(cut) for cut in entry.put],
                    "adds": entry.adds,
                }
                for entry in self.entries
            ],
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "derived": dict(self.derived),
            "layers": dict(self.layers),
            "invertible": self.invertible,
        }

    @classmethod
    def from_document(cls, document: Any) -> "WeightMap":
        """Return the map that a document holds.

        Raises
        ------
        SpecError: it is none.
        """
        try:
            entries = tuple(_entry(each) for each in document["entries"])
            shapes = {str(name): tuple(map(_whole, shape)) for name, shape in document["shapes"].items()}
            derived = {str(name): float(number) for name, number in document["derived"].items()}
            layers = {str(path): str(to) for path, to in document["layers"].items()}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise SpecError(f"not a map of weights: {type(error).__name__}: {error}.") from None
        return cls(entries, shapes, derived, layers)


def digest(array: np.ndarray) -> str:
    """Return the SHA-256 of an array: of its dtype, shape and bytes, little-endian and in C order."""
    flat = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return hashlib.sha256(f"{array.dtype.name}{array.shape}".encode() + flat.tobytes()).hexdigest()


def _run(steps: Iterable[Step], array: np.ndarray) -> np.ndarray:
    for name, numbers in steps:
        if name == "transpose":
            array = array.transpose(numbers)
        elif name == "reshape":
            array = array.reshape(numbers)
        elif name == "flip":
            array = np.flip(array, numbers)
        else:
            blocks = np.split(array, len(numbers), axis=-1)
            array = np.concatenate([blocks[position] for position in numbers], axis=-1)
    return array


def _index(block: Block) -> tuple[slice, ...]:
    cuts = {axis: slice(start, stop) for axis, start, stop in block}
    return tuple(cuts.get(axis, slice(None)) for axis in range(max(cuts, default=-1) + 1))


def _entry(document: Mapping[str, Any]) -> Entry:
    steps = tuple((str(name), tuple(map(_whole, numbers))) for name, numbers in document["steps"])
    for name, _ in steps:
        if name not in STEPS:
            raise unknown("step of a map", name, STEPS)
    take, put = (
        tuple((_whole(axis), _whole(start), _whole(stop)) for axis, start, stop in document[key])
        for key in ("take", "put")
    )
    return Entry(str(document["source"]), str(document["target"]), steps, take, put, bool(document["adds"]))


def _whole(given: Any) -> int:
    if not isinstance(given, int) or isinstance(given, bool):
        raise SpecError(f"a map of weights holds {shown(given)} where a whole number is meant.")
    return given


def _listed(names: list[str], limit: int = 6) -> str:
    return ", ".join(map(repr, names[:limit])) + (f" and {len(names) - limit} more" if len(names) > limit else "")
