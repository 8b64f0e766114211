"""Iris in Keras: an ordinary Sequential model, regularized by `attach`, then compile and fit."""

from functools import partial

import arspec
import keras
from arspec_studies._study.keras_fit import classify
from arspec_studies._study.study import Batch, Weights
from arspec_studies.iris.data import LEARNING_RATE


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one network per run; return the weights of each."""

    def make_model() -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(512, activation="tanh", name="dense1"),
                keras.layers.Dense(256, activation="tanh", name="dense2"),
                keras.layers.Dense(64, activation="tanh", name="dense3"),
                keras.layers.Dense(32, activation="tanh", name="dense4"),
                keras.layers.Dense(3, activation="softmax", name="output"),
            ]
        )

    return classify(make_model, spec, batch, partial(keras.optimizers.SGD, LEARNING_RATE))
