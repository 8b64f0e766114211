"""The layers of a Keras model by path, and which placements each one serves."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
from arspec import Layer
from arspec._axes import SPATIAL_AXES
from arspec_keras._recurrent import ALL_STEPS, is_walked, steps_of
from arspec_keras._weights import is_attention, weights_of

_RUNS_IN_A_LOOP = (keras.layers.RNN, keras.layers.TimeDistributed)
_FOREIGN_CELL = (
    "its cell is a {cell}, whose steps are known to itself alone; they have names in layers over an LSTMCell, "
    "GRUCell or SimpleRNNCell. With return_sequences=True placement 'output' has every step."
)


@dataclass(frozen=True, slots=True)
class Found:
    """A Keras layer and its description for the core."""

    layer: keras.Layer
    described: Layer


def find_layers(model: keras.Layer) -> list[Found]:
    """List every layer below `model` once, outer before inner, in the order of the model.

    A path joins the names that `model.summary()` shows. Inside a subclassed model a layer
    without a name of its own goes by its attribute, as in "hidden" for
    `self.hidden = Dense(500)` and "blocks/0" for the first of a list. The directions of a
    Bidirectional are "forward" and "backward".
    """
    seen: set[int] = set()
    return list(_walk(model, "", "", seen))


def _walk(parent: keras.Layer, prefix: str, unseen: str, seen: set[int]) -> Iterator[Found]:
    unseen = unseen or _hides(parent, prefix[:-1])
    names = _child_names(parent)
    for child in parent._flatten_layers(include_self=False, recursive=False):
        if id(child) in seen or isinstance(child, keras.layers.InputLayer):
            continue
        seen.add(id(child))
        path = prefix + names[id(child)]
        yield Found(child, describe(child, path, unseen, inside=is_walked(parent) or is_attention(parent)))
        yield from _walk(child, path + "/", unseen, seen)


def _hides(parent: keras.Layer, path: str) -> str:
    """Say why the calls of the layers inside `parent` cannot be watched, or return ""."""
    if isinstance(parent, _RUNS_IN_A_LOOP):
        return f"it runs once per time step inside {path!r}; name that layer with placement 'output' instead."
    if getattr(parent, "_remat_mode", None):
        return f"it runs inside {path!r}, which is rematerialized (RematScope); build that one outside of the scope."
    return ""


def _child_names(parent: keras.Layer) -> dict[int, str]:
    if isinstance(parent, keras.layers.Bidirectional):
        return {id(parent.forward_layer): "forward", id(parent.backward_layer): "backward"}
    children = parent._flatten_layers(include_self=False, recursive=False)
    names = {id(child): child.name for child in children}
    if hasattr(parent, "_functional") or hasattr(parent, "_nodes"):
        return names
    attributes = {}
    for name, held in [*vars(parent).items(), *vars(parent).get("_modules", {}).items()]:
        if not name.startswith("_") or name.strip("_") == name[1:]:
            _name_held(held, name, attributes)
    automatic = {id(child) for child in children if has_automatic_name(child)}
    return {key: attributes.get(key, name) if key in automatic else name for key, name in names.items()}


def _name_held(held: Any, name: str, names: dict[int, str]) -> None:
    if isinstance(held, keras.Layer):
        names.setdefault(id(held), name)
    elif isinstance(held, list | tuple) and not name.startswith("_"):
        for index, item in enumerate(held):
            _name_held(item, f"{name}/{index}", names)
    elif isinstance(held, dict) and not name.startswith("_"):
        for key, item in held.items():
            _name_held(item, f"{name}/{key}", names)


def has_automatic_name(layer: keras.Layer) -> bool:
    """Return whether Keras made the name from the class: "dense", "dense_1", ..."""
    spaced = re.sub(
        r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", type(layer).__name__))
    )
    return re.fullmatch(re.escape(spaced.lower()) + r"(_\d+)?", layer.name) is not None


def describe(layer: keras.Layer, path: str, unseen: str = "", *, inside: bool = False) -> Layer:
    """Say which placements a layer serves, and why it cannot serve others.

    Parameters
    ----------
    unseen : why the calls of this layer cannot be watched, or "".
    inside : whether the layer around it serves its weights; only its full path meets it then.
    """
    weights, refused = weights_of(layer)
    placements = {placement: weight.name for placement, weight in weights.items()}
    activations = _activations(layer)
    before = "" if "pre_activation" in activations or "kernel" not in weights else _hidden_activation(layer)
    if before:
        refused["pre_activation"] = before
    if isinstance(layer, keras.layers.RNN) and not is_walked(layer):
        refused |= dict.fromkeys(ALL_STEPS, _FOREIGN_CELL.format(cell=type(layer.cell).__name__))
    refusal = unseen or _rematerialized(layer)
    if refusal:
        refused |= dict.fromkeys(activations, refusal)
    else:
        placements |= activations
    return Layer(path, type(layer).__name__, placements, refused, in_globs=bool(layer.weights) and not inside)


def _activations(layer: keras.Layer) -> dict[str, str]:
    """Return what the placements of activations are called in the layer."""
    found = {"output": "output"}
    if not isinstance(layer, keras.layers.Embedding):
        found["input"] = "first argument"
    if is_walked(layer):
        return {
            **found,
            "hidden_state": "h of every step",
            **{name: f"{name} of every step" for name in steps_of(layer)},
        }
    if getattr(layer, "kernel", None) is None and getattr(layer, "pointwise_kernel", None) is None:
        return found
    if callable(getattr(layer, "activation", None)):
        return {**found, "pre_activation": "input of layer.activation"}
    if hasattr(layer, "activation"):
        return {**found, "pre_activation": "output (there is no activation)"}
    return found


def _hidden_activation(layer: keras.Layer) -> str:
    if isinstance(layer, keras.layers.RNN) or is_attention(layer):
        return ""
    return (
        f"{type(layer).__name__} has no attribute `activation`, so its activation function cannot be seen. "
        "Give the layer one, or put the function into a layer of its own and use placement 'output'."
    )


def _rematerialized(layer: keras.Layer) -> str:
    if getattr(layer, "_remat_mode", None):
        return "it is rematerialized (RematScope), which runs it twice; build the layer outside of the scope."
    return ""


def activation_axes(layer: keras.Layer, rank: int) -> str | None:
    """Return the names of the axes of an activation, or None for the channels-last ones."""
    if getattr(layer, "data_format", None) == "channels_first" and rank - 2 in SPATIAL_AXES:
        return f"batch feature {SPATIAL_AXES[rank - 2]}"
    return None
