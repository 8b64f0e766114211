"""An LSTM encoder–decoder in Keras, regularized by `attach`, then compile and fit."""

import arspec
import arspec_keras
import keras
from arspec_studies._study.keras_fit import fit, steps_per_execution
from arspec_studies._study.study import Batch, Weights
from arspec_studies.encoder_decoder.data import EMBEDDED, LEARNING_RATE, STEPS, SYMBOLS, UNITS


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one model per run; return the weights of each."""

    def build(spec: arspec.Spec) -> keras.Model:
        model = keras.Sequential(
            [
                keras.Input((STEPS,), dtype="int32"),
                keras.layers.Embedding(SYMBOLS, EMBEDDED, name="embedding"),
                keras.layers.LSTM(UNITS, name="encoder"),
                keras.layers.RepeatVector(STEPS),
                keras.layers.LSTM(UNITS, return_sequences=True, name="decoder"),
                keras.layers.Dense(SYMBOLS, activation="softmax", name="output"),
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
