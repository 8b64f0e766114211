"""What readers of Keras layers share: activation functions by name, and weights by role."""

from typing import Any

import keras
from arspec.port import _kinds as kinds
from arspec.port._kinds import Function, refuse

Shapes = tuple[tuple[int | None, ...], ...]
Held = dict[str, Any]

_PLAIN = {"swish": "silu", "hard_swish": "hard_silu"}
WITH_PARAMETER = {"leaky_relu": 0.2, "elu": 1.0, "celu": 1.0}


def function(activation: Any, path: str) -> Function:
    """Return a Keras activation function by name."""
    if activation is None:
        return Function()
    found = keras.activations.serialize(activation)
    name = _PLAIN.get(found, found) if isinstance(found, str) else None
    if name not in kinds.FUNCTIONS or keras.activations.get(found) is not activation:
        raise refuse(path, f"the activation {activation!r}", f"Use one of {', '.join(kinds.FUNCTIONS)}.")
    return Function(str(name), WITH_PARAMETER.get(str(name)))


def weights(layer: Any, **attributes: str) -> Held:
    """Return by role the variables that a layer has as attributes."""
    found = {role: getattr(layer, name, None) for role, name in attributes.items()}
    return {role: variable for role, variable in found.items() if variable is not None}
