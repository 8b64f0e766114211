"""Pieces of Keras source code: keyword arguments, layers with one input, activation functions."""

from collections.abc import Sequence
from typing import Any

from arspec.port._graph import Node
from arspec.port._kinds import Function
from arspec.port._source import Place, Value
from arspec_keras.port._write import KerasWriter

_DEFAULTS = {"leaky_relu": 0.2, "elu": 1.0, "celu": 1.0}
_LAYERS = {"leaky_relu": "LeakyReLU(negative_slope={!r}", "elu": "ELU(alpha={!r}"}


def options(**options: Any) -> str:
    """Return the keyword arguments that are no defaults: None stands for a default."""
    return "".join(f", {name}={value!r}" for name, value in options.items() if value is not None)


def short(sizes: Sequence[int]) -> Any:
    """Return one number where all are the same."""
    return sizes[0] if len(set(sizes)) == 1 else tuple(sizes)


def unless(value: Any, default: Any) -> Any:
    """Return a value, or None, which stands for a default."""
    return None if value == default else value


def named(function: Function) -> str | None:
    """Return the name that Keras has for an activation function, None where it has none."""
    if function.name == "gelu_tanh" or function.parameter != _DEFAULTS.get(function.name):
        return None
    return function.name


def layer(w: KerasWriter, node: Node, path: str, head: str, x: Value, weights: dict[str, str] | None = None) -> Value:
    """Write a layer with one input."""
    return Value(w.keras_layer(node, path, head, [x], weights), node.shapes[0])


def affine(w: KerasWriter, kind: Any, node: Node, path: str, head: str, x: Value, roles: Sequence[str]) -> Value:
    """Write a layer with an activation function, which gets a layer of its own where Keras has no name for it."""
    weights = {role: role for role in roles if role != "bias" or kind.use_bias}
    head += options(use_bias=unless(kind.use_bias, True))
    name = named(kind.activation)
    if name is not None:
        value = layer(w, node, path, head + options(activation=unless(name, "linear")), x, weights)
        w.place(path, "pre_activation", w.layers[path].path, "pre_activation")
        return value
    value = layer(w, node, path, head, x, weights)
    name = f"{w.layer_name(node.name)}_activation"
    if node.call == 0:
        place = w.path_of(name)
        w.traced[path] = Place(place)
        w.place(path, "pre_activation", w.layers[path].path, "output")
        w.place(path, "output", place, "output")
    return Value(f"{function_head(w, kind.activation, path)}name={name!r})({value.text})", value.shape)


def function_head(w: KerasWriter, function: Function, path: str) -> str:
    """Return the beginning of the constructor of an activation function."""
    if function.name == "gelu_tanh":
        w.helper("GeluTanh")
        return "GeluTanh("
    name = named(function)
    if name is not None:
        return f"layers.Activation({name!r}, "
    if function.name not in _LAYERS:
        raise w.refuse(path, f"{function.name} with parameter {function.parameter}", "Use its default.")
    return f"layers.{_LAYERS[function.name].format(function.parameter)}, "
