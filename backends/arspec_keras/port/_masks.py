"""Masks of a Keras model, which Keras hands on beside its tensors, as values of the graph.

A mask begins at an Embedding(mask_zero) or a Masking; layers hand it on, use it, or drop it.
A functional model has the operations that compute masks as nodes of its own where a layer
uses one: they are understood here and not ported one by one.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from arspec.port import _kinds as kinds
from arspec.port._graph import Graph, Input, Node
from arspec.port._kinds import refuse

L = keras.layers
_ANY_OF_ALL = (L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum)
_CURE = "Apply it where no mask arrives, or give the layer what it needs of the mask as an input."


@dataclass(frozen=True, slots=True)
class Mask:
    """True where the value of a reference is not `value`, in any feature if `feature`; `shape` is the mask's."""

    reference: str
    value: float
    feature: bool
    shape: tuple[int | None, ...]


class Masks:
    """Which mask each value of one graph has, while its nodes are read in the order of running."""

    def __init__(self, prefix: str, taken: Iterable[str]) -> None:
        self._prefix = prefix
        self._taken = set(taken)
        self._of: dict[str, Mask | None] = {}  # reference -> mask that travels with it
        self._made: dict[str, Mask | str] = {}  # reference of an operation -> the mask, or why it is none we know
        self._nodes: dict[Mask, str] = {}
        self.sites: dict[tuple[str, str], str] = {}  # (path, "input", "output" or "steps") -> path of the mask
        self.paddings: dict[str, float] = {}  # reference -> the value that is padding

    def is_operation(self, call: Any) -> bool:
        """Understand an operation that computes a mask; return False for everything else."""
        operation = call.operation
        if isinstance(operation, keras.Layer) or not _is_boolean(operation):
            return False
        self._made[_id(call)] = self._understood(operation, call)
        return True

    def _understood(self, operation: Any, call: Any) -> Mask | str:
        name, inputs = type(operation).__name__, call.inputs
        if name == "NotEqual" and len(inputs) == 2 and isinstance(inputs[0], str) and isinstance(inputs[1], float):
            return Mask(inputs[0], inputs[1], False, call.shapes[0])
        held = [self._made.get(each, "") if isinstance(each, str) else "" for each in inputs]
        first = held[0] if held else ""
        if isinstance(first, Mask):
            if name == "Any" and _one(operation.axis) in (-1, len(first.shape)) and not operation.keepdims:
                return Mask(first.reference, first.value, True, first.shape[:-1])
            if name in ("LogicalOr", "LogicalAnd") and held == [first, first]:
                return first
        return f"the operation {name}"

    def read(self, call: Any, node: Node) -> Iterator[Node]:
        """Return a node with the masks it uses among its inputs, after the nodes that compute them."""
        path = self._prefix + node.name
        boolean = [each for each in node.inputs if each in self._made]
        if boolean:
            raise refuse(path, f"an input computed by {_named(self._made[str(boolean[0])])}", "Compute with numbers.")
        given = [self._of.get(each) for each in node.inputs if isinstance(each, str)]
        explicit = self._explicit(call, path)
        if isinstance(node.layer, Graph):
            if any(given):
                raise refuse(path, "a mask that arrives at a model inside", "Put its layers into the outer model.")
            yield node
            return
        kind, used, after = self._passed(call, node, path, given, explicit)
        for mask in used:
            yield from self._node_of(mask, path)
        yield replace(node, layer=kind, inputs=(*node.inputs, *(self._nodes[mask] for mask in used)))
        self._of[node.id] = after
        if node.call == 0:
            arrives = explicit or (given[0] if given else None)
            inside = used[0] if used else None
            for end, mask in (("input", arrives), ("output", after), ("steps", inside)):
                if mask is not None:
                    yield from self._node_of(mask, path)
                    self.sites[path, end] = self._prefix + self._nodes[mask]

    def _explicit(self, call: Any, path: str) -> Mask | None:
        if call.mask is None:
            return None
        found = self._made.get(call.mask, "an input")
        if isinstance(found, str):
            raise refuse(path, f"a mask that is {found}", "Use Embedding(mask_zero=True) or Masking.")
        return found

    def _passed(
        self, call: Any, node: Node, path: str, given: list[Mask | None], explicit: Mask | None
    ) -> tuple[Any, list[Mask], Mask | None]:
        """Return the kind of a layer, the masks that it uses, and the one that its output has."""
        kind: Any = node.layer
        tensors = [each for each in node.inputs if isinstance(each, str)]
        first = explicit or (given[0] if len(tensors) == 1 else None)
        if isinstance(kind, kinds.Embedding):
            return kind, [], Mask(tensors[0], 0.0, False, call.input_shapes[0]) if kind.mask_zero else None
        if isinstance(kind, kinds.Masking):
            mask = Mask(tensors[0], float(call.operation.mask_value), True, call.input_shapes[0][:-1])
            return kind, [mask], mask
        if isinstance(kind, kinds.Bidirectional) and first:
            inner: Any = replace(kind.layer, masked=True)
            return replace(kind, layer=inner), [first], first if inner.return_sequences else None
        if isinstance(kind, kinds.Recurrent) and first:
            return replace(kind, masked=True), [first], first if kind.return_sequences else None
        if isinstance(kind, kinds.GlobalPooling) and kind.mode == "average" and first and len(first.shape) == 1:
            return kinds.MaskedAverage(kind.keep), [first], None
        if isinstance(kind, kinds.MultiHeadAttention) and explicit is None:
            self._of.update(dict.fromkeys(tensors))  # Keras takes the masks off what it attends to
            named = {name: mask for name, mask in zip(("query", "value", "key"), given, strict=False) if mask}
            return replace(kind, masks=tuple(named)), list(named.values()), given[0]
        return kind, [], self._handed_on(call.operation, kind, path, given, explicit)

    def _handed_on(
        self, layer: Any, kind: Any, path: str, given: list[Mask | None], explicit: Mask | None
    ) -> Mask | None:
        known = {mask for mask in (*given, explicit) if mask is not None}
        if not known or not isinstance(layer, keras.Layer):
            return None
        if layer._call_has_mask_arg:
            raise refuse(path, f"a {type(layer).__name__} that is given a mask", _CURE)
        merges = isinstance(layer, (*_ANY_OF_ALL, L.Concatenate))
        if merges and None in given:
            if isinstance(layer, L.Concatenate) and kind.axis != len(next(iter(known)).shape) + 1:
                raise refuse(path, "a mask on some of what is concatenated along time", _CURE)
            return None
        if merges and len(known) == 1 and getattr(kind, "axis", 2) == len(next(iter(known)).shape) + 1:
            return next(iter(known))
        if not layer.supports_masking or isinstance(layer, L.Dot):
            return None
        if type(layer).compute_mask is keras.Layer.compute_mask and len(given) == 1:
            return given[0]
        raise refuse(path, "masks from several places that meet", _CURE)

    def _node_of(self, mask: Mask, path: str) -> Iterator[Node]:
        """Return the node that computes a mask, the first time it is needed."""
        if mask in self._nodes:
            return
        if len(mask.shape) != 1:
            raise refuse(path, f"a mask of shape {mask.shape} per example", "Mask steps of one time axis.")
        if self.paddings.setdefault(mask.reference, mask.value) != mask.value:
            raise refuse(path, f"two masks of {mask.reference!r}", "Take one value for padding.")
        name = f"{mask.reference}_mask".replace(":", "_").replace("@", "_")
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        self._nodes[mask] = name
        yield Node(name, kinds.PaddingMask(mask.value, mask.feature), (mask.reference,), (mask.shape,))

    def require_inside(self, outputs: Iterable[str]) -> None:
        """Refuse a model inside another whose outputs have masks."""
        if self._prefix and any(self._of.get(each) for each in outputs):
            raise refuse(self._prefix[:-1], "a model inside that hands on a mask", "Put its layers into the outer one.")

    def all_paddings(self, nodes: Iterable[Node], inputs: Iterable[str]) -> dict[str, float]:
        """Return which inputs are padded with what, here or inside; refuse a mask that no probe could reach."""
        found = dict(self.paddings)
        for node in nodes:
            for reference, one in zip(node.inputs, _inner_inputs(node), strict=False):
                if one.padding is not None and found.setdefault(str(reference), one.padding) != one.padding:
                    raise refuse(self._prefix + node.name, "another padding than outside", "Take one value for it.")
        for reference in set(found) - set(inputs):
            raise refuse(self._prefix + reference, "a mask of a computed tensor", "Mask an input of the model.")
        return found


def without_unused(graph: Graph, wanted: Collection[str], prefix: str = "") -> Graph:
    """Return a graph without the masks that no layer reads and no rule needs."""
    read = {each for node in graph.nodes for each in node.inputs}
    nodes = [
        replace(node, layer=without_unused(node.layer, wanted, f"{prefix}{node.name}/"))
        if isinstance(node.layer, Graph)
        else node
        for node in graph.nodes
        if not isinstance(node.layer, kinds.PaddingMask) or node.name in read or prefix + node.name in wanted
    ]
    return replace(graph, nodes=tuple(nodes))


def _inner_inputs(node: Node) -> Sequence[Input]:
    return node.layer.inputs if isinstance(node.layer, Graph) else ()


def _is_boolean(operation: Any) -> bool:
    output = operation.output
    return hasattr(output, "dtype") and keras.backend.standardize_dtype(output.dtype) == "bool"


def _one(axis: Any) -> Any:
    return axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis


def _id(call: Any) -> str:
    return call.operation.name + (f"@{call.call}" if call.call else "")


def _named(made: Mask | str) -> str:
    return "a comparison" if isinstance(made, Mask) else made
