"""`layers` and `assign`: the layers with weights of a Keras model that exists, and new weights for them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

import keras
from arspec import SpecError, UnsupportedError
from arspec.port import _kinds as kinds
from arspec.port import _layouts as layouts
from arspec.port._kinds import Kind
from arspec.port._order import Groups, expanded, order_of
from arspec.port._split import split
from arspec.port._weighted import Layers, WeightedLayer, layers_of
from arspec_keras._layers import Found, find_layers, has_automatic_name
from arspec_keras._weights import is_attention
from arspec_keras.port._layers import read_layer
from arspec_keras.port._read import read_model
from arspec_keras.port._settings import Shapes


def layers(model: keras.Model, /) -> Layers:
    """List the layers with weights of a Keras model, each with its weights in canonical layout.

    Parameters
    ----------
    model : a built Sequential, functional or subclassed model.

    Returns
    -------
    A `Layers`; print it. The directions of a Bidirectional are "bi/forward" and "bi/backward", the
    two kernels of a separable convolution "conv/depthwise" and "conv/pointwise". The order of
    calls is that of the graph, which a subclassed model does not have. A layer that has no
    counterpart anywhere is `unknown`, and an error where it is to be moved.

    Raises
    ------
    SpecError: model is none, or is not built.

    Example
    -------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="hidden")], name="small")
    >>> print(layers(model))
    layer   kind   weights             tensors
    hidden  Dense  kernel 2×3, bias 3  hidden/kernel, hidden/bias
    """
    if not isinstance(model, keras.Model):
        raise SpecError(f"model is a {type(model).__name__}; expected a keras.Model.")
    if not model.built:
        raise SpecError(f"model {model.name!r} is not built, so it has no weights yet. Call it on some data first.")
    found = _Found(model)
    calls, after = _order(model, found.parts)
    arrays = {name: np.asarray(keras.ops.convert_to_numpy(held)) for name, held in found.variables.items()}
    described = [each.described for each in find_layers(model)]
    return Layers("Keras", found.layers, arrays, described=described, calls=calls, after=after, unknown=found.unknown)


def assign(model: keras.Model, weights: Mapping[str, np.ndarray], /) -> None:
    """Give the layers of a Keras model these weights, in place.

    Parameters
    ----------
    weights : canonical, by "layer/role", as `layers(model).weights` has them: every role of each
        layer that is named; layers that are not named stay as they are.

    Raises
    ------
    SpecError: a weight is missing, foreign or of another shape; nothing was changed.
    UnsupportedError: a layer cannot be described.
    """
    new = layers_of(layers(model), weights).tensors_of(weights)
    variables = _Found(model).variables
    for name, array in new.items():
        variables[name].assign(array)


class _Found:
    """The layers of a model, and their variables by one name each."""

    def __init__(self, model: keras.Model) -> None:
        self.layers: list[WeightedLayer] = []
        self.variables: dict[str, Any] = {}
        self.unknown: dict[str, str] = {}
        self.parts: dict[str, Groups] = {}
        self._names: dict[int, str] = {}
        self._claimed: set[int] = set()
        found = find_layers(model)
        for one in found:
            self._read(one)
        self._require_all(model, found)

    def _read(self, one: Found) -> None:
        layer, path = one.layer, one.described.path
        if not _is_read(layer) or all(id(v) in self._claimed for v in layer.weights) or not layer.weights:
            return
        self._claimed |= {id(v) for v in layer.weights}
        try:
            kind, held = read_layer(layer, path, _input_shapes(layer))
        except UnsupportedError as error:
            self.unknown[path] = str(error).removeprefix(f"{path}: ")
            return
        if not all(isinstance(variable, keras.Variable) for variable in held.values()):
            self.unknown[path] = "it holds constants that are no variables."
            return
        names = {role: self._keep(variable, f"{path}/{role}") for role, variable in held.items()}
        shapes = {role: tuple(variable.shape) for role, variable in held.items()}
        frozen = frozenset(role for role, variable in held.items() if not variable.trainable)
        named = path.rpartition("/")[2] != layer.name or not has_automatic_name(layer)
        found = list(split(WeightedLayer(path, kind, shapes, layouts.same(**names), frozen=frozen, named=named)))
        if len(found) > 1:
            self.parts[path] = [[part.path] for part in found]
        self.layers += found

    def _keep(self, variable: Any, wanted: str) -> str:
        """Return the name of a variable: one that is shared has one; Keras' own depend on who made the layer."""
        name = self._names.setdefault(id(variable), wanted)
        self.variables[name] = variable
        return name

    def _require_all(self, model: keras.Model, found: list[Found]) -> None:
        """Note the innermost layers that hold what no description has."""
        for variable in model.weights:
            if id(variable) in self._claimed or not str(variable.dtype).startswith(("float", "bfloat")):
                continue
            holders = [one for one in found if any(variable is each for each in one.layer.weights)]
            path = max((one.described.path for one in holders), key=lambda path: path.count("/"), default=model.name)
            kind = type(holders[-1].layer if holders else model).__name__
            self.unknown[path] = f"what the weight {variable.path} of a {kind} is is not known."


def _is_read(layer: keras.Layer) -> bool:
    """Return whether a layer is described as a whole: it has no layers inside, but for a cell or projections."""
    inner = layer._flatten_layers(include_self=False, recursive=False)
    return not list(inner) or isinstance(layer, keras.layers.RNN) or is_attention(layer)


def _input_shapes(layer: keras.Layer) -> Shapes:
    """Return the shapes that a layer was built for, without the batch."""
    built = layer.get_build_config() or {}
    shapes = built.get("shapes_dict") or {"": built.get("input_shape")}
    given = [shape for shape in shapes.values() if shape is not None]
    if given and isinstance(given[0][0], list | tuple):
        given = list(given[0])
    return tuple(tuple(shape)[1:] for shape in given)


def _order(model: keras.Model, parts: Mapping[str, Groups]) -> tuple[Any, Any]:
    """Return the order of calls and what reads what, where Keras knows the graph and it can be read."""
    try:
        graph = read_model(model).graph
    except UnsupportedError:
        return None, None
    both: dict[str, Groups] = {
        path: [[f"{path}/forward", f"{path}/backward"]]
        for path, node in graph.walk()
        if isinstance(node.layer, Kind) and isinstance(node.layer, kinds.Bidirectional)
    }
    return expanded(*order_of(graph), {**parts, **both})
