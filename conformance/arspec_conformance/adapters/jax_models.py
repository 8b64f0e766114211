"""Reference networks as NNX modules, their penalties under jit."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import arspec_jax
from arspec import Spec
from arspec.layers import Convolution, Dense, Network
from arspec_conformance._models import Measured

ACTIVATIONS = {"linear": lambda x: x, "relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}


class _Chain(nnx.Module):
    """Layers by name, each followed by its activation function."""

    def __init__(self, network: Network) -> None:
        self.plan = tuple((name, layer.activation) for name, layer in network.layers.items())  # pyright: ignore
        for name, layer in network.layers.items():
            setattr(self, name, _module(layer))

    def __call__(self, x: jax.Array) -> jax.Array:
        for name, activation in self.plan:
            x = ACTIVATIONS[activation](getattr(self, name)(x))
        return x


class JaxModel:
    """A chain of NNX layers with a Spec on it."""

    def __init__(self, network: Network, spec: Spec, device: str) -> None:
        self._chain = _Chain(network)
        forward = arspec_jax.attach(self._chain, spec)

        def total(model: Any, x: jax.Array) -> Any:
            _, penalties = forward(model, x)
            return penalties.total(), dict(penalties)

        self._step = nnx.jit(nnx.value_and_grad(total, has_aux=True))

    def measure(self, x: np.ndarray) -> Measured:
        (total, values), gradients = self._step(self._chain, jnp.asarray(x, jnp.float32))
        found = {
            f"{name}/{role}": np.asarray(gradients[name][role][...])
            for name, _ in self._chain.plan
            for role in ("kernel", "bias")
            if role in gradients[name]
        }
        return Measured({key: float(value) for key, value in values.items()}, float(total), found)

    def assign(self, parameters: Mapping[str, np.ndarray]) -> None:
        for path, array in parameters.items():
            name, role = path.split("/")
            getattr(getattr(self._chain, name), role)[...] = jnp.asarray(array, jnp.float32)


def _module(layer: Any) -> nnx.Linear | nnx.Conv:
    made = _made(layer)
    made.kernel[...] = jnp.asarray(layer.kernel, jnp.float32)
    if layer.bias is not None and made.bias is not None:
        made.bias[...] = jnp.asarray(layer.bias, jnp.float32)
    return made


def _made(layer: Any) -> nnx.Linear | nnx.Conv:
    options = {"use_bias": layer.bias is not None, "rngs": nnx.Rngs(0)}
    if isinstance(layer, Convolution):
        *sizes, inputs, outputs = layer.kernel.shape
        return nnx.Conv(inputs, outputs, tuple(sizes), padding="VALID", **options)
    if isinstance(layer, Dense):
        return nnx.Linear(*layer.kernel.shape, **options)
    raise NotImplementedError(f"no NNX module for {type(layer).__name__}")
