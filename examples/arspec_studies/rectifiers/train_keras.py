"""Deep rectifiers in Keras, regularized by `attach`, then compile and fit."""

from functools import partial

import arspec
import keras
from arspec_studies._study.keras_fit import classify
from arspec_studies._study.study import Batch, Weights
from arspec_studies.rectifiers.data import LEARNING_RATE


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one network per run; return the weights of each."""
    activation = batch.tasks[0].held_out["activation"]

    def make_model() -> keras.Model:
        hidden = [keras.layers.Dense(200, activation=activation, name=f"hidden{number}") for number in (1, 2, 3)]
        output = keras.layers.Dense(10, activation="softmax", name="output")
        return keras.Sequential([keras.Input((64,)), *hidden, output])

    return classify(make_model, spec, batch, partial(keras.optimizers.SGD, LEARNING_RATE))
