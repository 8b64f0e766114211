"""Iris in JAX: an ordinary Flax NNX module, regularized by `attach`, trained on many splits at once."""

import jax
import optax
from flax import nnx

import arspec
from arspec_studies._study.jax_fit import classify
from arspec_studies._study.study import Batch, Weights
from arspec_studies.iris.data import LEARNING_RATE


class Network(nnx.Module):
    """4–512–256–64–32–3 with tanh; returns logits."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.dense1 = nnx.Linear(4, 512, rngs=rngs)
        self.dense2 = nnx.Linear(512, 256, rngs=rngs)
        self.dense3 = nnx.Linear(256, 64, rngs=rngs)
        self.dense4 = nnx.Linear(64, 32, rngs=rngs)
        self.output = nnx.Linear(32, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in (self.dense1, self.dense2, self.dense3, self.dense4):
            x = nnx.tanh(layer(x))
        return self.output(x)


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one network per run; return the weights of each."""
    model = Network(rngs=nnx.Rngs(0))
    return classify(model, spec, batch, optax.sgd(LEARNING_RATE))
