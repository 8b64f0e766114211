"""A model that exists, as the list of its layers with weights: what a transfer reads and fills.

Each framework lists its own layers (`arspec_torch.port.layers`, ...); the weights are in the
canonical layout whoever lists them, and `Entry` says where each one is in the framework.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import numpy as np

from arspec._errors import SpecError, UnsupportedError, shown
from arspec._sites import Layer, names_layer
from arspec._table import aligned
from arspec.port._kinds import Kind
from arspec.port._mapping import Block, Entry
from arspec.port._target import require_names

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WeightedLayer:
    """One layer with weights.

    Attributes
    ----------
    path : in the model, with "/" between the parts; the same that a rule names.
    kind : what it computes. A separable convolution is two layers, as are two directions.
    shapes : of the canonical weights, by role.
    entries : where each weight is: `source` is a role, `target` a tensor of the framework.
    unseen : options of the kind that this layer does not say: they are in the model's code.
    absent : parts of a canonical weight that have no place here, and so must be 0.
    more : options that the kind does not have: "biases", which ones a recurrent layer trains, and
        "statistics", by which a batch normalization normalizes in training.
    sums : tensor -> another one that the framework adds to it; it becomes 0.
    frozen : roles that training leaves alone, or None where the framework does not say.
    places : placement -> (layer, placement) that a rule of this framework names, where other
        than the path and the placement itself; a placement with None cannot be named.
    reshaped : roles that a penalty of this framework sees in another shape than the kind has.
    named : whether a person chose the name: "dense_1" and "Dense_1" only count layers.
    """

    path: str
    kind: Kind
    shapes: Mapping[str, Shape]
    entries: tuple[Entry, ...]
    unseen: frozenset[str] = frozenset()
    absent: Mapping[str, Block] = field(default_factory=dict)
    more: Mapping[str, str] = field(default_factory=dict)
    sums: Mapping[str, str] = field(default_factory=dict)
    frozen: frozenset[str] | None = frozenset()
    places: Mapping[str, tuple[str, str] | None] = field(default_factory=dict)
    reshaped: frozenset[str] = frozenset()
    named: bool = True

    def __post_init__(self) -> None:
        taken = {role: np.zeros(shape, np.int8) for role, shape in self.shapes.items()}
        for entry in self.entries:
            taken[entry.source][_cut(entry.take)] += 1
        for role, block in self.absent.items():
            taken[role][_cut(block)] += 1
        wrong = [role for role, count in taken.items() if (count != 1).any()]
        if wrong:
            raise SpecError(f"{self.path!r}: {', '.join(wrong)} does not go to one place each.")

    @property
    def signature(self) -> tuple[str, tuple[tuple[str, Shape], ...]]:
        """What layers must share to be paired: the kind, and the shapes of the weights."""
        return type(self.kind).__name__, tuple(sorted(self.shapes.items()))

    def place(self, placement: str) -> tuple[str, str] | None:
        """Return layer and placement by which a rule names a tensor of this layer, or None."""
        return self.places.get(placement, (self.path, placement))


class Layers(Sequence[WeightedLayer]):
    """The layers with weights of a model, in the order of calls where it is known; prints as a table.

    Parameters
    ----------
    framework : for messages, such as "torch".
    layers : of the model.
    tensors : what the framework holds, by name.
    described : the layers as the adapter's rules meet them; () where a rule is not looked up.
    calls : paths in the order of their first calls, or None where it is not known.
    after : for each path, those whose results it reads, directly or not; None if not known.
    unknown : layers whose weights cannot be described, with the reason.
    dtypes : of tensors that NumPy has in another dtype.
    """

    def __init__(
        self,
        framework: str,
        layers: Iterable[WeightedLayer],
        tensors: Mapping[str, np.ndarray],
        *,
        described: Iterable[Layer] = (),
        calls: Sequence[str] | None = None,
        after: Mapping[str, frozenset[str]] | None = None,
        unknown: Mapping[str, str] | None = None,
        dtypes: Mapping[str, str] | None = None,
    ) -> None:
        listed = tuple(layers)
        _require_unique(framework, [layer.path for layer in listed])
        position = {path: index for index, path in enumerate(calls or ())}
        self._layers = tuple(sorted(listed, key=lambda layer: position.get(layer.path, len(position))))
        self.framework = framework
        self.tensors = dict(tensors)
        self.described = tuple(described)
        self.calls = None if calls is None or {one.path for one in listed} - set(calls) else tuple(calls)
        self.after = after
        self.unknown = dict(unknown or {})
        self._dtypes = dict(dtypes or {})

    def __len__(self) -> int:
        return len(self._layers)

    @overload
    def __getitem__(self, index: int) -> WeightedLayer: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[WeightedLayer, ...]: ...

    def __getitem__(self, index: Any) -> Any:
        return self._layers[index]

    def __repr__(self) -> str:
        rows = [("layer", "kind", "weights", "tensors")]
        for layer in self._layers:
            weights = ", ".join(f"{role} {sizes(shape)}" for role, shape in layer.shapes.items())
            rows.append(
                (
                    layer.path,
                    type(layer.kind).__name__,
                    weights,
                    ", ".join(dict.fromkeys(entry.target for entry in layer.entries)),
                )
            )
        return aligned(rows)

    def only(self, *patterns: str) -> "Layers":
        """Return the layers that paths or globs, as in a rule, name: the others stay as they are.

        Raises
        ------
        SpecError: a pattern names no layer.
        """
        held = [*(layer.path for layer in self._layers), *self.unknown]
        for pattern in patterns:
            if not any(names_layer(pattern, path) for path in held):
                raise SpecError(f"{pattern!r} names no layer with weights; there is {shown(held)}.")
        return self.keep({path for path in held if any(names_layer(pattern, path) for pattern in patterns)})

    def keep(self, paths: Collection[str]) -> "Layers":
        """Return the layers at these paths."""
        return Layers(
            self.framework,
            [layer for layer in self._layers if layer.path in paths],
            self.tensors,
            described=self.described,
            calls=self.calls,
            after=self.after,
            unknown={path: why for path, why in self.unknown.items() if path in paths},
            dtypes=self._dtypes,
        )

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The canonical weights by "layer/role", in the dtype of the model.

        Where the framework has one tensor for the sum of two biases, the first takes it all.
        """
        return {f"{one.path}/{role}": array for one in self._layers for role, array in self._canonical(one).items()}

    def dtype(self, layer: WeightedLayer) -> str:
        """Return the dtype of a layer's weights; several are joined by "+"."""
        names = {entry.target for entry in layer.entries}
        return "+".join(sorted({self._dtypes.get(name, self.tensors[name].dtype.name) for name in names}))

    def tensors_of(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return, by name, the framework's tensors that hold these canonical weights.

        Parameters
        ----------
        weights : by "layer/role": every role of every layer; see `only` for some of them.

        Returns
        -------
        The tensors in the dtypes that the framework has now.

        Raises
        ------
        SpecError: a weight is missing, foreign, or of another shape; or two layers share a
            tensor and are given different ones.
        UnsupportedError: a weight that has no place in the framework is not 0.
        """
        self.require_known()
        expected = {f"{one.path}/{role}": shape for one in self._layers for role, shape in one.shapes.items()}
        require_names(weights, expected, f"weights for {self.framework}")
        found: dict[str, np.ndarray] = {}
        for layer in self._layers:
            _require_absent(layer, weights, self.framework)
            for name, array in self._filled(layer, weights).items():
                if name in found and not np.array_equal(found[name], array):
                    raise SpecError(f"{layer.path!r} shares {name} with another layer, and is given other weights.")
                found[name] = array
        return found

    def require_known(self) -> None:
        """Raise unless the weights of every layer can be described.

        Raises
        ------
        UnsupportedError: names the layers and why.
        """
        if self.unknown:
            listed = "; ".join(f"{path!r}: {why}" for path, why in list(self.unknown.items())[:6])
            raise UnsupportedError(
                f"{self.framework}: {listed} Leave it out by only(...) with the other layers, and move it by hand."
            )

    def _canonical(self, layer: WeightedLayer) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        taken: set[tuple[str, Block]] = set()
        for entry in layer.entries:
            shape = layer.shapes[entry.source]
            held = self._sum(layer, entry.target)
            into = found.setdefault(entry.source, np.zeros(shape, held.dtype))
            if (entry.target, entry.put) not in taken:
                cut = np.broadcast_to(np.int8(0), shape)[_cut(entry.take)].shape
                into[_cut(entry.take)] = entry.backward(held, cut)
            taken.add((entry.target, entry.put))
        return found

    def _sum(self, layer: WeightedLayer, name: str) -> np.ndarray:
        held = self.tensors[name]
        return held + self.tensors[layer.sums[name]] if name in layer.sums else held

    def _filled(self, layer: WeightedLayer, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what the tensors of a layer become; what two weights share is their sum."""
        found = {name: np.zeros_like(self.tensors[name]) for name in layer.sums.values()}
        taken: set[tuple[str, Block]] = set()
        for entry in layer.entries:
            held = self.tensors[entry.target]
            into = found.setdefault(entry.target, np.array(held))
            block = entry.forward(weights[f"{layer.path}/{entry.source}"])
            before = into[_cut(entry.put)] if (entry.target, entry.put) in taken else np.zeros_like(block)
            into[_cut(entry.put)] = (before + block if before.any() else block).astype(held.dtype)
            taken.add((entry.target, entry.put))
        return found


def layers_of(listed: Layers, weights: Mapping[str, np.ndarray]) -> Layers:
    """Return the layers that weights by "layer/role" are for."""
    if not weights:
        raise SpecError("there are no weights to assign.")
    return listed.keep({name.rpartition("/")[0] for name in weights})


def sizes(shape: Shape) -> str:
    """Write a shape as 3×4."""
    return "×".join(map(str, shape)) or "scalar"


def with_names(layer: WeightedLayer, name: Callable[[str], str]) -> WeightedLayer:
    """Return a layer whose tensors, named as the layer knows them, have the names of the model."""
    entries = tuple(replace(entry, target=name(entry.target)) for entry in layer.entries)
    return replace(layer, entries=entries, sums={name(one): name(other) for one, other in layer.sums.items()})


def _cut(block: Block) -> tuple[slice, ...]:
    cuts = {axis: slice(start, stop) for axis, start, stop in block}
    return tuple(cuts.get(axis, slice(None)) for axis in range(max(cuts, default=-1) + 1))


def _require_unique(framework: str, paths: Sequence[str]) -> None:
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise SpecError(f"{framework}: two layers are called {twice[0]!r}. Name them apart.")


def _require_absent(layer: WeightedLayer, weights: Mapping[str, np.ndarray], framework: str) -> None:
    for role, block in layer.absent.items():
        left = weights[f"{layer.path}/{role}"][_cut(block)]
        if left.any():
            raise UnsupportedError(
                f"{layer.path!r}: a {type(layer.kind).__name__} of {framework} has no place for a part of its {role} "
                f"that is not 0 (it reaches {np.abs(left).max():.3g}). Take a cell that has it, such as the one that "
                "`arspec port write` makes."
            )
