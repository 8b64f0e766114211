"""What Equinox's own layers are."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from arspec._axes import SPATIAL_AXES
from arspec_jax import _cells, _roles
from arspec_jax._function import KERNEL_NAMES
from arspec_jax._roles import PROJECTIONS, Role, kernel_and_bias, scale_and_shift, transposed, update_first

_CONVOLUTIONS = (eqx.nn.Conv, eqx.nn.ConvTranspose)
_AFFINE = (eqx.nn.Linear, *_CONVOLUTIONS)
_WHOLE = (eqx.nn.LayerNorm, eqx.nn.RMSNorm)  # whose scale has the shape of an example
_PER_CHANNEL = (eqx.nn.GroupNorm, eqx.nn.BatchNorm)
_CELLS = ((eqx.nn.LSTMCell, _cells.LSTM), (eqx.nn.GRUCell, _cells.GRU))
_KNOWN = (*_AFFINE, *_WHOLE, *_PER_CHANNEL, eqx.nn.Embedding, eqx.nn.MultiheadAttention, *(c for c, _ in _CELLS))


def class_of(layer: Any) -> type:
    """Return the class of a layer, also while it is watched."""
    return vars(type(layer)).get("__original__", type(layer))


def _is(layer: Any, classes: tuple[type, ...]) -> bool:
    """Return whether a layer is of one of these classes and its call is not overridden."""
    owner = next((cls for cls in class_of(layer).__mro__ if "__call__" in vars(cls)), object)
    return isinstance(layer, classes) and owner.__module__.startswith("equinox.")


def is_affine(layer: Any) -> bool:
    """Return whether the result of a layer is its affine map."""
    return _is(layer, _AFFINE)


def makes_weights(layer: Any) -> bool:
    """Return whether a layer computes the weights of the layer inside it."""
    return isinstance(layer, eqx.nn.WeightNorm | eqx.nn.SpectralNorm)


def cell_kind(layer: Any) -> str | None:
    """Return "lstm" or "gru" for a recurrent cell."""
    return next((kind for cls, kind in _CELLS if _is(layer, (cls,))), None)


def step_placements(layer: Any) -> tuple[str, ...]:
    """Return the placements of every step of a cell: states and gates."""
    kind = cell_kind(layer)
    return () if kind is None else (*_cells.STATES[kind], *_cells.GATES[kind])


def axes_of(layer: Any) -> str | None:
    """Return the names of the axes of a layer's input and result for one example, or None for the default ones."""
    if isinstance(layer, _CONVOLUTIONS) and layer.num_spatial_dims in SPATIAL_AXES:
        return f"feature {SPATIAL_AXES[layer.num_spatial_dims]}"
    return "time feature" if isinstance(layer, eqx.nn.MultiheadAttention) else None


def roles_of(layer: Any) -> dict[str, Role]:
    """Return the parameters of a layer of Equinox by placement; none for a layer of another kind."""
    return _roles.present(_roles_of(layer), lambda leaf: eqx.is_array(_leaf(layer, leaf)))


def _leaf(layer: Any, leaf: str) -> Any:
    for name in leaf.split("/"):
        layer = getattr(layer, name, None)
    return layer


def _roles_of(layer: Any) -> dict[str, Role]:
    if not _is(layer, _KNOWN):
        return {}
    if isinstance(layer, eqx.nn.Linear):
        return kernel_and_bias(2, "output input", "weight")
    if isinstance(layer, _CONVOLUTIONS):
        is_depthwise = isinstance(layer, eqx.nn.Conv) and layer.groups == layer.in_channels > 1
        return _convolution(layer.num_spatial_dims, layer.in_channels if is_depthwise else None)
    if isinstance(layer, eqx.nn.Embedding):
        return {"embeddings": Role(("weight",), "input output", 2)}
    if isinstance(layer, eqx.nn.MultiheadAttention):
        return _attention()
    if isinstance(layer, _PER_CHANNEL):
        return scale_and_shift(1, "weight")
    kind = cell_kind(layer)
    return scale_and_shift(len(layer.shape), "weight") if kind is None else _recurrent(kind)


def _convolution(count: int, channels: int | None) -> dict[str, Role]:
    """Return the roles of a convolution: weight (output, input, spatial), bias (output, 1, ...).

    With a group per channel the weight is (channels · M, 1, spatial), to a penalty (channels, M, spatial).
    """
    if count not in SPATIAL_AXES:
        return {}
    kernel = Role(("weight",), f"output input {SPATIAL_AXES[count]}", count + 2)
    if channels is not None:
        kernel = Role(
            ("weight",),
            f"input output {SPATIAL_AXES[count]}",
            count + 2,
            lambda arrays: jnp.reshape(arrays[0], (channels, -1, *arrays[0].shape[2:])),
        )
    return {"kernel": kernel, "bias": Role(("bias",), "output", count + 1, _roles.flat)}


def _attention() -> dict[str, Role]:
    names = (*PROJECTIONS, "output")
    found = {f"{name}_kernel": Role((f"{name}_proj/weight",), "output input", 2) for name in names}
    return found | {f"{name}_bias": Role((f"{name}_proj/bias",), "output", 1) for name in names}


def _recurrent(kind: str) -> dict[str, Role]:
    """Return the roles of a cell: weight_ih (gates · units, input), and so on, as `arspec.layers` orders them."""
    is_gru = kind == _cells.GRU
    form = (lambda arrays: update_first([jnp.transpose(arrays[0])])) if is_gru else transposed
    return {
        "kernel": Role(("weight_ih",), "input output", 2, form),
        "recurrent_kernel": Role(("weight_hh",), "input output", 2, form),
        "bias": Role(("bias", "bias_n") if is_gru else ("bias",), "output", 1, update_first if is_gru else _roles.only),
    }


def refusals(layer: Any) -> dict[str, str]:
    """Return why a parameter of a layer cannot be served: it is a user's."""
    own = [name for name in KERNEL_NAMES if eqx.is_array(vars(layer).get(name))]
    if not own or _is(layer, _KNOWN):
        return {}
    kind = class_of(layer).__name__
    reason = f"a {kind} is not a layer whose axes are known. Hold an eqx.nn.Linear inside it, or attach a function."
    return {"kernel": reason, "bias": reason}
