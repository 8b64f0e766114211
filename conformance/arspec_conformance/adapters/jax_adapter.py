"""arspec_jax through the contract: eager, jit and vmap, with x64 globally off but for float64."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import arspec_jax
from arspec import Spec
from arspec.layers import Network
from arspec_conformance._adapter import CAPABILITIES, COMPILED, COSTLY, Mode
from arspec_conformance.adapters.jax_models import JaxModel

Result = tuple[jax.Array, jax.Array]


class JaxAdapter:
    """The modes of JAX.

    Parameters
    ----------
    value : the differentiable function to measure, with the signature of `arspec_jax.value`.
    """

    name = "jax"

    def __init__(self, value: Callable[..., Any] = arspec_jax.value) -> None:
        self._value = value
        self._compiled = lru_cache(maxsize=64)(self._compile)

    def versions(self) -> dict[str, str]:
        return {"jax": jax.__version__}

    def devices(self) -> tuple[str, ...]:
        return ("cpu", *(f"{_NAMES.get(d.platform, d.platform)}:{d.id}" for d in jax.devices() if d.platform != "cpu"))

    def dtypes(self, device: str) -> tuple[str, ...]:
        return "float32", "bfloat16", "float16", "float64"

    def modes(self) -> tuple[Mode, ...]:
        return Mode("eager", COMPILED), Mode("jit", COMPILED), Mode("vmap", COSTLY)

    def capabilities(self) -> frozenset[str]:
        return frozenset(CAPABILITIES) - {"frozen layers"}

    def to_native(self, array: np.ndarray, dtype: str, device: str) -> jax.Array:
        with jax.enable_x64(dtype == "float64"):
            return jax.device_put(array, _device(device))

    def to_numpy(self, tensor: jax.Array) -> np.ndarray:
        return np.asarray(tensor)

    def value_and_gradient(
        self,
        penalty: Any,
        x: jax.Array,
        *,
        axes: Any = None,
        mean_over: Any = (),
        mask: jax.Array | None = None,
        cotangent: float = 1.0,
        mode: str,
    ) -> Result:
        wide = x.dtype == jnp.float64
        with jax.enable_x64(wide), jax.default_device(next(iter(x.devices()))):
            upstream = jnp.asarray(cotangent, jnp.float64 if wide else jnp.float32)
            given = () if mask is None else (mask,)
            if mode == "eager":
                return self._function(penalty, axes, mean_over)(x, upstream, *given)
            return self._compiled(penalty, axes, mean_over, mode)(x, upstream, *given)

    def layers(self) -> tuple[str, ...]:
        return "Dense", "Convolution", "SimpleRNN", "Embedding", "BatchNormalization"

    def build(self, network: Network, spec: Spec, device: str) -> JaxModel:
        return JaxModel(network, spec, device)

    def _function(self, penalty: Any, axes: Any, mean_over: Any) -> Callable[..., Result]:
        def value(x: jax.Array, mask: jax.Array | None) -> jax.Array:
            return self._value(penalty, x, axes=axes, mean_over=mean_over, mask=mask)

        def run(x: jax.Array, cotangent: jax.Array, mask: jax.Array | None = None) -> Result:
            found, pull_back = jax.vjp(lambda x: value(x, mask), x)
            return found, pull_back(cotangent)[0]

        return run

    def _compile(self, penalty: Any, axes: Any, mean_over: Any, mode: str) -> Callable[..., Result]:
        run = self._function(penalty, axes, mean_over)
        if mode == "jit":
            return jax.jit(run)

        def beside_its_negative(x: jax.Array, *others: jax.Array) -> Result:
            found, gradient = jax.vmap(lambda x: run(x, *others))(jnp.stack([x, -x]))
            return found[0], gradient[0]

        return jax.jit(beside_its_negative)


_NAMES = {"gpu": "cuda"}  # JAX calls NVIDIA's and AMD's devices "gpu"


def _device(name: str) -> jax.Device:
    platform, _, index = name.partition(":")
    return jax.devices(platform)[int(index or 0)]
