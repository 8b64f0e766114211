"""A name for a tensor inside a traced function: an identity that the trace remembers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from arspec import SpecError
from arspec._errors import unknown
from arspec._placements import ACTIVATIONS

Array = Any

site_p = Primitive("arspec_site")

# Placements that belong to one step of a recurrent layer.
STEPS = (
    "hidden_state",
    "cell_state",
    "input_gate",
    "forget_gate",
    "cell_gate",
    "output_gate",
    "reset_gate",
    "update_gate",
)


class Label(NamedTuple):
    """What is static about a named tensor.

    Attributes
    ----------
    layer, placement : its name.
    walk : "" for a whole tensor; "step" for one step of a recurrent cell, and "reversed" for
        one of a walk that meets the last step first; "named" for a tensor that a person
        named, which is one step if it stands in a scan.
    beside : what the further operands are: "mask", over the leading axes of the sequence, and
        "before", the state a cell starts from.
    mapped : over how many axes vmap has mapped it; they stand in front.
    """

    layer: str
    placement: str
    walk: str = ""
    beside: tuple[str, ...] = ()
    mapped: int = 0


def site(x: Array, /, *, layer: str, placement: str, mask: Array | None = None) -> Array:
    """Name the tensor `x` inside a plain function, so that rules can meet it; return it unchanged.

    Parameters
    ----------
    x : array of any shape and floating dtype.
    layer : path that rules use, such as "hidden" or "encoder/0".
    placement : of an activation, such as "pre_activation", "output" or "hidden_state".
    mask : boolean array over the leading axes of x, true where x is valid, or None. Penalties
        at this name count valid positions only.

    Notes
    -----
    Outside `attach` it does nothing; compiled, it costs nothing. A name used several times
    counts each time. In the body of a scan a state or a gate is one step of a sequence, whose
    axis "time" is that of the scan; any other tensor counts once per iteration.

    Raises
    ------
    SpecError: `layer` is not a path, `placement` is not a placement of activations, or the
        mask is not boolean.

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
    walk = "named" if placement in STEPS else ""
    return mark(jnp.asarray(x), layer, placement, walk=walk, mask=mask)


def mark(x: Array, layer: str, placement: str, *, walk: str = "", **beside: Array | None) -> Array:
    """Bind the identity that carries the name; a result that is no array of floats stays as it is.

    `beside` may hold `mask` and `before`, as in `Label`.
    """
    if not isinstance(x, jax.Array) or not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    given = {name: jnp.asarray(operand) for name, operand in beside.items() if operand is not None}
    if "mask" in given and given["mask"].dtype != bool:
        raise SpecError(f"{layer}/{placement}: mask has dtype {given['mask'].dtype}; expected bool.")
    return site_p.bind(x, *given.values(), label=Label(layer, placement, walk, tuple(given)))


def _jvp(primals: Any, tangents: Any, *, label: Label) -> tuple[Array, Any]:
    # The tangent is not the tensor that was named, so it passes without a name.
    return site_p.bind(*primals, label=label), tangents[0]


def _batch(operands: Any, dims: Any, *, label: Label) -> tuple[Array, int | None]:
    size = next(x.shape[d] for x, d in zip(operands, dims, strict=True) if d is not None)
    front = [_at_front(x, d, size) for x, d in zip(operands, dims, strict=True)]
    return site_p.bind(*front, label=label._replace(mapped=label.mapped + 1)), 0


def _at_front(x: Array, dim: int | None, size: int) -> Array:
    return jnp.broadcast_to(x, (size, *x.shape)) if dim is None else jnp.moveaxis(x, dim, 0)


site_p.def_impl(lambda x, *beside, label: x)
site_p.def_abstract_eval(lambda aval, *beside, label: aval)
ad.primitive_jvps[site_p] = _jvp
batching.primitive_batchers[site_p] = _batch
mlir.register_lowering(site_p, lambda context, x, *beside, label: [x])
