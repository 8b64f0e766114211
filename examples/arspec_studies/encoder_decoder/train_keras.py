"""An LSTM encoder–decoder in Keras, regularized by `attach`, then compile and fit."""

from functools import partial

import arspec
import keras
from arspec_studies._study.keras_fit import classify
from arspec_studies._study.study import Batch, Weights
from arspec_studies.encoder_decoder.data import EMBEDDED, LEARNING_RATE, STEPS, SYMBOLS, UNITS


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one model per run; return the weights of each."""

    def make_model() -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((STEPS,), dtype="int32"),
                keras.layers.Embedding(SYMBOLS, EMBEDDED, name="embedding"),
                keras.layers.LSTM(UNITS, name="encoder"),
                keras.layers.RepeatVector(STEPS),
                keras.layers.LSTM(UNITS, return_sequences=True, name="decoder"),
                keras.layers.Dense(SYMBOLS, activation="softmax", name="output"),
            ]
        )

    return classify(make_model, spec, batch, partial(keras.optimizers.Adam, LEARNING_RATE))
