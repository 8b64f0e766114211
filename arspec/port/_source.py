"""What every writer of source code shares: names, variables, models inside, and the result.

A writer of a framework derives from `ModuleWriter` and says, kind by kind, what a layer's
constructor and its call look like and where its weights go; this module turns a graph into
a class per model, with the names of the source.
"""

import builtins
import keyword
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from arspec._errors import SpecError, UnsupportedError
from arspec.port._bundle import Bundle, PortedSite
from arspec.port._graph import Graph, Input, Node, Shape, split_reference
from arspec.port._kinds import Kind
from arspec.port._mapping import Block, Entry, Step, WeightMap

LAST = "channels_last"
FIRST = "channels_first"


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor in the code: an expression, its canonical shape without the batch, its layout."""

    text: str
    shape: Shape
    layout: str = LAST


@dataclass(frozen=True, slots=True)
class Place:
    """Where something of the source stands in the target: a path, and the layout of its result."""

    path: str
    layout: str = LAST


@dataclass(frozen=True, slots=True)
class Written:
    """A target: its source code and everything a check needs to know about it.

    Attributes
    ----------
    framework : "torch", "nnx", "equinox" or "keras".
    text : the source code.
    class_name : the class of the whole model in it.
    weights : where every weight goes.
    inputs, outputs : the layout of each.
    sites : for each site of the bundle, layer and placement in the target.
    site_layouts : layout of the tensor of each site.
    traced : path of a layer in the source -> where its result can be seen in the target.
    notes : what is not as in the source, for people.
    """

    framework: str
    text: str
    class_name: str
    weights: WeightMap
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sites: tuple[tuple[str, str], ...]
    site_layouts: tuple[str, ...]
    traced: Mapping[str, Place]
    notes: tuple[str, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """Return all but the source code as JSON."""
        return {
            "arspec_map": 1,
            "framework": self.framework,
            "class": self.class_name,
            "weights": self.weights.to_document(),
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "sites": [list(site) for site in self.sites],
            "site_layouts": list(self.site_layouts),
            "traced": {path: [place.path, place.layout] for path, place in self.traced.items()},
            "notes": list(self.notes),
        }

    @classmethod
    def from_document(cls, document: Any) -> "Written":
        """Return what a document holds, without source code.

        Raises
        ------
        SpecError: it is none.
        """
        if not isinstance(document, dict) or document.get("arspec_map") != 1:
            raise SpecError("not a map of arspec.")
        try:
            return cls(
                str(document["framework"]),
                "",
                str(document["class"]),
                WeightMap.from_document(document["weights"]),
                tuple(map(str, document["inputs"])),
                tuple(map(str, document["outputs"])),
                tuple((str(layer), str(placement)) for layer, placement in document["sites"]),
                tuple(map(str, document["site_layouts"])),
                {str(path): Place(str(to), str(layout)) for path, (to, layout) in document["traced"].items()},
                tuple(map(str, document["notes"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SpecError(f"not a map of arspec: {type(error).__name__}: {error}.") from None


@dataclass(slots=True)
class Scope:
    """One class that is being written.

    Attributes
    ----------
    attributes : lines of its constructor; calls : lines of its forward pass.
    """

    graph: Graph
    source: str
    target: str
    class_name: str
    attributes: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)  # layer -> attribute
    uses: Counter[str] = field(default_factory=Counter)  # result -> how often it is read

    def __post_init__(self) -> None:
        read = [each for node in self.graph.nodes for each in node.inputs if isinstance(each, str)]
        self.uses.update(_first(each) for each in (*read, *self.graph.outputs))


class ModuleWriter(ABC):
    """Turns the graph of a bundle into one file of source code."""

    framework: str
    separator = "."  # between the parts of a path in a weight's name

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.shapes = bundle.shapes
        self.entries: list[Entry] = []
        self.target_shapes: dict[str, tuple[int, ...]] = {}
        self.derived: dict[str, float] = {}
        self.layers: dict[str, Place] = {}  # source layer -> where its weights and activations are
        self.traced: dict[str, Place] = {}
        self.placed: dict[tuple[str, str], tuple[str, str, str]] = {}  # (layer, placement) -> target, and layout
        self.helpers: dict[str, None] = {}
        self.notes: list[str] = []
        self.classes: list[str] = []
        self.scope: Any = None
        self._class_names: set[str] = set()
        self.wanted = {site.layer for site in bundle.sites if site.placement == "output"}

    # What a framework says.

    @abstractmethod
    def layer(self, node: Node, path: str, arguments: Sequence[Value]) -> Value | tuple[Value, ...]:
        """Write one layer: its constructor (`self.attribute`), its weights (`self.weight`), and return its result."""

    @abstractmethod
    def class_text(self, scope: Scope, inputs: Sequence[Value], outputs: Sequence[Value]) -> str:
        """Return the source code of a class."""

    @abstractmethod
    def file_text(self, classes: Sequence[str], class_name: str) -> str:
        """Return the source code of the file."""

    @abstractmethod
    def convert(self, value: Value, layout: str) -> Value:
        """Return a value in another layout."""

    def boundary(self, shape: Shape) -> str:
        """Return the layout that inputs and outputs of this shape have in the target."""
        return LAST

    # What all share.

    def write(self) -> Written:
        """Return the target."""
        graph = self.bundle.graph
        name, inputs, outputs = self._model(graph, "", "")
        text = self.file_text(self.classes, name)
        sites, layouts = self._sites()
        weights = WeightMap(
            tuple(self.entries),
            self.target_shapes,
            self.derived,
            {source: place.path for source, place in self.layers.items()},
        )
        weights.require_bijective(self.shapes)
        return Written(
            self.framework, text, name, weights, inputs, outputs, sites, layouts, self.traced, tuple(self.notes)
        )

    def _model(self, graph: Graph, source: str, target: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        outer, scope = self.scope, Scope(graph, source, target, self._class_name(graph.name))
        self.scope = scope
        scope.taken |= {"self", "x", *keyword.kwlist, *dir(builtins), *self.reserved()}
        inputs = [self._input(one) for one in graph.inputs]
        following = (*graph.nodes[1:], None)
        for node, after in zip(graph.nodes, following, strict=True):
            self._node(node, after)
        outputs = [self.convert(v, self.boundary(v.shape)) for v in map(self._value, graph.outputs)]
        self.classes.append(self.class_text(scope, inputs, outputs))
        self.scope = outer
        return scope.class_name, tuple(v.layout for v in inputs), tuple(v.layout for v in outputs)

    def reserved(self) -> set[str]:
        """Return names that the framework or the file needs for itself."""
        return set()

    def _input(self, one: Input) -> Value:
        name = self.identifier("inputs" if one.name == "x" else one.name)  # x is what a chain of calls is called
        value = Value(name, one.shape, self.boundary(one.shape))
        self.scope.values[one.name] = value
        return value

    def _value(self, reference: str) -> Value:
        return self.scope.values[reference]

    def _node(self, node: Node, after: Node | None) -> None:
        scope = self.scope
        path = f"{scope.source}{node.name}"
        arguments = [self._value(each) if isinstance(each, str) else Value(repr(each), ()) for each in node.inputs]
        if isinstance(node.layer, Graph):
            results: Any = self._inside(node, path, arguments)
        else:
            results = self.layer(node, path, arguments)
        results = results if isinstance(results, tuple) else (results,)
        if path in self.wanted and (path, "output") not in self.placed and node.call == 0:
            results = (self._tapped(node, path, results[0]), *results[1:])
        self._assign(node, results, self._only_reads(node, after))

    def _inside(self, node: Node, path: str, arguments: Sequence[Value]) -> tuple[Value, ...]:
        graph: Any = node.layer
        given = [self.convert(v, self.boundary(v.shape)) for v in arguments]
        if node.call == 0:
            attribute = self.name_layer(node)
            name, _, _ = self._model(graph, path + "/", self.path_of(attribute) + self.separator)
            self.scope.attributes.append(f"self.{attribute} = {self.construct(name)}")
            self.layers[path] = Place(self.path_of(attribute))
        call = f"self.{self.scope.names[node.name]}({', '.join(v.text for v in given)})"
        shapes = node.shapes
        if len(shapes) == 1:
            return (Value(call, shapes[0], self.boundary(shapes[0])),)
        return tuple(Value(f"{call}[{i}]", shape, self.boundary(shape)) for i, shape in enumerate(shapes))

    def construct(self, class_name: str) -> str:
        """Return the expression that makes a model inside."""
        return f"{class_name}()"

    def _tapped(self, node: Node, path: str, value: Value) -> Value:
        """Give a result that no module returns a module, so that a rule can name it."""
        attribute = self.name_layer(node) + ("_output" if path in self.layers else "")
        self.attribute(attribute, self.identity())
        self.place(path, "output", self.path_of(attribute), "output", value.layout)
        self.traced[path] = Place(self.path_of(attribute), value.layout)
        return Value(f"self.{attribute}({value.text})", value.shape, value.layout)

    @abstractmethod
    def identity(self) -> str:
        """Return the constructor of a module that gives what it is given."""

    def _assign(self, node: Node, results: Sequence[Value], chained: bool) -> None:
        scope = self.scope
        for index, value in enumerate(results):
            reference = node.id if index == 0 else f"{node.id}:{index}"
            if not scope.uses[reference]:
                continue
            name = "x" if chained and index == 0 else self.identifier(reference.replace(":", "_").replace("@", "_"))
            scope.calls.append(f"{name} = {value.text}")
            scope.values[reference] = Value(name, value.shape, value.layout)

    def _only_reads(self, node: Node, after: Node | None) -> bool:
        """Return whether nobody but the node after this one, or the output after the last, reads it."""
        read = self.scope.graph.outputs if after is None else after.inputs
        own = read.count(node.id)
        return own >= 1 and self.scope.uses[node.id] == own and (after is not None or len(read) == 1)

    # For writers.

    def identifier(self, name: str) -> str:
        """Return a name for Python, unlike all others of the class."""
        text = re.sub(r"\W", "_", name.rpartition("/")[2])
        text = f"layer_{text}" if not text or text[0].isdigit() else text
        found, number = text, 2
        while found in self.scope.taken:
            found, number = f"{text}_{number}", number + 1
        self.scope.taken.add(found)
        return found

    def name_layer(self, node: Node) -> str:
        """Return the attribute for a layer, made at its first run."""
        names = self.scope.names
        if node.name not in names:
            text = re.sub(r"\W", "_", node.name)
            text = (
                f"layer_{text}" if text[0].isdigit() or keyword.iskeyword(text) or text in self.attributes() else text
            )
            while text in names.values():
                text += "_"
            names[node.name] = text
        return names[node.name]

    def attributes(self) -> set[str]:
        """Return names that a module of the framework has already."""
        return set()

    def path_of(self, attribute: str) -> str:
        """Return the path of an attribute of the class that is being written, from the whole model."""
        return self.scope.target + attribute

    def attribute(self, name: str, constructor: str) -> None:
        """Add a line to the constructor, unless it is there."""
        line = f"self.{name} = {constructor}"
        if line not in self.scope.attributes:
            self.scope.attributes.append(line)

    def weight(
        self,
        path: str,
        role: str,
        target: str,
        shape: tuple[int, ...],
        *steps: Step,
        take: Block = (),
        put: Block = (),
        adds: bool = False,
    ) -> None:
        """Say where a weight goes."""
        self.entries.append(Entry(f"{path}/{role}", target, steps, take, put, adds))
        self.target_shapes[target] = shape

    def shape_of(self, path: str, role: str) -> tuple[int, ...]:
        """Return the shape of a weight."""
        return self.shapes[f"{path}/{role}"]

    def place(self, path: str, placement: str, target: str, as_placement: str, layout: str = LAST) -> None:
        """Say what a placement of a layer is called in the target."""
        self.placed[path, placement] = (target, as_placement, layout)

    def helper(self, name: str) -> None:
        """Ask for a helper class or function in the file."""
        self.helpers[name] = None

    def refuse(self, path: str, what: str, cure: str) -> UnsupportedError:
        """Build the error for something the target framework cannot represent."""
        return UnsupportedError(f"{path!r}: {what} has no exact counterpart in {self.framework}. {cure}")

    def _sites(self) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
        found = [self._site(site) for site in self.bundle.sites]
        return tuple((layer, placement) for layer, placement, _ in found), tuple(layout for _, _, layout in found)

    def _site(self, site: PortedSite) -> tuple[str, str, str]:
        placed = self.placed.get((site.layer, site.placement))
        if placed is None:
            raise UnsupportedError(
                f"{site.key}: the layer {site.layer!r} has no {site.placement!r} that can be seen in {self.framework}. "
                "Name another placement, such as the output of the layer before."
            )
        return placed

    def _class_name(self, name: str) -> str:
        text = "".join(part[:1].upper() + part[1:] for part in re.split(r"[\W_]+", name)) or "Model"
        text = f"Model{text}" if text[0].isdigit() or keyword.iskeyword(text) else text
        found, number = text, 2
        while found in self._class_names:
            found, number = f"{text}{number}", number + 1
        self._class_names.add(found)
        return found


def _first(reference: str) -> str:
    name, position = split_reference(reference)
    return name if position == 0 else f"{name}:{position}"


def formatted(text: str) -> str:
    """Return source code in the layout of `black`, with lines of at most 100 characters."""
    try:
        import black
    except ImportError:
        raise SpecError(
            "writing source code needs black, not installed here. Try: pip install 'arspec[port]'"
        ) from None
    return black.format_str(text, mode=black.Mode(line_length=100))


def same_padding(size: int | None, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int] | None:
    """Return the padding (before, after) of "same" along one axis, None if it depends on an unknown size.

    max((⌈size / stride⌉ − 1)·stride + (kernel − 1)·dilation + 1 − size, 0), the odd one after.
    """
    reach = (kernel - 1) * dilation + 1
    if stride == 1:
        total = reach - 1
    elif size is None:
        return None
    else:
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def require_kind(node: Node) -> Kind:
    """Return what a node computes, which is no model."""
    if isinstance(node.layer, Graph):
        raise SpecError(f"{node.name!r} is a model.")
    return node.layer
