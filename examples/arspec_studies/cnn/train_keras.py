"""A small CNN in Keras, regularized by `attach`, then compile and fit."""

import arspec
import arspec_keras
import keras
from arspec_studies._study.keras_fit import fit, steps_per_execution
from arspec_studies._study.study import Batch, Weights
from arspec_studies.cnn.data import CHANNELS, LEARNING_RATE


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one network per run; return the weights of each."""

    def build(spec: arspec.Spec) -> keras.Model:
        first, second = CHANNELS
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(first, 3, padding="same", activation="relu", name="conv1"),
                keras.layers.Conv2D(second, 3, padding="same", activation="relu", name="conv2"),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(10, activation="softmax", name="output"),
            ]
        )
        arspec_keras.attach(model, spec)
        model.compile(
            keras.optimizers.Adam(LEARNING_RATE),
            loss="sparse_categorical_crossentropy",
            steps_per_execution=steps_per_execution(),
        )
        return model

    return fit(build, spec, batch)
