"""Writing Flax NNX source code for a bundle: an idiomatic nnx.Module, channels last as in the source."""

from collections.abc import Callable, Sequence
from typing import Any

from arspec.port import Bundle, Written
from arspec.port._graph import Node, Shape
from arspec.port._kinds import Function
from arspec.port._mapping import Step
from arspec.port._source import Place, Scope, Value, formatted, require_kind
from arspec_jax.port._functions import called
from arspec_jax.port._nnx_helpers import HELPERS
from arspec_jax.port._writer import JaxWriter, returning


def write_nnx(bundle: Bundle, /) -> Written:
    """Return Flax NNX source code for a bundle, and the map of its weights.

    Returns
    -------
    A `Written`: one file with an nnx.Module per model, the layer names of the source, and
    `load`, which reads the weights that `arspec port write` puts beside it without running an
    initializer. Tensors are channels-last; `model.train()` and `model.eval()` set the mode.

    Raises
    ------
    UnsupportedError: a layer or the place of a rule has no exact counterpart; it is named.
    """
    return NnxWriter(bundle).write()


class NnxWriter(JaxWriter):
    """A `ModuleWriter` for Flax NNX."""

    framework = "nnx"

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self._named = {site.layer for site in bundle.sites if site.placement == "output"}
        self.is_random = False  # whether a layer draws numbers when it runs

    def reserved(self) -> set[str]:
        """Return the names the file imports, and those of its helpers."""
        return {"jax", "jnp", "nnx", "Path", "Callable", "load", "load_file", "rngs", *HELPERS}

    def attributes(self) -> set[str]:
        """Return the names that nnx.Module has."""
        from flax import nnx

        return {"rngs", *dir(nnx.Module())}

    def convert(self, value: Value, layout: str) -> Value:
        """Return the value: there is one layout."""
        return value

    def identity(self) -> str:
        """Return the constructor of a module that gives what it is given."""
        self.helper("Identity")
        return "Identity()"

    def construct(self, class_name: str) -> str:
        """Return the expression that makes a model inside."""
        return f"{class_name}(rngs)"

    def layer(self, node: Node, path: str, arguments: Sequence[Value]) -> Value | tuple[Value, ...]:
        """Write one layer."""
        from arspec_jax.port._nnx_layers import EMITTERS

        kind = require_kind(node)
        emit: Callable[..., Any] | None = EMITTERS.get(type(kind))
        if emit is None:
            raise self.refuse(path, f"a {type(kind).__name__}", "Port the model to torch, or write the layer yourself.")
        return emit(self, kind, node, path, list(arguments))

    # Pieces.

    def module(self, node: Node, path: str, constructor: str, x: Value, *, result: str = "output") -> Value:
        """Write a module with one input, and let rules and traces see it.

        Parameters
        ----------
        result : what `arspec_jax.attach` calls its result: "pre_activation" for an affine layer.
        """
        attribute = self.name_layer(node)
        self.attribute(attribute, constructor)
        target = self.path_of(attribute)
        if node.call == 0:
            self.layers[path] = self.traced[path] = Place(target)
            self.place(path, "output", target, result)
            self.place(path, "input", target, "input")
        return Value(f"self.{attribute}({x.text})", node.shapes[0])

    def activated(self, node: Node, path: str, function: Function, value: Value) -> Value:
        """Write the activation function of an affine layer; a module after it if a rule names its result."""
        target = self.layers[path].path
        self.place(path, "pre_activation", target, "pre_activation")
        if function.name == "linear":
            return value
        text = called(function, value.text, self.helper)
        self.place(path, "output", target, "output")
        if path not in self._named:
            return Value(text, value.shape)
        attribute = self.extra(node, "output")
        self.attribute(attribute, self.identity())
        self.place(path, "output", self.path_of(attribute), "output")
        self.traced[path] = Place(self.path_of(attribute))
        return Value(f"self.{attribute}({text})", value.shape)

    def parameter(self, node: Node, path: str, role: str, name: str, shape: tuple[int, ...], *steps: Step) -> None:
        """Say where a weight goes; one that is frozen is no nnx.Param."""
        if node.call:
            return
        attribute = self.scope.names[node.name]
        self.weight_of(node, path, role, attribute, name, shape, *steps)
        self.place(path, role, self.layers[path].path, role)

    def weight_of(
        self, node: Node, path: str, role: str, attribute: str, name: str, shape: tuple[int, ...], *steps: Step
    ) -> None:
        """Say that a weight goes to an attribute, such as "kernel", of a module of the class that is written."""
        self.weight(path, role, f"{self.path_of(attribute)}.{name}", shape, *steps)
        if role in node.frozen:
            self.helper("Frozen")
            self.attribute(f"{attribute}.{name}", f"Frozen(self.{attribute}.{name}[...])")

    # The file.

    def class_text(self, scope: Scope, inputs: Sequence[Value], outputs: Sequence[Value]) -> str:
        """Return an nnx.Module."""
        arguments = "".join(f", {value.text}: jax.Array" for value in inputs)
        results = ", ".join(value.text for value in outputs)
        kinds = ", ".join(["jax.Array"] * len(outputs))
        lines = [
            f"class {scope.class_name}(nnx.Module):",
            f'    """{shapes_text(inputs)} -> {shapes_text(outputs)}."""',
            "",
            "    def __init__(self, rngs: nnx.Rngs) -> None:",
            *(f"        {line}" for line in scope.attributes or ["pass"]),
            "",
            f"    def __call__(self{arguments}) -> {kinds if len(outputs) == 1 else f'tuple[{kinds}]'}:",
            *(f"        {line}" for line in scope.calls),
        ]
        return "\n".join(returning(lines, results))

    def file_text(self, classes: Sequence[str], class_name: str) -> str:
        """Return the whole file, formatted."""
        helpers = [HELPERS[name] for name in HELPERS if name in self.helpers]
        load = _LOAD.replace("CLASS", class_name)
        if self.is_random:
            load = load.replace(") -> ", ", seed: int = 0) -> ").replace(_FILL, f"{_FILL}\n{_SEED}")
        body = "\n\n\n".join([*helpers, *classes, load])
        imports = ["from collections.abc import Callable"] if "Callable[" in body else []
        imports += ["from pathlib import Path", "", "import jax", "import jax.numpy as jnp"]
        imports += ["from flax import nnx", "from safetensors.numpy import load_file"]
        head = f'"""{self.bundle.graph.name}: a Flax NNX module, ported layer by layer with their names."""'
        return formatted("\n".join([head, "", *imports, "", "", body, ""]))


_FILL = "    nnx.update(model, nnx.from_flat_state(found))"
_SEED = "    nnx.reseed(model, default=seed)"
_LOAD = '''def load(weights: str | Path = Path(__file__).with_suffix(".safetensors")) -> CLASS:
    """Return the model with its weights, in training mode; no initializer runs."""
    model = nnx.eval_shape(lambda: CLASS(nnx.Rngs(0)))
    arrays, found = load_file(weights), []
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState))):
        name = ".".join(map(str, path))
        if arrays[name].shape != variable.shape:
            raise ValueError(f"{name} has shape {arrays[name].shape}; expected {variable.shape}")
        found.append((path, variable.replace(jnp.asarray(arrays.pop(name)))))
    if arrays:
        raise ValueError(f"{weights}: the model has no {sorted(arrays)}")
    nnx.update(model, nnx.from_flat_state(found))
    return model'''


def shapes_text(values: Sequence[Value]) -> str:
    """Return shapes with the batch, for people."""

    def text(shape: Shape) -> str:
        return f"({', '.join(['batch', *('?' if size is None else str(size) for size in shape)])})"

    return ", ".join(text(value.shape) for value in values)
