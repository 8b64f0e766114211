"""Keras models with known weights, and what a Spec on them must give."""

from typing import Any

import numpy as np

import arspec as ar
import keras

LAYERS = keras.layers
RNG = np.random.default_rng(7)
X = RNG.standard_normal((7, 3)).astype(np.float32)
Y = np.zeros((7, 2), np.float32)
W1, B1 = RNG.standard_normal((3, 5)).astype(np.float32), RNG.standard_normal(5).astype(np.float32)
W2, B2 = RNG.standard_normal((5, 2)).astype(np.float32), np.array([0.0, -0.25], np.float32)

SPEC = ar.Spec(
    [
        ar.Rule(ar.L1(0.1), layer="hidden", placement="pre_activation", mean_over="sum"),
        ar.Rule(ar.L2(0.2), layer="hidden", placement="output"),
        ar.Rule(ar.L1(0.3) + 0.5 * ar.L2(0.4), layer="**", placement="kernel"),
        ar.Rule(ar.L1(0.5), layer="head", placement="bias"),
    ]
)
KEYS = ["hidden/pre_activation/l1", "hidden/output/l2", "hidden/kernel/sum", "head/kernel/sum", "head/bias/l1"]


def sequential() -> keras.Model:
    return keras.Sequential([LAYERS.Dense(5, activation="relu", name="hidden"), LAYERS.Dense(2, name="head")])


def functional() -> keras.Model:
    inputs = keras.Input((3,))
    hidden = LAYERS.Dense(5, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, LAYERS.Dense(2, name="head")(hidden))


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = LAYERS.Dense(5, activation="relu")
        self.head = LAYERS.Dense(2)

    def call(self, x: Any) -> Any:
        return self.head(self.hidden(x))


def nothing(y: Any, prediction: Any) -> Any:
    return 0.0 * keras.ops.sum(prediction, axis=-1)


def with_weights(model: keras.Model) -> keras.Model:
    model(X)
    model.set_weights([W1, B1, W2, B2])
    return model


def compiled(model: keras.Model, jit: Any = "auto") -> keras.Model:
    model.compile(keras.optimizers.SGD(1.0), nothing, jit_compile=jit)
    return model


def number(x: Any) -> Any:
    return keras.ops.convert_to_numpy(x)


def expected_losses(x: np.ndarray, w1: np.ndarray = W1, b1: np.ndarray = B1, w2: np.ndarray = W2) -> list[float]:
    before = x @ w1 + b1
    one, two, three, four = (rule.penalty for rule in SPEC.rules)
    after = np.maximum(before, 0)
    activities = [ar.value(one, before), ar.value(two, after, mean_over="batchmean")]
    return [float(v) for v in (*activities, ar.value(three, w1), ar.value(three, w2), ar.value(four, B2))]


def expected_gradients(x: np.ndarray) -> list[np.ndarray]:
    before = x @ W1 + B1
    one, two, three, four = (rule.penalty for rule in SPEC.rules)
    by_output = ar.gradient(two, np.maximum(before, 0), mean_over="batchmean")
    upstream = ar.gradient(one, before) + by_output * (before > 0)
    of_hidden = x.T @ upstream + ar.gradient(three, W1)
    return [of_hidden, upstream.sum(0), ar.gradient(three, W2), ar.gradient(four, B2)]
