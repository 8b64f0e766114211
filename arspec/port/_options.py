"""What layers of one kind may still differ in: options that are not weights, compared one by one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from arspec.port._kinds import LINEAR, BatchNormalization, Function, Recurrent
from arspec.port._weighted import Layers, WeightedLayer

# What belongs to the call, as return_sequences or a mask do, is code in most frameworks and no
# option of a layer; what the shapes say, as use_bias, is compared by them.
_COMPARED: Mapping[str, tuple[str, ...]] = {
    "Dense": ("activation",),
    "Convolution": ("strides", "padding", "dilation", "groups", "activation"),
    "DepthwiseConvolution": ("strides", "padding", "dilation", "activation"),
    "TransposedConvolution": ("strides", "padding", "activation"),
    "BatchNormalization": ("epsilon", "momentum", "unbiased"),
    "LayerNormalization": ("epsilon",),
    "GroupNormalization": ("groups", "epsilon"),
    "RMSNormalization": ("epsilon",),
    "Embedding": ("mask_zero",),
    "SimpleRNN": ("activation", "reverse"),
    "LSTM": ("activation", "recurrent_activation", "reverse"),
    "GRU": ("activation", "recurrent_activation", "reset_after", "reverse"),
    "MultiHeadAttention": (),
}
_USUAL: Mapping[str, tuple[Any, ...]] = {
    "recurrent_activation": (Function("sigmoid"),),
    "mask_zero": (False,),
    "reverse": (False,),
}
HINTS = {
    "biases": "biases: two that train move their sum twice as far; freeze one (bias_hh_l0.requires_grad_(False)).",
    "unbiased": "unbiased: torch.nn keeps a running variance of n - 1; the code of `arspec port write` does not.",
}
ALWAYS = ("biases", "statistics", "dtype", "trainable")


@dataclass(frozen=True, slots=True)
class Difference:
    """An option in which two paired layers are not alike.

    Attributes
    ----------
    source, target : the layers.
    option : its name, such as "epsilon", "momentum", "activation", "biases" or "dtype".
    values : of the source and of the target; None where the side does not say it.
    """

    source: str
    target: str
    option: str
    values: tuple[Any, Any]

    @property
    def seen(self) -> bool:
        """Whether both sides say the option, so that it is known to differ."""
        return None not in self.values

    @property
    def text(self) -> str:
        """The option and its two values."""
        one, other = (_shown(value) for value in self.values)
        return f"{self.option} {one} -> {other}"

    def __str__(self) -> str:
        return f"{self.source!r} -> {self.target!r}: {self.text}"


def options() -> tuple[str, ...]:
    """Return the names of all options that are compared."""
    return tuple(dict.fromkeys((*(name for names in _COMPARED.values() for name in names), *ALWAYS)))


def told(layer: WeightedLayer) -> dict[str, Any]:
    """Return the options of a layer that it says, by name."""
    names = _COMPARED.get(type(layer.kind).__name__, ())
    return {name: getattr(layer.kind, name) for name in names if name not in layer.unseen}


def differences(one: WeightedLayer, other: WeightedLayer, source: Layers, target: Layers) -> list[Difference]:
    """Return the options in which two layers differ, or which one of them alone says.

    An option that one side leaves to the code of the model counts only where the other does
    not have the usual value.
    """
    values = (_all(one, source), _all(other, target))
    found = []
    for name in dict.fromkeys((*values[0], *values[1])):
        first, second = (side.get(name) for side in values)
        if first is None or second is None:
            if any(_unusual(one, name, value) for value in (first, second)):
                found.append(Difference(one.path, other.path, name, (first, second)))
        elif not _equal(first, second):
            found.append(Difference(one.path, other.path, name, (first, second)))
    return found


def _all(layer: WeightedLayer, listed: Layers) -> dict[str, Any]:
    found = told(layer)
    found |= layer.more
    if isinstance(layer.kind, BatchNormalization):
        found.setdefault("statistics", "of the batch")
    if isinstance(layer.kind, Recurrent) and "bias" in layer.shapes:
        found.setdefault("biases", "one")
    found["dtype"] = listed.dtype(layer)
    if layer.frozen is not None:
        found["trainable"] = tuple(role for role in _trained(layer) if role not in layer.frozen)
    return found


def _unusual(layer: WeightedLayer, name: str, value: Any) -> bool:
    if name == "trainable":
        return value is not None and len(value) < len(_trained(layer))
    usual = _USUAL.get(name)
    if name == "activation":  # none for a layer without steps, tanh for one with them
        usual = (Function("tanh") if hasattr(layer.kind, "return_sequences") else LINEAR,)
    return value is not None and (usual is None or value not in usual)


def _trained(layer: WeightedLayer) -> list[str]:
    return [role for role in layer.shapes if role not in type(layer.kind).state]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-12)
    return one == other


def _shown(value: Any) -> str:
    if value is None:
        return "(in the model's code)"
    if isinstance(value, Function):
        return value.name if value.parameter is None else f"{value.name}({value.parameter:g})"
    if isinstance(value, tuple) and all(isinstance(each, str) for each in value):
        return ", ".join(value) or "nothing"
    if isinstance(value, tuple):
        return "×".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def kind_options(kind: type) -> tuple[str, ...]:
    """Return the fields of a kind, all of which a layer with code of its own leaves open."""
    return tuple(one.name for one in fields(kind))
