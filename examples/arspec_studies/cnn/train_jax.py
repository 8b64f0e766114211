"""A small CNN in JAX, regularized by `attach`; runs take turns, as XLA is slow at batches of kernels on a CPU."""

import jax
from flax import nnx

import arspec
from arspec_studies._study.jax_fit import adam, classify
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
    return classify(model, spec, batch, adam(LEARNING_RATE), vmap=False)
