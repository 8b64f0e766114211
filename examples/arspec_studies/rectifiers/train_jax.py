"""Deep rectifiers in JAX, regularized by `attach`, trained for many seeds and coefficients at once."""

import jax
import optax
from flax import nnx

import arspec
from arspec_studies._study.jax_fit import classify
from arspec_studies._study.study import Batch, Weights
from arspec_studies.rectifiers.data import LEARNING_RATE


class Network(nnx.Module):
    """64–200–200–200–10; returns logits."""

    def __init__(self, activation: str, *, rngs: nnx.Rngs) -> None:
        self.hidden1 = nnx.Linear(64, 200, rngs=rngs)
        self.hidden2 = nnx.Linear(200, 200, rngs=rngs)
        self.hidden3 = nnx.Linear(200, 200, rngs=rngs)
        self.output = nnx.Linear(200, 10, rngs=rngs)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        function = nnx.relu if self.activation == "relu" else nnx.tanh
        for layer in (self.hidden1, self.hidden2, self.hidden3):
            x = function(layer(x))
        return self.output(x)


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one network per run; return the weights of each."""
    model = Network(batch.tasks[0].held_out["activation"], rngs=nnx.Rngs(0))
    return classify(model, spec, batch, optax.sgd(LEARNING_RATE))
