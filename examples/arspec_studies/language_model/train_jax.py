"""A language model in JAX, regularized by `attach`, trained for many seeds and coefficients at once."""

import jax
from flax import nnx

import arspec
from arspec_studies._study.jax_fit import adam, classify
from arspec_studies._study.study import Batch, Weights
from arspec_studies.language_model.data import EMBEDDED, LEARNING_RATE, UNITS, WORDS


class LanguageModel(nnx.Module):
    """Embedding, LSTM and a linear layer; returns logits of shape (batch, time, words)."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.embedding = nnx.Embed(WORDS, EMBEDDED, rngs=rngs)
        self.lstm = nnx.RNN(nnx.OptimizedLSTMCell(EMBEDDED, UNITS, rngs=rngs), rngs=rngs)
        self.output = nnx.Linear(UNITS, WORDS, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.output(self.lstm(self.embedding(x)))


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one model per run; return the weights of each."""
    model = LanguageModel(rngs=nnx.Rngs(0))
    return classify(model, spec, batch, adam(LEARNING_RATE))
