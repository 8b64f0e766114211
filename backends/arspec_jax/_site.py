"""A name for a tensor inside a traced function: an identity that the trace remembers."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from arspec import SpecError
from arspec._errors import unknown
from arspec._placements import ACTIVATIONS

Array = Any

site_p = Primitive("arspec_site")


def site(x: Array, /, *, layer: str, placement: str) -> Array:
    """Name the tensor `x` inside a plain function, so that rules can meet it; return it unchanged.

    Parameters
    ----------
    x : array of any shape and floating dtype.
    layer : path that rules use, such as "hidden" or "encoder/0".
    placement : "pre_activation" or "output".

    Notes
    -----
    Outside `attach` it does nothing; compiled, it costs nothing. A name used several times
    counts each time.

    Raises
    ------
    SpecError: `layer` is not a path, or `placement` is not a placement of activations.

    Example
    -------
    >>> import arspec as ar, arspec_jax, jax, jax.numpy as jnp
    >>> def model(params, x):
    ...     h = arspec_jax.site(x @ params["kernel"], layer="hidden", placement="pre_activation")
    ...     return jax.nn.relu(h)
    >>> spec = ar.Spec([ar.Rule(ar.L1(0.5), layer="hidden", placement="pre_activation")])
    >>> _, penalties = arspec_jax.attach(model, spec)({"kernel": -jnp.eye(2)}, jnp.ones((3, 2)))
    >>> print(penalties["hidden/pre_activation/l1"])
    1.0
    """
    if not isinstance(layer, str) or not layer.strip("./ "):
        raise SpecError(f"site: layer={layer!r}; expected a path such as 'hidden'.")
    if placement not in ACTIVATIONS:
        raise unknown("placement of an activation", placement, ACTIVATIONS)
    return mark(jnp.asarray(x), layer, placement)


def mark(x: Array, layer: str, placement: str) -> Array:
    """Bind the identity that carries the name; a result that is no array stays as it is."""
    if not isinstance(x, jax.Array):
        return x
    return site_p.bind(x, layer=layer, placement=placement)


def _jvp(primals: Any, tangents: Any, **name: str) -> tuple[Array, Any]:
    # The tangent is not the tensor that was named, so it passes without a name.
    return site_p.bind(*primals, **name), tangents[0]


def _batch(operands: Any, dims: Any, **name: str) -> tuple[Array, int]:
    return site_p.bind(jnp.moveaxis(operands[0], dims[0], 0), **name), 0


site_p.def_impl(lambda x, **name: x)
site_p.def_abstract_eval(lambda aval, **name: aval)
ad.primitive_jvps[site_p] = _jvp
batching.primitive_batchers[site_p] = _batch
mlir.register_lowering(site_p, lambda context, x, **name: [x])
