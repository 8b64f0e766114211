"""Deep rectifiers in Keras, regularized by `attach`, then compile and fit."""

import arspec
import arspec_keras
import keras
from arspec_studies._study.keras_fit import fit, steps_per_execution
from arspec_studies._study.study import Batch, Weights
from arspec_studies.rectifiers.data import LEARNING_RATE


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one network per run; return the weights of each."""
    activation = batch.tasks[0].held_out["activation"]

    def build(spec: arspec.Spec) -> keras.Model:
        hidden = [keras.layers.Dense(200, activation=activation, name=f"hidden{number}") for number in (1, 2, 3)]
        output = keras.layers.Dense(10, activation="softmax", name="output")
        model = keras.Sequential([keras.Input((64,)), *hidden, output])
        arspec_keras.attach(model, spec)
        model.compile(
            keras.optimizers.SGD(LEARNING_RATE),
            loss="sparse_categorical_crossentropy",
            steps_per_execution=steps_per_execution(),
        )
        return model

    return fit(build, spec, batch)
