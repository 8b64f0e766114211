"""A sparse autoencoder in Keras, regularized by `attach`, then compile and fit."""

from typing import Any

import arspec
import arspec_keras
import keras
from arspec_studies._study.keras_fit import fit, steps_per_execution
from arspec_studies._study.study import Batch, Weights
from arspec_studies.sparse_autoencoder.data import BANDWIDTH, LEARNING_RATE, PIXELS


class Margin(keras.layers.Layer):
    """How far a pre-activation is above its threshold; only the threshold is trained through it."""

    log_threshold: Any

    def build(self, input_shape: Any) -> None:
        self.log_threshold = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="log_threshold")

    def call(self, z: Any) -> Any:
        below: Any = keras.ops.stop_gradient(z)
        return below - keras.ops.exp(self.log_threshold)


class UnitDecoder(keras.layers.Layer):
    """A dense layer whose features have length 1."""

    kernel: Any
    bias: Any

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1], PIXELS), name="kernel")
        self.bias = self.add_weight(shape=(PIXELS,), name="bias")

    def call(self, x: Any) -> Any:
        norm = keras.ops.sqrt(keras.ops.sum(keras.ops.square(self.kernel), axis=1, keepdims=True))
        return keras.ops.matmul(x, self.kernel / norm) + self.bias


class Autoencoder(keras.Model):
    """64–units–64."""

    def __init__(self, units: int, activation: str) -> None:
        super().__init__()
        self.jumps = activation == "jumprelu"
        self.encoder = keras.layers.Dense(units, activation=None if self.jumps else activation, name="encoder")
        self.decoder = UnitDecoder(name="decoder")
        if self.jumps:
            self.margin = Margin(name="margin")

    def call(self, x: Any) -> Any:
        z = self.encoder(x)
        return self.decoder(self.jump(z) if self.jumps else z)

    def jump(self, z: Any) -> Any:
        """Return z where it exceeds its threshold, else 0, with the straight-through slope to the threshold."""
        margin: Any = self.margin(z)
        soft: Any = keras.ops.clip(margin / BANDWIDTH + 0.5, 0, 1)
        threshold = keras.ops.stop_gradient(z - margin)
        return z * keras.ops.cast(margin > 0, z.dtype) + threshold * (soft - keras.ops.stop_gradient(soft))


def squared_error(y: Any, output: Any) -> Any:
    """Return the squared error of each image, summed over its pixels."""
    return keras.ops.sum(keras.ops.square(output - y), axis=-1)


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one autoencoder per run; return the weights of each."""
    first = batch.tasks[0]

    def build(spec: arspec.Spec) -> keras.Model:
        model = Autoencoder(len(first.weights["encoder/bias"]), first.held_out["activation"])
        model(first.x[:1])
        arspec_keras.attach(model, spec)
        optimizer = keras.optimizers.Adam(LEARNING_RATE)
        model.compile(optimizer, loss=squared_error, steps_per_execution=steps_per_execution())
        return model

    return fit(build, spec, batch)
