"""Graph: a model as nodes, in the order in which they run. It holds no numbers and no code."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from arspec._errors import SpecError, shown
from arspec.port._kinds import Kind, kind_from_document, kind_to_document

Shape = tuple[int | None, ...]
Reference = str | float  # "name" or "name:1" for the second result of a node; a number stands for itself


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a model: name, shape without the batch (None where it may vary), dtype.

    `limit` is the number of rows of the embedding that reads it, for integers; `padding` is
    the value that a `PaddingMask` of it takes for padding.
    """

    name: str
    shape: Shape
    dtype: str = "float32"
    limit: int | None = None
    padding: float | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """One layer where it runs.

    Attributes
    ----------
    name : name of the layer, unique among the layers; a layer that runs several times gives
        several nodes with the same name, `layer` tells them apart by `call`.
    layer : what it computes: a `Kind`, or a `Graph` for a model inside.
    inputs : where its inputs come from.
    shapes : shape of each result, channels-last, without the batch.
    call : 0 for the first run of the layer.
    frozen : the roles of its weights that do not train.
    """

    name: str
    layer: "Kind | Graph"
    inputs: tuple[Reference, ...]
    shapes: tuple[Shape, ...]
    call: int = 0
    frozen: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The name by which other nodes refer to this one."""
        return self.name if self.call == 0 else f"{self.name}@{self.call}"


@dataclass(frozen=True, slots=True)
class Graph:
    """A model: inputs, nodes in the order of running, and where the outputs come from."""

    name: str
    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        known = {one.name: 1 for one in self.inputs}
        if len(known) != len(self.inputs):
            raise SpecError(f"graph {self.name!r}: two inputs have the same name.")
        for node in self.nodes:
            for reference in node.inputs:
                self._require(reference, known, node.id)
            if node.id in known:
                raise SpecError(f"graph {self.name!r}: two nodes are called {node.id!r}.")
            known[node.id] = len(node.shapes)
        for reference in self.outputs:
            self._require(reference, known, "the output")

    def _require(self, reference: Reference, known: Mapping[str, int], who: str) -> None:
        if isinstance(reference, str):
            name, position = split_reference(reference)
            if position >= known.get(name, 0):
                raise SpecError(f"graph {self.name!r}: {who} reads {reference!r}, which nothing before it gives.")

    def weights(self) -> Iterator[tuple[str, Node, str]]:
        """Return path, node and role of every weight, once each, models inside included.

        The path is "layer/role", with the names of the models around it before.
        """
        for path, node in self.walk():
            if node.call == 0 and isinstance(node.layer, Kind):
                for role in node.layer.roles():
                    yield f"{path}/{role}", node, role

    def walk(self) -> Iterator[tuple[str, Node]]:
        """Return path and node for every node, models inside included."""
        for node in self.nodes:
            yield node.name, node
            if isinstance(node.layer, Graph) and node.call == 0:
                for path, inner in node.layer.walk():
                    yield f"{node.name}/{path}", inner

    def to_document(self) -> dict[str, Any]:
        """Return the graph as JSON."""
        return {
            "name": self.name,
            "inputs": [
                {
                    "name": one.name,
                    "shape": list(one.shape),
                    "dtype": one.dtype,
                    "limit": one.limit,
                    "padding": one.padding,
                }
                for one in self.inputs
            ],
            "nodes": [_node_to_document(node) for node in self.nodes],
            "outputs": list(self.outputs),
        }

    @classmethod
    def from_document(cls, document: Any) -> "Graph":
        """Return the graph that a document holds.

        Raises
        ------
        SpecError: a part is missing, unknown or of another type, or a node reads what no
            earlier one gives.
        """
        held = _object(document, "a graph", ("name", "inputs", "nodes", "outputs"))
        name = require_name(held["name"])
        inputs = tuple(_input_from_document(each) for each in _list(held["inputs"], f"{name}.inputs"))
        nodes = tuple(_node_from_document(each) for each in _list(held["nodes"], f"{name}.nodes"))
        outputs = tuple(_reference(each, f"{name}.outputs") for each in _list(held["outputs"], f"{name}.outputs"))
        if not all(isinstance(each, str) for each in outputs):
            raise SpecError(f"graph {name!r}: an output is a number; expected the name of a node.")
        return cls(name, inputs, nodes, tuple(map(str, outputs)))


def split_reference(reference: str) -> tuple[str, int]:
    """Return the id of a node and which of its results is meant."""
    name, _, position = reference.partition(":")
    return name, int(position) if position else 0


def require_name(given: Any) -> str:
    """Return a name made of letters, digits, "_", "-", "." and single "/", or raise SpecError."""
    parts = given.split("/") if isinstance(given, str) and len(given) <= 300 else [""]
    if not all(re.fullmatch(r"[\w.\-]+", part) and part.strip(".") for part in parts):
        raise SpecError(f"name {shown(given)}; expected letters, digits, '_', '-', '.', and '/' between parts.")
    return given


def _node_to_document(node: Node) -> dict[str, Any]:
    inner = node.layer.to_document() if isinstance(node.layer, Graph) else kind_to_document(node.layer)
    return {
        "name": node.name,
        "graph" if isinstance(node.layer, Graph) else "layer": inner,
        "inputs": list(node.inputs),
        "shapes": [list(shape) for shape in node.shapes],
        "call": node.call,
        "frozen": list(node.frozen),
    }


def _node_from_document(document: Any) -> Node:
    kind = "graph" if isinstance(document, dict) and "graph" in document else "layer"
    held = _object(document, "a node", ("name", kind, "inputs", "shapes", "call", "frozen"))
    name = require_name(held["name"])
    layer = Graph.from_document(held["graph"]) if kind == "graph" else kind_from_document(held["layer"])
    inputs = tuple(_reference(each, name) for each in _list(held["inputs"], f"{name}.inputs"))
    shapes = tuple(_shape(each, name) for each in _list(held["shapes"], f"{name}.shapes"))
    frozen = tuple(require_name(each) for each in _list(held["frozen"], f"{name}.frozen"))
    return Node(name, layer, inputs, shapes, _count(held["call"], f"{name}.call"), frozen)


def _input_from_document(document: Any) -> Input:
    held = _object(document, "an input", ("name", "shape", "dtype", "limit", "padding"))
    name = require_name(held["name"])
    if held["dtype"] not in ("float32", "int32"):
        raise SpecError(f"input {name!r} has dtype {shown(held['dtype'])}; expected 'float32' or 'int32'.")
    limit = None if held["limit"] is None else _count(held["limit"], f"{name}.limit")
    padding = held["padding"]
    if padding is not None and (not isinstance(padding, int | float) or isinstance(padding, bool)):
        raise SpecError(f"input {name!r} has padding {shown(padding)}; expected a number or null.")
    return Input(name, _shape(held["shape"], name), held["dtype"], limit, None if padding is None else float(padding))


def _object(document: Any, who: str, names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(document, dict) or set(document) != set(names):
        got = sorted(map(str, document)) if isinstance(document, dict) else shown(document)
        raise SpecError(f"{who} is {shown(got)}; expected an object with {', '.join(names)}.")
    return document


def _list(given: Any, who: str) -> list[Any]:
    if not isinstance(given, list):
        raise SpecError(f"{who} is {shown(given)}; expected a list.")
    return given


def _shape(given: Any, who: str) -> Shape:
    return tuple(None if size is None else _count(size, f"{who}: shape") for size in _list(given, f"{who}: shape"))


def _count(given: Any, who: str) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or given < 0:
        raise SpecError(f"{who} is {shown(given)}; expected a whole number >= 0.")
    return given


def _reference(given: Any, who: str) -> Reference:
    if isinstance(given, str) and re.fullmatch(r"[^:]+(:\d{1,4})?", given):
        return given
    if isinstance(given, int | float) and not isinstance(given, bool):
        return float(given)
    raise SpecError(f"{who} reads {shown(given)}; expected the name of a node, or a number.")
