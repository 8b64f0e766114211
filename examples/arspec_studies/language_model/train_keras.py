"""A language model in Keras, regularized by `attach`, then compile and fit."""

from functools import partial

import arspec
import keras
from arspec_studies._study.keras_fit import classify
from arspec_studies._study.study import Batch, Weights
from arspec_studies.language_model.data import EMBEDDED, LEARNING_RATE, STEPS, UNITS, WORDS


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one model per run; return the weights of each."""

    def make_model() -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((STEPS,), dtype="int32"),
                keras.layers.Embedding(WORDS, EMBEDDED, name="embedding"),
                keras.layers.LSTM(UNITS, return_sequences=True, name="lstm"),
                keras.layers.Dense(WORDS, activation="softmax", name="output"),
            ]
        )

    return classify(make_model, spec, batch, partial(keras.optimizers.Adam, LEARNING_RATE))
