"""What Flax's own layers are, by class name; the same names in NNX and Linen."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from arspec_jax import _cells, _roles
from arspec_jax._roles import Has, Role

AFFINE = ("Linear", "Dense", "Conv", "ConvTranspose", "ConvLocal", "LinearGeneral", "DenseGeneral", "Einsum")
_WITHOUT_AXES = ("ConvLocal", "LinearGeneral", "DenseGeneral", "Einsum")
_ATTENTION = ("MultiHeadAttention", "MultiHeadDotProductAttention")
_NORMALIZATION = ("BatchNorm", "LayerNorm", "GroupNorm", "RMSNorm", "InstanceNorm")
_CELLS = {
    "OptimizedLSTMCell": _cells.LSTM,
    "LSTMCell": _cells.LSTM,
    "GRUCell": _cells.GRU,
    "SimpleCell": _cells.SIMPLE,
}
_RECURRENT_ROLES = {_cells.LSTM: _roles.lstm, _cells.GRU: _roles.gru, _cells.SIMPLE: _roles.simple}


def class_of(module: Any) -> type:
    """Return the class of a module, also while it is watched."""
    cls = type(module)
    return vars(cls).get("__original__", cls)


def has_class(module: Any, names: tuple[str, ...]) -> bool:
    """Return whether a module is a layer of Flax itself of one of these classes, or a subclass."""
    return any(cls.__name__ in names and cls.__module__.startswith("flax.") for cls in class_of(module).__mro__)


def _is(module: Any, names: tuple[str, ...]) -> bool:
    """Return whether a module is a Flax layer of one of these classes whose call is not overridden."""
    owner = next((cls for cls in class_of(module).__mro__ if "__call__" in vars(cls)), object)
    return owner.__module__.startswith("flax.") and has_class(module, names)


def is_affine(module: Any) -> bool:
    """Return whether the result of a module is its affine map."""
    return _is(module, AFFINE)


def is_rnn(module: Any) -> bool:
    """Return whether a module walks a cell over time."""
    return _is(module, ("RNN",))


def is_bidirectional(module: Any) -> bool:
    """Return whether a module walks in both directions."""
    return _is(module, ("Bidirectional",))


def is_cell(module: Any) -> bool:
    """Return whether a module is one step of a recurrent layer."""
    return has_class(module, ("RNNCellBase",))


def cell_kind(module: Any) -> str | None:
    """Return "lstm", "gru" or "simple", or None for a cell whose gates are not known."""
    return next((kind for name, kind in _CELLS.items() if _is(module, (name,))), None)


def roles_of(module: Any, has: Has) -> dict[str, Role]:
    """Return the parameters of a layer of Flax by placement; none for a layer of another kind."""
    return _roles.present(_roles_of(module, has), has)


def _roles_of(module: Any, has: Has) -> Mapping[str, Role]:
    if has_class(module, _WITHOUT_AXES):
        return {}
    if has_class(module, ("Conv", "ConvTranspose")):
        count = len(tuple(module.kernel_size))
        order = "output input" if getattr(module, "transpose_kernel", False) else "input output"
        axes = _roles.spatial_axes(count, order)
        roles = {} if axes is None else _roles.kernel_and_bias(count + 2, axes)
        if roles and has_class(module, ("Conv",)):
            form = _roles.depthwise(module.feature_group_count)
            roles["kernel"] = replace(roles["kernel"], form=form)
        return roles
    if has_class(module, ("Linear", "Dense")):
        return _roles.kernel_and_bias(2, "input output")
    if has_class(module, ("Embed",)):
        return {"embeddings": Role(("embedding",), "input output", 2)}
    if has_class(module, _NORMALIZATION):
        return _roles.scale_and_shift(_feature_axes(module))
    if has_class(module, _ATTENTION):
        return _roles.attention()
    kind = cell_kind(module)
    return {} if kind is None else _RECURRENT_ROLES[kind](has)


def _feature_axes(module: Any) -> int:
    """Return how many axes the scale of a normalization has."""
    axes = getattr(module, "feature_axes", -1)
    return 1 if isinstance(axes, int) else len(tuple(axes))


def is_layer(module: Any) -> bool:
    """Return whether a module of Flax with others inside is one layer to a rule."""
    return has_class(module, (*_ATTENTION, "RNN", "Bidirectional", "RNNCellBase"))


def step_placements(module: Any) -> tuple[str, ...]:
    """Return the placements of every step of a cell: states and gates."""
    kind = cell_kind(module)
    if kind is None:
        return ()
    gates = () if getattr(module, "residual", False) else _cells.GATES[kind]
    return (*_cells.STATES[kind], *gates)


def cell_of(module: Any, weights: Mapping[str, Any]) -> _cells.Cell:
    """Return what a step of a known cell needs."""
    kind = cell_kind(module)
    assert kind is not None
    functions = {"activation": module.activation_fn, "dtype": module.dtype}
    if kind != _cells.SIMPLE:
        functions["gate"] = module.gate_fn
    return _cells.Cell(kind, weights, **functions)


def refusals(module: Any) -> Mapping[str, str]:
    """Return why a parameter or an activation of a module cannot be served."""
    kind = class_of(module).__name__
    if is_cell(module) and cell_kind(module) is None:
        reason = f"the states, gates and weights of a {kind} are not known. Name its tensors by arspec_jax.site."
        return dict.fromkeys((*_cells.ALL, "kernel", "recurrent_kernel", "bias"), reason)
    if has_class(module, ("SimpleCell",)) and module.residual:
        reason = "with residual=True its affine map is not what enters its activation function. Take hidden_state."
        return {"pre_activation": reason}
    if has_class(module, _WITHOUT_AXES):
        reason = f"which axes of a {kind} are input and output is not fixed. Use a Dense or Linear layer."
        return {"kernel": reason, "bias": reason}
    return {}
