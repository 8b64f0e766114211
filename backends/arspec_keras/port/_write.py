"""Writing Keras source code for a bundle: a functional model, with the layer names of the source."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from arspec.port import Bundle, ModuleWriter, Written
from arspec.port._graph import Graph, Node
from arspec.port._kinds import Kind
from arspec.port._source import Place, Scope, Value, formatted, require_kind
from arspec_keras.port._helpers import HELPERS


def write(bundle: Bundle, /) -> Written:
    """Return Keras source code for a bundle, and the map of its weights.

    Returns
    -------
    A `Written`: one file with `build`, which returns a functional model, and `load`, which
    reads the weights that `arspec port write` puts beside it. Layers have the names of the
    source, "_" for "/". Images are (batch, height, width, channel).

    Raises
    ------
    UnsupportedError: a layer or the place of a rule has no exact counterpart; it is named.
    """
    from arspec_keras.port import _emit, _emit_recurrent

    return KerasWriter(bundle, {**_emit.EMITTERS, **_emit_recurrent.EMITTERS}).write()


class KerasWriter(ModuleWriter):
    """A `ModuleWriter` for Keras."""

    framework = "keras"
    separator = "/"

    def __init__(self, bundle: Bundle, emitters: dict[type[Kind], Callable[..., Any]]) -> None:
        super().__init__(bundle)
        self._emitters = emitters

    def write(self) -> Written:
        """Return the target."""
        return replace(super().write(), class_name="build")

    def reserved(self) -> set[str]:
        """Return the names the file imports or defines."""
        return {"keras", "layers", "math", "Any", "Path", "Iterator", "build", "load", "load_file", "named_weights"}

    def convert(self, value: Value, layout: str) -> Value:
        """Everything is channels last already."""
        return Value(value.text, value.shape, layout)

    def identity(self) -> str:
        """Return layers.Identity."""
        return "layers.Identity()"

    def layer(self, node: Node, path: str, arguments: Sequence[Value]) -> Value | tuple[Value, ...]:
        """Write one layer."""
        kind = require_kind(node)
        emit = self._emitters.get(type(kind))
        if emit is None:
            raise self.refuse(path, type(kind).__name__, "Leave it out of the model.")
        return emit(self, kind, node, path, list(arguments))

    # Pieces.

    def layer_name(self, name: str) -> str:
        """Return the name of a layer of the source for Keras, which has no "/" in names."""
        text = name.replace("/", "_")
        return text if re.match(r"[A-Za-z0-9]", text) else f"layer{text}"

    def keras_layer(
        self, node: Node, path: str, head: str, arguments: Sequence[Value], weights: dict[str, str] | None = None
    ) -> str:
        """Return the expression of a layer that is called.

        Parameters
        ----------
        head : the constructor without its end, such as "layers.Dense(3".
        weights : role to the rest of the variable's path, such as "query/kernel".
        """
        name = self.layer_name(node.name)
        if node.call == 0:
            self._locate(node, path, name, weights or {})
        options = [head, "trainable=False"] if self._is_frozen(node, path) else [head]
        separator = "" if head.endswith("(") else ", "
        constructor = f"{', '.join(options)}{separator}name={name!r})"
        if sum(each.name == node.name for each in self.scope.graph.nodes) > 1:
            constructor = self._shared(node, constructor)
        given = arguments[0].text if len(arguments) == 1 else f"[{', '.join(v.text for v in arguments)}]"
        return f"{constructor}({given})"

    def _locate(self, node: Node, path: str, name: str, weights: dict[str, str]) -> None:
        target = self.path_of(name)
        self.layers[path] = self.traced[path] = Place(target)
        for placement in ("input", "output"):
            self.place(path, placement, target, placement)
        for role, tail in weights.items():
            self.weight(path, role, f"{target}/{tail}", self.shape_of(path, role))
            self.place(path, role, target, role)

    def _shared(self, node: Node, constructor: str) -> str:
        """Give a layer that runs several times a variable of its own."""
        if node.call == 0:
            variable = self.identifier(f"{node.name}_layer")
            self.scope.names[node.name] = variable
            self.scope.calls.append(f"{variable} = {constructor}")
        return self.scope.names[node.name]

    def _is_frozen(self, node: Node, path: str) -> bool:
        kind = require_kind(node)
        trained = {role for role in kind.roles() if role not in kind.state}
        if node.frozen and (set(node.frozen) != trained or kind.state):
            raise self.refuse(path, f"a layer of which {', '.join(node.frozen)} alone does not train", "Freeze it all.")
        return bool(node.frozen)

    def _tapped(self, node: Node, path: str, value: Value) -> Value:
        name = self.layer_name(node.name)
        self.place(path, "output", self.path_of(name), "output")
        self.traced[path] = Place(self.path_of(name))
        return Value(f"layers.Identity(name={name!r})({value.text})", value.shape)

    def _inside(self, node: Node, path: str, arguments: Sequence[Value]) -> tuple[Value, ...]:
        graph: Any = node.layer
        name = self.layer_name(node.name)
        if node.call == 0:
            target = self.path_of(name)
            inner: Graph = replace(graph, name=name)
            class_name, _, _ = self._model(inner, path + "/", target + self.separator)
            variable = self.identifier(name)
            self.scope.names[node.name] = variable
            self.scope.calls.append(f"{variable} = {_function(class_name)}()")
            self.layers[path] = Place(target)
        given = arguments[0].text if len(arguments) == 1 else f"[{', '.join(v.text for v in arguments)}]"
        call = f"{self.scope.names[node.name]}({given})"
        if len(node.shapes) == 1:
            return (Value(call, node.shapes[0]),)
        return tuple(Value(f"{call}[{index}]", shape) for index, shape in enumerate(node.shapes))

    # The file.

    def class_text(self, scope: Scope, inputs: Sequence[Value], outputs: Sequence[Value]) -> str:
        """Return a function that builds a model."""
        name = "build" if not scope.source else _function(scope.class_name)
        lines = [f"def {name}() -> keras.Model:", f'    """{_shapes_text(inputs)} -> {_shapes_text(outputs)}."""']
        for one, value in zip(scope.graph.inputs, inputs, strict=True):
            dtype = ', dtype="int32"' if one.dtype == "int32" else ""
            lines.append(f"    {value.text} = keras.Input({tuple(one.shape)}, name={one.name!r}{dtype})")
        lines += [f"    {line}" for line in scope.calls]
        given, results = (
            values[0].text if len(values) == 1 else f"[{', '.join(v.text for v in values)}]"
            for values in (inputs, outputs)
        )
        return "\n".join([*lines, f"    return keras.Model({given}, {results}, name={scope.graph.name!r})"])

    def file_text(self, classes: Sequence[str], class_name: str) -> str:
        """Return the whole file, formatted."""
        helpers = [HELPERS[name] for name in HELPERS if name in self.helpers]
        body = "\n\n\n".join([*helpers, *classes, _LOAD])
        imports = ["import math"] if "math." in body else []
        imports += ["from collections.abc import Iterator", "from pathlib import Path", "from typing import Any"]
        imports += ["", "import keras", "from keras import layers", "from safetensors.numpy import load_file"]
        head = f'"""{self.bundle.graph.name}: a Keras model, ported layer by layer with their names."""'
        return formatted("\n".join([head, "", *imports, "", "", body, ""]))


_LOAD = '''def load(weights: str | Path = Path(__file__).with_suffix(".safetensors")) -> keras.Model:
    """Return the model with its weights."""
    model = build()
    tensors = load_file(weights)
    for name, variable in named_weights(model):
        variable.assign(tensors[name])
    return model


def named_weights(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the weights by name: the layer, and the models it is in, before that of the weight."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from named_weights(layer, f"{prefix}{layer.name}/")
        else:
            yield from ((prefix + variable.path, variable) for variable in layer.weights)'''


def _function(class_name: str) -> str:
    """Return the name of the function that builds a model inside: InnerBlock -> build_inner_block."""
    return "build" + re.sub(r"(?<!^)(?=[A-Z])|^", "_", class_name).lower()


def _shapes_text(values: Sequence[Value]) -> str:
    def text(value: Value) -> str:
        return f"({', '.join(['batch', *('?' if size is None else str(size) for size in value.shape)])})"

    return ", ".join(map(text, values))
