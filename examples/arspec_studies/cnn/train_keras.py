"""A small CNN in Keras, regularized by `attach`, then compile and fit."""

from functools import partial

import arspec
import keras
from arspec_studies._study.keras_fit import classify
from arspec_studies._study.study import Batch, Weights
from arspec_studies.cnn.data import CHANNELS, LEARNING_RATE


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one network per run; return the weights of each."""

    def make_model() -> keras.Model:
        first, second = CHANNELS
        return keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(first, 3, padding="same", activation="relu", name="conv1"),
                keras.layers.Conv2D(second, 3, padding="same", activation="relu", name="conv2"),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(10, activation="softmax", name="output"),
            ]
        )

    return classify(make_model, spec, batch, partial(keras.optimizers.Adam, LEARNING_RATE))
