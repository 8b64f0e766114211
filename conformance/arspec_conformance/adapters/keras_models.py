"""Reference networks as Keras models; gradients are what one step of SGD subtracts."""

from collections.abc import Mapping
from typing import Any

import numpy as np

import arspec_keras
import keras
from arspec import Spec
from arspec.layers import BatchNormalization, Convolution, Dense, Embedding, Network, SimpleRNN
from arspec_conformance._models import Measured

NAMES = {"scale": "gamma", "shift": "beta"}


class KerasModel:
    """A Sequential with a Spec on it, compiled with SGD and a loss of nothing."""

    def __init__(self, network: Network, spec: Spec, device: str) -> None:
        self._network = network
        layers = [_layer(name, layer) for name, layer in network.layers.items()]
        self._model = keras.Sequential([_input(network), *layers])
        self.assign({f"{n}/{p}": a for n, layer in network.layers.items() for p, a in layer.parameters().items()})
        arspec_keras.attach(self._model, spec)
        self._compile()

    def measure(self, x: np.ndarray) -> Measured:
        x, before = x.astype(np.float32 if x.dtype.kind == "f" else np.int32), self._weights()
        self._model(x)
        values = {key: float(_array(loss)) for key, loss in arspec_keras.losses(self._model).items()}
        total = float(_array(arspec_keras.total(self._model)))
        self._model.train_on_batch(x, np.zeros(len(x), np.float32))
        gradients = {name: before[name] - after for name, after in self._weights().items()}
        self.assign(before)
        return Measured(values, total, gradients)

    def assign(self, parameters: Mapping[str, np.ndarray]) -> None:
        for path, array in parameters.items():
            self._weight(path).assign(array.astype(np.float32))

    def freeze(self, layer: str) -> None:
        self._model.get_layer(layer).trainable = False
        self._compile()

    def _compile(self) -> None:
        self._model.compile(keras.optimizers.SGD(1.0), _nothing)

    def _weight(self, path: str) -> Any:
        name, role = path.split("/")
        layer = self._model.get_layer(name)
        return getattr(getattr(layer, "cell", layer), NAMES.get(role, role))

    def _weights(self) -> dict[str, np.ndarray]:
        paths = [f"{n}/{p}" for n, layer in self._network.layers.items() for p in layer.parameters()]
        return {path: np.array(_array(self._weight(path))) for path in paths}


def _layer(name: str, layer: Any) -> keras.layers.Layer:
    if isinstance(layer, Embedding):
        return keras.layers.Embedding(*layer.embeddings.shape, name=name)
    if isinstance(layer, BatchNormalization):
        return keras.layers.BatchNormalization(epsilon=layer.epsilon, name=name)
    options = {"activation": layer.activation, "use_bias": layer.bias is not None, "name": name}
    if isinstance(layer, Convolution):
        *sizes, _, outputs = layer.kernel.shape
        kind = keras.layers.Conv1D if len(sizes) == 1 else keras.layers.Conv2D
        return kind(outputs, tuple(sizes), data_format="channels_last", **options)
    if isinstance(layer, SimpleRNN):
        return keras.layers.SimpleRNN(layer.units, return_sequences=True, **options)
    if isinstance(layer, Dense):
        return keras.layers.Dense(layer.kernel.shape[1], **options)
    raise NotImplementedError(f"no Keras layer for {type(layer).__name__}")


def _input(network: Network) -> Any:
    first: Any = next(iter(network.layers.values()))
    if isinstance(first, Embedding):
        return keras.Input((None,), dtype="int32")
    steps = 1 if isinstance(first, SimpleRNN) else first.kernel.ndim - 2
    return keras.Input((*(None,) * steps, first.kernel.shape[-2]))


def _nothing(_: Any, prediction: Any) -> Any:
    summed = keras.ops.sum(prediction, axis=tuple(range(1, len(prediction.shape))))
    return keras.ops.multiply(0.0, summed)


def _array(x: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(x))
