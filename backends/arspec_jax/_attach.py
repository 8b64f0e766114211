"""`attach`: find out what kind of model it is, and wrap it."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from arspec import Spec, SpecError
from arspec_jax._forward import Activation, Forward, Model
from arspec_jax._function import FunctionModel


def attach(
    model: Any,
    spec: Spec,
    *,
    activations: Mapping[str, Activation] | None = None,
    batched: bool = True,
    frozen: Sequence[str] = (),
) -> Forward:
    """Return a forward pass that gives the penalties of `spec` beside the output of `model`.

    `output, penalties = forward(...)`, whose arguments depend on the model:

    - NNX: `forward(model, x, ...)`; the module passed is the one that is read.
    - Linen: `forward(variables, x, ...)`, with the options of `Module.apply`.
    - Equinox: `forward(model, x, ...)`; a stateful model takes its `eqx.nn.State` too, and
      returns (output, state).
    - a function: `forward(params, x, ...)`; activations are named in it by `site`, and
      parameters by their path: params["hidden"]["kernel"] is the kernel of "hidden".

    Penalties are returned values: differentiate a loss that contains `penalties.total()`.
    `jit`, `grad` and `vmap` go around `forward`. Layers inside scan and checkpoint are read
    there; one inside scan counts once per iteration, and its weights once each.

    `forward(..., masks={"encoder/**": mask})` says per layer which positions are valid; the
    `seq_lengths` of a Flax RNN are such a mask for it already.

    Parameters
    ----------
    model : a flax.nnx, flax.linen or equinox module, or a function.
    spec : the rules. Each must meet a layer and fire in every pass.
    activations : for a layer path the function that belongs to it, or None for none, where
        the placement "output" cannot be found from the trace.
    batched : for Equinox, whose modules take one example. True: `forward` takes a batch in
        the first axis of every argument and maps the model over it, as `jax.vmap(model)`
        does, so that mean_over=("batch",) has its meaning; the axis is called "batch", and a
        State is not mapped. False: the arguments go to the
        model as they are.
    frozen : layers that training leaves alone, by path or glob: a rule with trainable_only
        counts 0 at their parameters. In NNX a variable that is no nnx.Param is frozen too.

    Returns
    -------
    A callable with the table `sites`.

    Raises
    ------
    SpecError: a rule matches nothing or never fires; `activations` does not fit.
    UnsupportedError: a layer has the placement, but it cannot be read; the text has the cure.

    Example
    -------
    >>> import arspec as ar, arspec_jax, jax.numpy as jnp
    >>> def model(params, x):
    ...     return x @ params["out"]["kernel"] + params["out"]["bias"]
    >>> spec = ar.Spec([ar.Rule(ar.L2(0.5), layer="**", placement="kernel")])
    >>> forward = arspec_jax.attach(model, spec)
    >>> params = {"out": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}}
    >>> output, penalties = forward(params, jnp.ones((4, 3)))
    >>> print(penalties.total(), penalties["out/kernel/l2"])
    3.0 3.0
    >>> print(forward.sites)
    rule       layer  tensor           shape  mean over  value
    kernel/l2  out    function.kernel  3×2    (sum)      3
    """
    if not isinstance(spec, Spec):
        raise SpecError(f"spec={spec!r}; expected a Spec, such as Spec([Rule(...)]) or load('spec.json').")
    if isinstance(frozen, str):
        raise SpecError(f"frozen={frozen!r}; expected a list of layers, such as [{frozen!r}].")
    return Forward(_model(model, batched), spec, activations, frozen)


def _model(model: Any, batched: bool) -> Model:
    # A model of a framework exists only if the framework has been imported.
    if "flax.nnx" in sys.modules and isinstance(model, sys.modules["flax.nnx"].Module):
        from arspec_jax._nnx import NnxModel

        return NnxModel(model)
    if "flax.linen" in sys.modules and isinstance(model, sys.modules["flax.linen"].Module):
        from arspec_jax._linen import LinenModel

        return LinenModel(model)
    if "equinox" in sys.modules and isinstance(model, sys.modules["equinox"].Module):
        from arspec_jax._equinox import EquinoxModel

        return EquinoxModel(model, batched)
    if not callable(model) or isinstance(model, type):
        raise SpecError(
            f"model is {model!r}; expected a flax.nnx, flax.linen or equinox module, or a function of (params, x)."
        )
    return FunctionModel(model)
