"""arspec_keras through the contract, on the backend of this process: eager, compiled, and training.

The mode "train" reads what `train_on_batch` hands to the optimizer as the gradient of a
weight whose penalty a layer adds as a loss.
"""

import importlib
from functools import lru_cache
from typing import Any

import numpy as np

import arspec_keras
import keras
from arspec import Spec
from arspec.layers import Network
from arspec_conformance._adapter import COMPILED, COSTLY, INSTANT, Adapter, Mode
from arspec_conformance.adapters.keras_models import KerasModel

BACKEND = keras.backend.backend()

_ENGINES = {"torch": "TorchAdapter", "jax": "JaxAdapter", "tensorflow": "TensorFlowAdapter"}
_COMPILED = {"torch": "compile", "jax": "jit", "tensorflow": "xla"}


class KerasAdapter:
    """The modes of Keras on the running backend."""

    def __init__(self) -> None:
        module = importlib.import_module(f"arspec_conformance.adapters.{BACKEND}_adapter")
        self._engine: Adapter = getattr(module, _ENGINES[BACKEND])(arspec_keras.value)
        self._trained = lru_cache(maxsize=8)(_build_trained)

    @property
    def name(self) -> str:
        return f"keras-{BACKEND}"

    def versions(self) -> dict[str, str]:
        return {"keras": keras.__version__, **self._engine.versions()}

    def devices(self) -> tuple[str, ...]:
        return self._engine.devices()

    def dtypes(self, device: str) -> tuple[str, ...]:
        return self._engine.dtypes(device)

    def modes(self) -> tuple[Mode, ...]:
        trained = Mode("train", COSTLY, ("float32", "bfloat16", "float16"))
        return Mode("eager", COMPILED if BACKEND == "jax" else INSTANT), Mode("compiled", COSTLY), trained

    def capabilities(self) -> frozenset[str]:
        return (self._engine.capabilities() | {"placements", "frozen layers"}) - {"tied weights"}

    def to_native(self, array: np.ndarray, dtype: str, device: str) -> Any:
        return self._engine.to_native(array, dtype, device)

    def to_numpy(self, tensor: Any) -> np.ndarray:
        return self._engine.to_numpy(tensor)

    def layers(self) -> tuple[str, ...]:
        return "Dense", "Convolution", "SimpleRNN", "Embedding", "BatchNormalization"

    def build(self, network: Network, spec: Spec, device: str) -> KerasModel:
        return KerasModel(network, spec, device)

    def value_and_gradient(self, penalty: Any, x: Any, *, mode: str, **options: Any) -> tuple[Any, Any]:
        if mode != "train":
            inner = {"eager": "eager", "compiled": _COMPILED[BACKEND]}[mode]
            return self._engine.value_and_gradient(penalty, x, mode=inner, **options)
        cotangent = options.pop("cotangent", 1.0)
        if options.get("mask") is not None:
            options["mask"] = _Constant(options["mask"])
        shape, dtype = tuple(map(int, x.shape)), keras.backend.standardize_dtype(x.dtype)
        with keras.device(_device_of(x)):
            model = self._trained(penalty, shape, dtype, tuple(sorted(options.items())))
            layer = model.layers[-1]
            layer.weight.assign(x)
            layer.cotangent.assign(cotangent)
            model.train_on_batch(np.zeros((1, 1), np.float32))
            return layer.found.value, layer.weight.value


class _Constant:
    """A tensor that can stand in a cache key, by identity."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor


class _Penalized(keras.layers.Layer):
    """A layer whose only use is one weight, and the penalty of it as a loss."""

    def __init__(self, penalty: Any, shape: tuple[int, ...], dtype: str, options: dict[str, Any]) -> None:
        super().__init__(dtype=dtype)
        self._arguments = (penalty, options)
        self.weight = self.add_weight(shape=shape, initializer="zeros", dtype=dtype)
        # A variable, so that another cotangent compiles nothing anew.
        scalar = {"shape": (), "initializer": "zeros", "dtype": "float32", "trainable": False}
        self.found, self.cotangent = self.add_weight(**scalar), self.add_weight(**scalar)
        self.built = True

    def call(self, inputs: Any) -> Any:
        penalty, options = self._arguments
        given = dict(options)
        mask = given.pop("mask", None)
        found = arspec_keras.value(penalty, self.weight, mask=mask and mask.tensor, **given)
        self.found.assign(found)
        self.add_loss(self.cotangent * found)
        return inputs


class _GradientKeeper(keras.optimizers.Optimizer):
    """An optimizer that stores the gradient where the weight was."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self.assign(variable, gradient)


def _build_trained(penalty: Any, shape: tuple[int, ...], dtype: str, options: Any) -> keras.Model:
    inputs = keras.Input((1,))
    model = keras.Model(inputs, _Penalized(penalty, shape, dtype, dict(options))(inputs))
    model.compile(optimizer=_GradientKeeper(1.0, name="keeper"))
    return model


def _device_of(x: Any) -> str:
    if BACKEND == "jax":
        device = next(iter(x.devices()))
        return f"{device.platform}:{device.id}"
    if BACKEND == "tensorflow":
        return ":".join(x.device.lower().rsplit(":", 2)[-2:]) if x.device else "cpu:0"
    # Not "cpu:0": Keras would copy every weight there, and find no gradient at the original.
    return f"gpu:{x.device.index or 0}" if x.device.type == "cuda" else x.device.type
