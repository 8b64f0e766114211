"""A language model in JAX, regularized by `attach`, trained for many seeds and coefficients at once."""

import jax
import optax
from flax import nnx

import arspec
import arspec_jax
from arspec_studies._study.jax_fit import adam, fit
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
    forward = arspec_jax.attach(model, spec)
    graph, state, rest = nnx.split(model, nnx.Param, ...)

    def loss(parameters: nnx.State, factor: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        # A copy: an RNN counts its calls, which the state outside of the trace must not see.
        logits, penalties = forward(nnx.merge(graph, parameters, rest, copy=True), x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean() + factor * penalties.total()

    return fit(loss, adam(LEARNING_RATE), state, batch)
