"""The layers of a Keras model by path, and which placements each one serves."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
from arspec import Layer

_CONVOLUTIONS = {3: "time", 4: "height width", 5: "depth height width"}
_RUNS_IN_A_LOOP = (keras.layers.RNN, keras.layers.TimeDistributed, keras.layers.Bidirectional)


@dataclass(frozen=True, slots=True)
class Found:
    """A Keras layer and its description for the core."""

    layer: keras.Layer
    described: Layer


def find_layers(model: keras.Layer) -> list[Found]:
    """List every layer below `model` once, outer before inner, in the order of the model.

    A path joins the names that `model.summary()` shows. Inside a subclassed model a layer
    without a name of its own goes by its attribute, as in "hidden" for
    `self.hidden = Dense(500)` and "blocks/0" for the first of a list.
    """
    seen: set[int] = set()
    return list(_walk(model, "", "", seen))


def _walk(parent: keras.Layer, prefix: str, looped: str, seen: set[int]) -> Iterator[Found]:
    looped = looped or (prefix[:-1] if isinstance(parent, _RUNS_IN_A_LOOP) else "")
    names = _child_names(parent)
    for child in parent._flatten_layers(include_self=False, recursive=False):
        if id(child) in seen or isinstance(child, keras.layers.InputLayer):
            continue
        seen.add(id(child))
        path = prefix + names[id(child)]
        yield Found(child, describe(child, path, looped))
        yield from _walk(child, path + "/", looped, seen)


def _child_names(parent: keras.Layer) -> dict[int, str]:
    children = parent._flatten_layers(include_self=False, recursive=False)
    names = {id(child): child.name for child in children}
    if hasattr(parent, "_functional") or hasattr(parent, "_nodes"):
        return names
    attributes = {}
    for name, held in [*vars(parent).items(), *vars(parent).get("_modules", {}).items()]:
        if not name.startswith("_") or name.strip("_") == name[1:]:
            _name_held(held, name, attributes)
    automatic = {id(child) for child in children if _has_automatic_name(child)}
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


def _has_automatic_name(layer: keras.Layer) -> bool:
    """Return whether Keras made the name from the class: "dense", "dense_1", ..."""
    spaced = re.sub(
        r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", type(layer).__name__))
    )
    return re.fullmatch(re.escape(spaced.lower()) + r"(_\d+)?", layer.name) is not None


def describe(layer: keras.Layer, path: str, looped: str = "") -> Layer:
    """Say which placements a layer serves, and why it cannot serve others.

    Parameters
    ----------
    looped : path of the layer that runs this one once per time step, or "".
    """
    placements, refused = {"output": "output"}, {}
    if getattr(layer, "bias", None) is not None and isinstance(layer.bias, keras.Variable):
        placements["bias"] = "bias"
    if _kernel(layer) is not None:
        if kernel_axes(layer) is None:
            refused["kernel"] = f"a kernel of shape {tuple(layer.kernel.shape)} has no names for its axes."
        else:
            placements["kernel"] = "kernel"
        if callable(getattr(layer, "activation", None)):
            placements["pre_activation"] = "input of layer.activation"
        elif hasattr(layer, "activation"):
            placements["pre_activation"] = "output (there is no activation)"
        else:
            refused["pre_activation"] = (
                f"{type(layer).__name__} has no attribute `activation`, so its activation function cannot be seen. "
                "Give the layer one, or put the function into a layer of its own and use placement 'output'."
            )
    refusal = _cannot_watch(layer, looped)
    if refusal:
        for placement in ("output", "pre_activation"):
            if placements.pop(placement, None):
                refused[placement] = refusal
    return Layer(path, type(layer).__name__, placements, refused, in_globs=bool(layer.weights))


def _cannot_watch(layer: keras.Layer, looped: str) -> str:
    if looped:
        return f"it runs once per time step inside {looped!r}; name that layer with placement 'output' instead."
    if getattr(layer, "_remat_mode", None):
        return "it is rematerialized (RematScope), which runs it twice; build the layer outside of the scope."
    return ""


def _kernel(layer: keras.Layer) -> Any:
    return getattr(layer, "kernel", None) if layer.built else None


def kernel_axes(layer: keras.Layer) -> str | None:
    """Return the names of the axes of `layer.kernel`, or None where they have none."""
    rank = len(layer.kernel.shape)
    if rank == 2:
        return "input output"
    convolution = isinstance(getattr(layer, "kernel_size", None), tuple) and len(layer.kernel_size) == rank - 2
    if not convolution or rank not in _CONVOLUTIONS:
        return None
    last = "output input" if "Transpose" in type(layer).__name__ else "input output"
    return f"{_CONVOLUTIONS[rank]} {last}"


def activation_axes(layer: keras.Layer, rank: int) -> str | None:
    """Return the names of the axes of an activation, or None for the channels-last ones."""
    if getattr(layer, "data_format", None) == "channels_first" and rank in _CONVOLUTIONS:
        spatial = "time" if rank == 3 else _CONVOLUTIONS[rank]
        return f"batch feature {spatial}"
    return None
