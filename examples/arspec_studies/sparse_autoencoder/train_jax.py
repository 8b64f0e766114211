"""A sparse autoencoder in JAX, regularized by `attach`, trained for many seeds and coefficients at once."""

import jax
import jax.numpy as jnp
from flax import nnx

import arspec
import arspec_jax
from arspec_studies._study.jax_fit import adam, fit
from arspec_studies._study.study import Batch, Weights
from arspec_studies.sparse_autoencoder.data import BANDWIDTH, LEARNING_RATE, PIXELS


class Margin(nnx.Module):
    """How far a pre-activation is above its threshold; only the threshold is trained through it."""

    def __init__(self, units: int) -> None:
        self.log_threshold = nnx.Param(jnp.zeros(units))

    def __call__(self, z: jax.Array) -> jax.Array:
        return jax.lax.stop_gradient(z) - jnp.exp(self.log_threshold[...])


class Autoencoder(nnx.Module):
    """64–units–64; the features of the decoder have length 1."""

    def __init__(self, units: int, activation: str, *, rngs: nnx.Rngs) -> None:
        self.encoder = nnx.Linear(PIXELS, units, rngs=rngs)
        self.decoder = nnx.Linear(units, PIXELS, rngs=rngs)
        self.activation = activation
        if activation == "jumprelu":
            self.margin = Margin(units)

    def __call__(self, x: jax.Array) -> jax.Array:
        z = self.encoder(x)
        if self.activation == "jumprelu":
            hidden = self.jump(z)
        else:
            hidden = nnx.sigmoid(z) if self.activation == "sigmoid" else nnx.relu(z)
        kernel, bias = jnp.asarray(self.decoder.kernel), jnp.asarray(self.decoder.bias)
        return hidden @ (kernel / jnp.linalg.norm(kernel, axis=1, keepdims=True)) + bias

    def jump(self, z: jax.Array) -> jax.Array:
        """Return z where it exceeds its threshold, else 0, with the straight-through slope to the threshold."""
        margin = self.margin(z)
        soft = jnp.clip(margin / BANDWIDTH + 0.5, 0, 1)
        threshold = jax.lax.stop_gradient(z - margin)
        return z * (margin > 0) + threshold * (soft - jax.lax.stop_gradient(soft))


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one autoencoder per run; return the weights of each."""
    first = batch.tasks[0]
    model = Autoencoder(len(first.weights["encoder/bias"]), first.held_out["activation"], rngs=nnx.Rngs(0))
    forward = arspec_jax.attach(model, spec)
    graph, state = nnx.split(model)

    def loss(parameters: nnx.State, factor: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        output, penalties = forward(nnx.merge(graph, parameters), x)
        return jnp.square(output - y).sum(axis=-1).mean() + factor * penalties.total()

    return fit(loss, adam(LEARNING_RATE), state, batch)
