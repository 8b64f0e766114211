"""`statistics`: what the activations of a model are like over a set of data."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from arspec import Spec, SpecError
from arspec._axes import resolve_axes
from arspec._statistics import Accumulator, Statistics, rules_at_activations
from arspec_jax._forward import Forward
from arspec_jax._sequences import Seen


def statistics(forward: Forward, model: Any, data: Iterable[Any], spec: Spec | None = None) -> Statistics:
    """Run a model over data and describe the activations that a Spec names.

    Parameters
    ----------
    forward : what `attach` returned.
    model : what `forward` takes first: the module, the variables or the parameters. It runs as
        it is, so put it into evaluation mode; what it changes in itself (an NNX module) is
        not kept.
    data : batches: a list of arrays, or one array, which is one batch. Of a tuple or list the
        first entry is the input; a dict is the keyword arguments.
    spec : its rules at activations say where to look, and nothing else. None: the attached
        ones.

    Returns
    -------
    A table: mean activation, fraction of exact zeros, dead units and Hoyer sparsity per site;
    `to_document()`, `plot()`. Padded steps of an RNN with seq_lengths do not count.

    Raises
    ------
    SpecError: no rule is at an activation, a rule matches nothing or never fires, or there
        are no data.

    Example
    -------
    >>> import arspec as ar, arspec_jax, jax, jax.numpy as jnp
    >>> def model(params, x):
    ...     h = arspec_jax.site(x @ params["kernel"], layer="hidden", placement="pre_activation")
    ...     return jax.nn.relu(h)
    >>> spec = ar.Spec([ar.Rule(ar.L1(0.5), layer="hidden", placement="output")])
    >>> print(arspec_jax.statistics(arspec_jax.attach(model, spec), {"kernel": jnp.eye(2)}, [-jnp.ones((3, 2))]))
    layer   placement  units  positions  mean  zeros    dead    hoyer
    hidden  output     2      3          0     100.00%  2 of 2  -
    """
    if not isinstance(forward, Forward):
        raise SpecError(f"forward is a {type(forward).__name__}; expected what arspec_jax.attach returned.")
    rules = rules_at_activations(forward.spec if spec is None else spec)
    seen, count = Accumulator(), 0
    for batch in [data] if hasattr(data, "shape") or isinstance(data, Mapping) else data:
        args, kwargs = _arguments(batch)
        for (layer, placement), (tensors, axes) in forward.activations(
            Spec(rules), _copy(model), *args, **kwargs
        ).items():
            for tensor in tensors:
                _add(seen, layer, placement, tensor, axes)
        count += 1
    if not count:
        raise SpecError("there are no data: expected at least one batch.")
    return seen.result()


def _arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(batch, Mapping):
        return (), dict(batch)
    return (batch[0] if isinstance(batch, tuple | list) else batch,), {}


def _copy(model: Any) -> Any:
    """Return a copy of a module that changes itself; everything else is not changed by a pass."""
    nnx = sys.modules.get("flax.nnx")
    return nnx.clone(model) if nnx is not None and isinstance(model, nnx.Module) else model


def _add(seen: Accumulator, layer: str, placement: str, tensor: Seen, axes: str | None) -> None:
    """Add a tensor, call by call."""
    array = np.asarray(tensor.array, np.float64)
    shape = array.shape[tensor.calls :]
    names = resolve_axes(len(shape), tensor.axes or axes).names
    mask = None
    if tensor.mask is not None:
        own = np.asarray(tensor.mask)
        own = own.reshape(
            own.shape[: tensor.mask_calls] + (1,) * (tensor.calls - tensor.mask_calls) + own.shape[tensor.mask_calls :]
        )
        mask = np.broadcast_to(own.reshape(own.shape + (1,) * (array.ndim - own.ndim)), array.shape).reshape(-1, *shape)
    for index, one in enumerate(array.reshape(-1, *shape)):
        seen.add(layer, placement, one, names, None if mask is None else mask[index])
