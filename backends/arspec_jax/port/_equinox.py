"""Writing Equinox source code for a bundle: an eqx.Module of one example, channels first."""

from collections.abc import Callable, Sequence
from typing import Any

from arspec.port import Bundle, Written
from arspec.port._graph import Node, Shape
from arspec.port._kinds import Function
from arspec.port._mapping import Step
from arspec.port._source import FIRST, LAST, Place, Scope, Value, formatted, require_kind
from arspec_jax.port._equinox_helpers import HELPERS
from arspec_jax.port._functions import called
from arspec_jax.port._writer import JaxWriter, returning


def write_equinox(bundle: Bundle, /) -> Written:
    """Return Equinox source code for a bundle, and the map of its weights.

    Returns
    -------
    A `Written`: one file with an eqx.Module per model, the layer names of the source, and
    `load`, which reads the weights that `arspec port write` puts beside it without running an
    initializer. A module takes one example, images with their channels first; `jax.vmap` maps
    it over a batch, and so does `arspec_jax.attach`. With batch normalization the model takes
    an eqx.nn.State and returns (output, state), and the axis of the batch is called "batch".

    Raises
    ------
    UnsupportedError: a layer or the place of a rule has no exact counterpart; it is named.
    """
    return EquinoxWriter(bundle).write()


class EquinoxWriter(JaxWriter):
    """A `ModuleWriter` for Equinox."""

    framework = "equinox"

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self._random: dict[str, int] = {}  # class -> how many of its layers draw numbers
        self._stateful: set[str] = set()  # classes with statistics

    def reserved(self) -> set[str]:
        """Return the names the file imports, and those of its helpers."""
        return {"jax", "jnp", "eqx", "Path", "Callable", "load", "load_file", "key", "keys", "state", *HELPERS}

    def boundary(self, shape: Shape) -> str:
        """Images and volumes have their channels first, sequences last."""
        return FIRST if len(shape) >= 3 else LAST

    def convert(self, value: Value, layout: str) -> Value:
        """Transpose where the layouts differ."""
        rank = len(value.shape)
        if value.layout == layout or rank < 2:
            return Value(value.text, value.shape, layout)
        axes = (rank - 1, *range(rank - 1)) if layout == FIRST else (*range(1, rank), 0)
        return Value(f"{value.text}.transpose({', '.join(map(str, axes))})", value.shape, layout)

    def identity(self) -> str:
        """Return the constructor of a module that gives what it is given."""
        self.helper("Identity")
        return "Identity()"

    def construct(self, class_name: str) -> str:
        """Return the expression that makes a model inside."""
        if self._random.get(class_name):
            raise self.refuse(class_name, "a dropout in a model inside", "Put its layers into the outer model.")
        if class_name in self._stateful:
            cure = "Put its layers into the outer model."
            raise self.refuse(class_name, "a batch normalization in a model inside", cure)
        return f"{class_name}(next(keys))"

    def layer(self, node: Node, path: str, arguments: Sequence[Value]) -> Value | tuple[Value, ...]:
        """Write one layer."""
        from arspec_jax.port._equinox_layers import EMITTERS

        kind = require_kind(node)
        if node.frozen:
            cure = "Equinox has no weights that do not train: unfreeze it, and leave it out of the gradient."
            raise self.refuse(path, "a frozen layer", cure)
        emit: Callable[..., Any] | None = EMITTERS.get(type(kind))
        if emit is None:
            raise self.refuse(path, f"a {type(kind).__name__}", "Port the model to nnx or torch instead.")
        return emit(self, kind, node, path, list(arguments))

    # Pieces.

    def module(
        self, node: Node, path: str, constructor: str, x: Value, *, result: str = "output", mapped: int = 0
    ) -> Value:
        """Write a module with one input, and let rules and traces see it.

        Parameters
        ----------
        result : what `arspec_jax.attach` calls its result: "pre_activation" for an affine layer.
        mapped : over how many leading axes of an example the module is mapped.
        """
        attribute = self.name_layer(node)
        self.attribute(attribute, constructor)
        target = self.path_of(attribute)
        if node.call == 0:
            self.layers[path] = self.traced[path] = Place(target, x.layout)
            self.place(path, "output", target, result, x.layout)
            self.place(path, "input", target, "input", x.layout)
        function = f"self.{attribute}"
        for _ in range(mapped):
            function = f"jax.vmap({function})"
        return Value(f"{function}({x.text})", node.shapes[0], x.layout)

    def stateful(self, node: Node, path: str, constructor: str, x: Value) -> Value:
        """Write a module that takes and returns the state of the model."""
        value = self.module(node, path, constructor, x)
        name = self.identifier(self.scope.names[node.name])
        self._stateful.add(self.scope.class_name)
        self.scope.calls.append(f"{name}, state = {value.text.removesuffix(')')}, state)")
        return Value(name, value.shape, value.layout)

    def activated(self, node: Node, path: str, function: Function, value: Value) -> Value:
        """Write the activation function of an affine layer."""
        target = self.layers[path].path
        self.place(path, "pre_activation", target, "pre_activation", value.layout)
        if function.name == "linear":
            return value
        if function.name in ("softmax", "log_softmax"):
            value = self.convert(value, LAST)
        self.place(path, "output", target, "output", value.layout)
        return Value(called(function, value.text, self.helper, "jax.nn"), value.shape, value.layout)

    def key(self) -> str:
        """Return the argument for the key of a layer that draws numbers when it runs."""
        name = self.scope.class_name
        self._random[name] = self._random.get(name, 0) + 1
        self.helper("folded")
        return f"key=folded(key, {self._random[name] - 1})"

    def parameter(self, node: Node, path: str, role: str, name: str, shape: tuple[int, ...], *steps: Step) -> None:
        """Say where a weight goes."""
        if node.call == 0:
            self.weight(path, role, f"{self.layers[path].path}.{name}", shape, *steps)
            self.place(path, role, self.layers[path].path, role)

    # The file.

    def class_text(self, scope: Scope, inputs: Sequence[Value], outputs: Sequence[Value]) -> str:
        """Return an eqx.Module."""
        arguments = "".join(f", {value.text}: jax.Array" for value in inputs)
        key = ", *, key: jax.Array | None = None" if self._random.get(scope.class_name) else ""
        results = ", ".join(value.text for value in outputs)
        kinds = "jax.Array" if len(outputs) == 1 else f"tuple[{', '.join(['jax.Array'] * len(outputs))}]"
        if scope.class_name in self._stateful:
            arguments += ", state: eqx.nn.State"
            results = f"{results if len(outputs) == 1 else f'({results})'}, state"
            kinds = f"tuple[{kinds}, eqx.nn.State]"
        made = [line.removeprefix("self.").partition(" = ") for line in scope.attributes]
        count = sum(constructor.count("next(keys)") for _, _, constructor in made)
        keys = [f"        keys = iter(jax.random.split(key, {count}))"] if count else []
        lines = [
            f"class {scope.class_name}(eqx.Module):",
            f'    """{_shapes_text(inputs)} -> {_shapes_text(outputs)}, of one example."""',
            "",
            *(f"    {name}: {constructor.partition('(')[0]}" for name, _, constructor in made),
            "",
            "    def __init__(self, key: jax.Array) -> None:",
            *(
                keys + [f"        {line}" for line in scope.attributes]
                or ["        del key  # no layer draws its weights"]
            ),
            "",
            f"    def __call__(self{arguments}{key}) -> {kinds}:",
            *(f"        {line}" for line in scope.calls),
        ]
        return "\n".join(returning(lines, results))

    def file_text(self, classes: Sequence[str], class_name: str) -> str:
        """Return the whole file, formatted."""
        helpers = [HELPERS[name] for name in HELPERS if name in self.helpers]
        body = "\n\n\n".join([*helpers, *classes, self._load(class_name)])
        imports = ["from collections.abc import Callable"] if "Callable[" in body else []
        imports += ["from pathlib import Path", "", "import equinox as eqx", "import jax", "import jax.numpy as jnp"]
        imports += ["from safetensors.numpy import load_file"]
        head = f'"""{self.bundle.graph.name}: an Equinox module, ported layer by layer with their names."""'
        return formatted("\n".join([head, "", *imports, "", "", body, ""]))

    def _load(self, class_name: str) -> str:
        """Return the function that makes the model, with its state if it has one."""
        text = _LOAD.replace("CLASS", class_name)
        if class_name not in self._stateful:
            return text
        text = text.replace(f"-> {class_name}:", f"-> tuple[{class_name}, eqx.nn.State]:")
        text = text.replace("Return the model with its weights;", "Return the model with its weights, and its state;")
        return text.replace("    return model", "    return eqx.nn.make_with_state(lambda: model)()")


_LOAD = '''def load(weights: str | Path = Path(__file__).with_suffix(".safetensors")) -> CLASS:
    """Return the model with its weights; no initializer runs."""
    model = eqx.filter_eval_shape(CLASS, jax.random.key(0))
    arrays = load_file(weights)

    def filled(path: tuple[jax.tree_util.GetAttrKey, ...], leaf: jax.ShapeDtypeStruct) -> object:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        name = ".".join(part.name for part in path)
        if arrays[name].shape != leaf.shape:
            raise ValueError(f"{name} has shape {arrays[name].shape}; expected {leaf.shape}")
        return jnp.asarray(arrays.pop(name))

    model = jax.tree_util.tree_map_with_path(filled, model)
    if arrays:
        raise ValueError(f"{weights}: the model has no {sorted(arrays)}")
    return model'''


def _shapes_text(values: Sequence[Value]) -> str:
    def text(value: Value) -> str:
        sizes = ["?" if size is None else str(size) for size in value.shape]
        ordered = [sizes[-1], *sizes[:-1]] if value.layout == FIRST and len(sizes) > 1 else sizes
        return f"({', '.join(ordered)}{',' if len(ordered) == 1 else ''})"

    return ", ".join(map(text, values))
