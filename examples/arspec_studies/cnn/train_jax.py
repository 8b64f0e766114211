"""A small CNN in JAX, regularized by `attach`, trained for many seeds and coefficients at once."""

import jax
import optax
from flax import nnx

import arspec
import arspec_jax
from arspec_studies._study.jax_fit import adam, fit
from arspec_studies._study.study import Batch, Weights
from arspec_studies.cnn.data import CHANNELS, LEARNING_RATE


class Network(nnx.Module):
    """Two convolutions with ReLU, the mean over positions, and a linear layer; returns logits."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        first, second = CHANNELS
        self.conv1 = nnx.Conv(1, first, (3, 3), padding="SAME", rngs=rngs)
        self.conv2 = nnx.Conv(first, second, (3, 3), padding="SAME", rngs=rngs)
        self.output = nnx.Linear(second, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.conv1(x))
        x = nnx.relu(self.conv2(x))
        return self.output(x.mean(axis=(1, 2)))


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one network per run; return the weights of each."""
    model = Network(rngs=nnx.Rngs(0))
    forward = arspec_jax.attach(model, spec)
    graph, state = nnx.split(model)

    def loss(parameters: nnx.State, factor: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        logits, penalties = forward(nnx.merge(graph, parameters), x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean() + factor * penalties.total()

    return fit(loss, adam(LEARNING_RATE), state, batch)
