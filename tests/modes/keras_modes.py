"""Value and gradient of a penalty through Keras' backend, per execution mode, as NumPy arrays.

One process has one backend, so MODES holds the two modes of the one that runs.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

import keras
from arspec_keras import value

BACKEND = keras.backend.backend()

if BACKEND == "torch":
    import torch

    from modes.torch_modes import to_numpy, to_torch

    def to_native(x: np.ndarray) -> Any:
        return to_torch(np.asarray(x))

    def differentiate(function: Callable[..., Any], x: Any, cotangent: float, mask: Any) -> tuple[Any, Any]:
        tensor = x.detach().requires_grad_()
        found = function(tensor, mask)
        (gradient,) = torch.autograd.grad(found, tensor, torch.tensor(cotangent, dtype=found.dtype))
        return to_numpy(found), to_numpy(gradient)

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.compile(function, fullgraph=True, dynamic=False)

elif BACKEND == "jax":
    import jax
    import jax.numpy as jnp

    def to_native(x: np.ndarray) -> Any:
        return jnp.asarray(x)

    def differentiate(function: Callable[..., Any], x: Any, cotangent: float, mask: Any) -> tuple[Any, Any]:
        found, pull_back = jax.vjp(lambda x: function(x, mask), x)
        (gradient,) = pull_back(jnp.asarray(cotangent, found.dtype))
        return np.asarray(found), np.asarray(gradient)

    compiled = jax.jit

else:
    import tensorflow as tf

    def to_native(x: np.ndarray) -> Any:
        return tf.constant(x)

    def differentiate(function: Callable[..., Any], x: Any, cotangent: float, mask: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            found = function(x, mask)
        gradient = tape.gradient(found, x, tf.constant(cotangent, found.dtype))
        return np.asarray(found.numpy()), np.asarray(gradient.numpy())

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        return tf.function(function, jit_compile=True, autograph=False)


@cache
def _function(penalty: Any, options: Any, shape: Any, dtype: str, unmasked: bool, compile: bool) -> Callable[..., Any]:
    def function(x: Any, mask: Any) -> Any:
        return value(penalty, x, mask=mask, **dict(options))

    return compiled(function) if compile else function


def _mode(compile: bool) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    def run(penalty: Any, x: np.ndarray, *, cotangent: float = 1.0, mask: Any = None, **options: Any) -> Any:
        given = None if mask is None else to_native(mask)
        known = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in sorted(options.items()))
        function = _function(penalty, known, x.shape, x.dtype.name, mask is None, compile)
        return differentiate(function, to_native(x), cotangent, given)

    return run


MODES = {f"keras_{BACKEND}_eager": _mode(False), f"keras_{BACKEND}_compiled": _mode(True)}
