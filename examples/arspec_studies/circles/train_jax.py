"""Two circles in JAX: an ordinary Flax NNX module, regularized by `attach`, trained for many seeds at once.

python -m arspec_studies.circles.train_jax --seeds 3 --epochs 400
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import arspec
import arspec_jax
from arspec_studies._study.jax_fit import adam
from arspec_studies.circles import worker
from arspec_studies.circles.data import HIDDEN, LEARNING_RATE, Circles


class Network(nnx.Module):
    """2–500–1 with a ReLU; returns logits of shape (points,)."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(2, HIDDEN, rngs=rngs)
        self.output = nnx.Linear(HIDDEN, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.output(nnx.relu(self.hidden(x)))[:, 0]


def train(spec: arspec.Spec, data: Circles, weights: worker.Weights, epochs: list[int]) -> Iterator[worker.Weights]:
    """Train one network per seed; yield the weights of all of them at each of `epochs`."""
    model = Network(rngs=nnx.Rngs(0))
    forward = arspec_jax.attach(model, spec)
    graph, state = nnx.split(model)
    optimizer = adam(LEARNING_RATE)

    def loss(parameters: nnx.State) -> jax.Array:
        logits, penalties = forward(nnx.merge(graph, parameters), data.x_train)
        return optax.sigmoid_binary_cross_entropy(logits, data.y_train).mean() + penalties.total()

    def step(carry: tuple, _: None) -> tuple:
        parameters, memory = carry
        updates, memory = optimizer.update(jax.grad(loss)(parameters), memory)
        return (optax.apply_updates(parameters, updates), memory), None

    @partial(jax.jit, static_argnames="steps")
    def advance(carry: tuple, steps: int) -> tuple:
        # One seed after the other: on a CPU, a network that stays in cache beats a wide vmap.
        return jax.lax.map(lambda one: jax.lax.scan(step, one, length=steps)[0], carry)

    parameters = to_state(state, weights)
    carry = parameters, jax.vmap(optimizer.init)(parameters)
    for steps in np.diff([0, *epochs]).tolist():
        carry = advance(carry, steps)
        yield to_numpy(carry[0])


def to_state(state: nnx.State, weights: worker.Weights) -> nnx.State:
    """Return a state that holds `weights`; a leading axis of seeds is kept."""
    filled = jax.tree.map(lambda leaf: leaf, state)
    for name, array in weights.items():
        layer, role = name.split("/")
        filled[layer][role] = filled[layer][role].replace(jnp.asarray(array))
    return filled


def to_numpy(state: nnx.State) -> worker.Weights:
    """Return the inverse of `to_state`."""
    return {
        f"{layer}/{role}": np.asarray(state[layer][role][...])
        for layer in ("hidden", "output")
        for role in ("kernel", "bias")
    }


def penalty_and_gradients(
    spec: arspec.Spec, weights: worker.Weights, x: np.ndarray
) -> tuple[np.ndarray, worker.Weights]:
    """Return the penalty of the model on x and its gradient with respect to each parameter."""
    model = Network(rngs=nnx.Rngs(0))
    forward = arspec_jax.attach(model, spec)
    graph, state = nnx.split(model)

    @jax.jit
    @jax.value_and_grad
    def penalty(parameters: nnx.State) -> jax.Array:
        _, penalties = forward(nnx.merge(graph, parameters), x)
        return penalties.total()

    value, gradients = penalty(to_state(state, weights))
    return np.asarray(value), to_numpy(gradients)


def value_and_gradient(penalty: object, tensor: np.ndarray, mean_over: object) -> tuple[np.ndarray, np.ndarray]:
    """Return value and gradient of the penalty of a given tensor."""

    @jax.jit
    @jax.value_and_grad
    def evaluate(given: jax.Array) -> jax.Array:
        return arspec_jax.value(penalty, given, mean_over=mean_over)

    value, gradient = evaluate(jnp.asarray(tensor))
    return np.asarray(value), np.asarray(gradient)


if __name__ == "__main__":
    packages = ("jax", "jaxlib", "flax", "optax")
    worker.main(worker.Study("jax", packages, train, penalty_and_gradients, value_and_gradient))
