"""The modes in which JAX runs a penalty: op by op, and compiled together with its caller."""

from collections.abc import Callable
from functools import cache
from typing import Any

import arspec_jax
import jax
import jax.numpy as jnp
import numpy as np

Result = tuple[np.ndarray, np.ndarray]


def _differentiable(penalty: Any, axes: Any, mean_over: Any, masked: bool) -> Callable[..., Any]:
    """Return (x, mask, cotangent) -> (cotangent · value, value), for value_and_grad."""

    def scaled(x: jax.Array, mask: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
        given = mask if masked else None
        value = arspec_jax.value(penalty, x, axes=axes, mean_over=mean_over, mask=given)
        return cotangent * value, value

    return jax.value_and_grad(scaled, has_aux=True)


_compiled = cache(lambda *options: jax.jit(_differentiable(*options)))


def _run(
    build: Callable[..., Any], penalty: Any, x: np.ndarray, axes: Any, mean_over: Any, mask: Any, cotangent: float
) -> Result:
    wide = x.dtype == np.float64
    with jax.enable_x64(wide):
        function = build(penalty, axes, mean_over, mask is not None)
        upstream = jnp.asarray(cotangent, jnp.float64 if wide else jnp.float32)
        given = jnp.ones((), bool) if mask is None else jnp.asarray(mask)
        (_, value), gradient = function(jnp.asarray(x), given, upstream)
        return np.asarray(value), np.asarray(gradient)


def _eager(penalty, x, *, axes=None, mean_over=(), mask=None, cotangent=1.0) -> Result:
    return _run(_differentiable, penalty, x, axes, mean_over, mask, cotangent)


def _jit(penalty, x, *, axes=None, mean_over=(), mask=None, cotangent=1.0) -> Result:
    return _run(_compiled, penalty, x, axes, mean_over, mask, cotangent)


MODES: dict[str, Callable[..., Result]] = {"jax_eager": _eager, "jax_jit": _jit}
