"""`layers` and `assign` for JAX: the layers with weights of a model that exists, and new weights for them."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from arspec import SpecError
from arspec.port._weighted import Layers


def layers(model: Any, /, *inputs: Any, state: Any = None, **options: Any) -> Layers:
    """List the layers with weights of a JAX model, each with its weights in canonical layout.

    Parameters
    ----------
    model : a Flax NNX, Linen or Equinox module.
    inputs : for NNX what the model takes, or nothing: a call is traced for the order of the
        layers, and nothing is computed. For Linen the variables, then what `apply` takes: its
        layers exist only while they run. For Equinox nothing: the order is that of the fields.
    state : of an Equinox model, where batch normalization keeps its statistics.
    options : of the call, such as `train=False` or `rngs=...`.

    Returns
    -------
    A `Layers`; print it. Directions of a Bidirectional are "bi/forward" and "bi/backward"; a
    single layer is "model". What arrays are that belong to no known layer is `unknown`, and
    an error where they are to be moved.

    Raises
    ------
    SpecError: model is none of these, or variables or a state are missing.

    Notes
    -----
    Which layer reads which is not looked for in JAX, so that equal layers in a chain are told
    apart only against a model of Keras or PyTorch whose order is known, or by names.

    Example
    -------
    >>> from flax import nnx
    >>> print(layers(nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.relu)))
    layer     kind   weights             tensors
    layers/0  Dense  kernel 2×3, bias 3  layers/0/kernel, layers/0/bias
    """
    framework = _framework(model)
    if framework == "nnx":
        from arspec_jax.port._weighted_nnx import layers_nnx

        return layers_nnx(model, inputs, options)
    if framework == "linen":
        from arspec_jax.port._weighted_linen import layers_linen

        return layers_linen(model, inputs[0] if inputs else None, inputs[1:], options)
    _require_none("layers(model, state=state)", inputs, options)
    from arspec_jax.port._weighted_equinox import layers_equinox

    return layers_equinox(model, state)


def assign(model: Any, weights: Mapping[str, np.ndarray], /, *inputs: Any, state: Any = None, **options: Any) -> Any:
    """Give the layers of a JAX model these weights: an NNX module changes, of others a new one is returned.

    Parameters
    ----------
    model, inputs, state, options : as for `layers`.
    weights : canonical, by "layer/role", as `layers(...).weights` has them: every role of each
        layer that is named; layers that are not named stay as they are.

    Returns
    -------
    None for NNX. For Linen new variables. For Equinox a new module, or (module, state) where a
    state is given.

    Raises
    ------
    SpecError: a weight is missing, foreign or of another shape; nothing was changed.
    UnsupportedError: a layer cannot be described, or has no place for a weight.
    """
    framework = _framework(model)
    if framework == "nnx":
        from arspec_jax.port._weighted_nnx import assign_nnx

        return assign_nnx(model, weights)
    if framework == "linen":
        from arspec_jax.port._weighted_linen import assign_linen

        return assign_linen(model, inputs[0] if inputs else None, weights, inputs[1:], options)
    _require_none("assign(model, weights, state=state)", inputs, options)
    from arspec_jax.port._weighted_equinox import assign_equinox

    return assign_equinox(model, weights, state)


def arrays(model: Any, /) -> dict[str, np.ndarray]:
    """Return the arrays of an NNX or Equinox module by the names of a map, for `arspec.port.written_layers`.

    Raises
    ------
    SpecError: model is neither.
    """
    if _framework(model) == "nnx":
        from arspec_jax.port._check_nnx import variables_of

        return {name: np.asarray(variable.get_value()) for name, variable in variables_of(model).items()}
    if _framework(model) == "equinox":
        from arspec_jax.port._check_equinox import arrays_of

        return {name: np.asarray(array) for name, array in arrays_of(model).items()}
    raise SpecError(f"model is a {type(model).__name__}; nothing is written for Linen.")


def _framework(model: Any) -> str:
    for module, name in (("flax.nnx", "nnx"), ("flax.linen", "linen"), ("equinox", "equinox")):
        if module in sys.modules and isinstance(model, sys.modules[module].Module):
            return name
    raise SpecError(f"model is a {type(model).__name__}; expected a flax.nnx, flax.linen or equinox module.")


def _require_none(call: str, inputs: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    if inputs or options:
        raise SpecError(f"of an Equinox module no call is made: {call}.")
