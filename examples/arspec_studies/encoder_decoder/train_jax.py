"""An LSTM encoder–decoder in JAX, regularized by `attach`, trained for many seeds and coefficients at once."""

import jax
import jax.numpy as jnp
from flax import nnx

import arspec
from arspec_studies._study.jax_fit import adam, classify
from arspec_studies._study.study import Batch, Weights
from arspec_studies.encoder_decoder.data import EMBEDDED, LEARNING_RATE, STEPS, SYMBOLS, UNITS


class EncoderDecoder(nnx.Module):
    """The last state of the encoder is the input of every step of the decoder; returns logits."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.embedding = nnx.Embed(SYMBOLS, EMBEDDED, rngs=rngs)
        self.encoder = nnx.RNN(nnx.OptimizedLSTMCell(EMBEDDED, UNITS, rngs=rngs), rngs=rngs)
        self.decoder = nnx.RNN(nnx.OptimizedLSTMCell(UNITS, UNITS, rngs=rngs), rngs=rngs)
        self.output = nnx.Linear(UNITS, SYMBOLS, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        states = self.encoder(self.embedding(x))
        code = jnp.repeat(states[:, -1:], STEPS, axis=1)
        return self.output(self.decoder(code))


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one model per run; return the weights of each."""
    model = EncoderDecoder(rngs=nnx.Rngs(0))
    return classify(model, spec, batch, adam(LEARNING_RATE))
