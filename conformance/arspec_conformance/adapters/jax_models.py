"""Reference networks as NNX modules, their penalties under jit."""

from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import arspec_jax
from arspec import Spec
from arspec.layers import BatchNormalization, Convolution, Dense, Embedding, Network, SimpleRNN
from arspec_conformance._models import Measured

ACTIVATIONS = {"linear": lambda x: x, "relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}


# Where NNX keeps a parameter, by the role of the reference; for others it is of that name.
PATHS: dict[type, dict[str, tuple[str, ...]]] = {
    SimpleRNN: {
        "kernel": ("cell", "dense_i", "kernel"),
        "recurrent_kernel": ("cell", "dense_h", "kernel"),
        "bias": ("cell", "dense_i", "bias"),
    },
    Embedding: {"embeddings": ("embedding",)},
    BatchNormalization: {"scale": ("scale",), "shift": ("bias",)},
}


class _Chain(nnx.Module):
    """Layers by name, each followed by its activation function."""

    def __init__(self, network: Network) -> None:
        self.plan = tuple((name, _activation(layer)) for name, layer in network.layers.items())
        known: dict[int, nnx.Param] = {}
        for name, layer in network.layers.items():
            setattr(self, name, _module(layer, known))

    def __call__(self, x: jax.Array) -> jax.Array:
        for name, activation in self.plan:
            x = ACTIVATIONS[activation](getattr(self, name)(x))
        return x


class JaxModel:
    """A chain of NNX layers with a Spec on it."""

    def __init__(self, network: Network, spec: Spec, device: str) -> None:
        self._chain, self._paths = _Chain(network), dict(_paths(network))
        forward = arspec_jax.attach(self._chain, spec)

        def total(model: Any, x: jax.Array) -> Any:
            _, penalties = forward(model, x)
            return penalties.total(), dict(penalties)

        self._step = nnx.jit(nnx.value_and_grad(total, has_aux=True))

    def measure(self, x: np.ndarray) -> Measured:
        given = jnp.asarray(x, jnp.float32 if x.dtype.kind == "f" else jnp.int32)
        (total, values), gradients = self._step(self._chain, given)
        found = {name: np.asarray(_at(gradients, path)[...]) for name, path in self._paths.items()}
        return Measured({key: float(value) for key, value in values.items()}, float(total), found)

    def assign(self, parameters: Mapping[str, np.ndarray]) -> None:
        for name, array in parameters.items():
            first, *rest = self._paths[name]
            reduce(getattr, rest, getattr(self._chain, first))[...] = jnp.asarray(array, jnp.float32)


def _paths(network: Network) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the name of each parameter and where it is; NNX, too, keeps a shared one at its first place."""
    known: set[int] = set()
    for name, layer in network.layers.items():
        for role, array in layer.parameters().items():
            if id(array) not in known:
                yield f"{name}/{role}", (name, *PATHS.get(type(layer), {}).get(role, (role,)))
            known.add(id(array))


def _at(state: Any, path: tuple[str, ...]) -> Any:
    return reduce(lambda found, key: found[key], path, state)


def _activation(layer: Any) -> str:
    return layer.activation if isinstance(layer, Dense | Convolution) else "linear"


def _module(layer: Any, known: dict[int, nnx.Param]) -> nnx.Module:
    made = _made(layer)
    for role, array in layer.parameters().items():
        *rest, last = PATHS.get(type(layer), {}).get(role, (role,))
        # A kernel that two layers of the reference share is one parameter here too.
        parameter = known.setdefault(id(array), nnx.Param(jnp.asarray(array, jnp.float32)))
        setattr(reduce(getattr, rest, made), last, parameter)
    return made


def _made(layer: Any) -> Any:
    rngs = nnx.Rngs(0)
    if isinstance(layer, Convolution):
        *sizes, inputs, outputs = layer.kernel.shape
        return nnx.Conv(inputs, outputs, tuple(sizes), padding="VALID", use_bias=layer.bias is not None, rngs=rngs)
    if isinstance(layer, Dense):
        return nnx.Linear(*layer.kernel.shape, use_bias=layer.bias is not None, rngs=rngs)
    if isinstance(layer, SimpleRNN):
        function = ACTIVATIONS[layer.activation]
        return nnx.RNN(nnx.SimpleCell(len(layer.kernel), layer.units, activation_fn=function, rngs=rngs), rngs=rngs)
    if isinstance(layer, Embedding):
        return nnx.Embed(*layer.embeddings.shape, rngs=rngs)
    if isinstance(layer, BatchNormalization):
        size = len(layer.moving_mean)
        return nnx.BatchNorm(size, use_running_average=True, epsilon=layer.epsilon, rngs=rngs)
    raise NotImplementedError(f"no NNX module for {type(layer).__name__}")
