"""Keras model configs: the layers in them, and the rules their regularizers amount to.

What a model says and what it does differ in places, measured on Keras 3.15 and tf-keras
2.21: `TimeDistributed` loses the activity penalty of its layer in Keras 3 and divides it by
batch × time in tf-keras; a recurrent cell counts it once per step and output, an LSTM that
returns its state once per output; Keras 3 drops the weight penalties of a frozen layer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from arspec._errors import SpecError, UnsupportedError, shown
from arspec._rule import Rule
from arspec.dialects._keras_regularizers import Generation, refuse_of_activity

ACTIVITY = "activity_regularizer"
SLOTS: Mapping[str, tuple[str, ...]] = {
    "kernel_regularizer": ("kernel",),
    "recurrent_regularizer": ("recurrent_kernel",),
    "bias_regularizer": ("bias",),
    "depthwise_regularizer": ("depthwise_kernel",),
    "pointwise_regularizer": ("pointwise_kernel",),
    "embeddings_regularizer": ("embeddings",),
    "gamma_regularizer": ("scale",),
    "beta_regularizer": ("shift",),
    ACTIVITY: ("output",),
}
_ATTENTION = ("MultiHeadAttention", "GroupedQueryAttention", "GroupQueryAttention")
_INSIDE = ("layer", "backward_layer", "cell", "cells", "layers")
_PROJECTIONS = ("query", "key", "value", "output")


@dataclass(frozen=True, slots=True)
class Found:
    """A layer in a model config.

    Attributes
    ----------
    path : the names of the layers down to it, with "/" between them.
    kind : its class.
    config : its arguments.
    frozen : whether it, or what holds it, has trainable=False.
    wrapper, wrapped_by : path and class of the layer that wraps it, or "".
    """

    path: str
    kind: str
    config: Mapping[str, Any]
    frozen: bool = False
    wrapper: str = ""
    wrapped_by: str = ""

    def slots(self) -> list[tuple[str, Any]]:
        """Return the regularizers it has, by the name of the argument, or by the way to a nested one."""
        given = [slot for key, value in self.config.items() if key not in _INSIDE for slot in _slots(key, value)]
        if self.kind == "ActivityRegularization" and ACTIVITY not in dict(given):
            numbers = {key: self.config.get(key) for key in ("l1", "l2")}
            return [(ACTIVITY, {"class_name": "L1L2", "config": numbers})]
        return given


def _slots(key: str, value: Any) -> list[tuple[str, Any]]:
    """Return what is a regularizer in an argument, layers nested in custom ways included."""
    if key.endswith("_regularizer"):
        return [] if value is None else [(key, value)]
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    return [(f"{key}.{name}", found) for part, item in inner for name, found in _slots(str(part), item)]


def layers_of_model(document: Mapping[str, Any]) -> Iterator[Found]:
    """List the layers of `model.to_json()`, outer before inner."""
    root = document["config"]
    listed = root if isinstance(root, list) else root.get("layers") if isinstance(root, Mapping) else None
    if not isinstance(listed, list):
        raise SpecError("the model config lists no layers; a subclassed model does not describe itself.")
    frozen = isinstance(root, Mapping) and root.get("trainable") is False
    for node in listed:
        yield from _walk(node, Found("", "", {}, frozen))


def notes_of_model(document: Any) -> list[str]:
    """Return what a model config says about decay outside its layers: every Keras optimizer decouples it."""
    compiled = document.get("compile_config") if isinstance(document, Mapping) else None
    optimizer = compiled.get("optimizer") if isinstance(compiled, Mapping) else None
    config = optimizer.get("config") if isinstance(optimizer, Mapping) else None
    decay = config.get("weight_decay") if isinstance(config, Mapping) else None
    if not decay:
        return []
    return [f"the optimizer has weight_decay={decay!r}, decoupled in Keras: no penalty, and not in the rules."]


def _walk(node: Any, parent: Found, direction: str = "") -> Iterator[Found]:
    if not isinstance(node, Mapping) or "class_name" not in node or "config" not in node:
        raise SpecError(f"got {shown(node)} in a model config; expected a layer with 'class_name' and 'config'.")
    config = node["config"] if isinstance(node["config"], Mapping) else {"layers": node["config"]}
    name = direction or str(config.get("name") or node.get("name") or "")
    path = f"{parent.path}/{name}" if parent.path else name
    wraps = "layer" in parent.config or "cell" in parent.config
    around = (parent.path, parent.kind) if wraps else (parent.wrapper, parent.wrapped_by)
    found = Found(path, str(node["class_name"]), config, parent.frozen or config.get("trainable") is False, *around)
    yield found
    names = ("forward", "backward") if found.kind == "Bidirectional" else repeat("")
    for child, direction in zip(_children(found), names, strict=False):
        yield from _walk(child, found, direction)


def _children(found: Found) -> list[Any]:
    """Return the nodes inside a layer; a Bidirectional that holds one layer makes another like it."""
    config = found.config
    for key in ("layers", "cells"):
        if isinstance(config.get(key), list):
            return config[key]
    inner = [config[key] for key in ("layer", "backward_layer", "cell") if isinstance(config.get(key), Mapping)]
    return inner * 2 if found.kind == "Bidirectional" and len(inner) == 1 else inner


def rules_of_slot(found: Found, slot: str, regularizer: Any, generation: Generation) -> tuple[list[Rule], str | None]:
    """Return the rules of one regularizer, and a note where the framework ignores it."""
    if slot not in SLOTS:
        raise UnsupportedError(f"arspec has no placement for {slot.rpartition('.')[2]!r} here.")
    if found.wrapped_by == "Bidirectional" and generation.oldest:
        raise UnsupportedError("which direction is penalized changed between the releases of Keras 2.")
    if slot == ACTIVITY:
        return _activity(found, regularizer, generation)
    penalty = generation.penalty(regularizer)
    if found.frozen and not generation.frozen_counts:
        return [], f"{found.path}: {slot} has no effect, since the layer is frozen; {generation.name} drops it."
    rules = [
        Rule(penalty, layer=found.path, placement=placement, mean_over=()) for placement in _placements(found, slot)
    ]
    return rules, None


def _placements(found: Found, slot: str) -> tuple[str, ...]:
    if found.kind in _ATTENTION and slot in ("kernel_regularizer", "bias_regularizer"):
        role = slot.partition("_")[0]
        return tuple(f"{name}_{role}" for name in _PROJECTIONS)
    if found.kind.startswith("Depthwise") and slot == "depthwise_regularizer":
        return ("kernel",)
    return SLOTS[slot]


def _activity(found: Found, regularizer: Any, generation: Generation) -> tuple[list[Rule], str | None]:
    penalty = generation.penalty(regularizer)
    refuse_of_activity([penalty])
    _refuse_activity(found, generation)
    layer, mean = found.path, generation.activity_mean
    if found.wrapped_by == "TimeDistributed":
        if found.path.rpartition("/")[0] != found.wrapper:
            raise UnsupportedError("the layer is inside a model inside TimeDistributed, which runs it step by step.")
        if generation.is_keras_3:
            return [], f"{found.path}: {ACTIVITY} has no effect; {generation.name} loses it inside TimeDistributed."
        layer, mean = found.wrapper, (*mean, "time") if mean else ()
    if found.config.get("time_major") is True and mean:
        mean = ("time",)  # the batch is axis 0, whatever it is
    return [Rule(penalty, layer=layer, placement="output", mean_over=mean)], None


def _refuse_activity(found: Found, generation: Generation) -> None:
    if found.wrapped_by in ("RNN", "StackedRNNCells") or found.kind.endswith("Cell"):
        raise UnsupportedError("a cell counts its activity once per step and output; put it on the layer.")
    if found.config.get("return_state") is True:
        raise UnsupportedError("the layer returns its state, and Keras penalizes each thing that it returns.")
    if found.kind in _ATTENTION and generation.is_keras_3:
        raise UnsupportedError("Keras 3 penalizes the projections of an attention, not its output.")
