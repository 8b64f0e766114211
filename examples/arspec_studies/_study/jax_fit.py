"""Training in JAX: every run of a batch at once by vmap, every step of a run by scan."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import arspec
import arspec_jax
from arspec_studies._study.study import ADAM_EPSILON, Batch, Weights

SEGMENTS = 10


def classify(
    model: nnx.Module, spec: arspec.Spec, batch: Batch, optimizer: optax.GradientTransformation, *, vmap: bool = True
) -> list[Weights]:
    """Train classifiers by cross-entropy and the penalties of a spec; return the weights of each.

    All runs at once, or, without `vmap`, one after the other.
    """
    forward = arspec_jax.attach(model, spec)
    graph, state, rest = nnx.split(model, nnx.Param, ...)

    def loss(parameters: nnx.State, factor: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        # A copy: an RNN counts its calls, which the state outside of the trace must not see.
        logits, penalties = forward(nnx.merge(graph, parameters, rest, copy=True), x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean() + factor * penalties.total()

    return fit(loss, optimizer, state, batch, vmap=vmap)


def fit(
    loss: Callable[..., jax.Array],
    optimizer: optax.GradientTransformation,
    state: nnx.State,
    batch: Batch,
    *,
    vmap: bool = True,
) -> list[Weights]:
    """Train every run of a batch; return their weights.

    Parameters
    ----------
    loss : (state, factor, x, y) -> loss of one run.
    optimizer : of optax; each run has its own.
    state : the parameters of the model, which say where each weight belongs.
    vmap : all runs at once, or one after the other, which is quicker for convolutions on a CPU.
    """
    starts = [to_state(state, task.weights) for task in batch.tasks]
    parameters = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    factors = jnp.asarray(batch.factors, jnp.float32)
    x, y, order = (np.stack([getattr(task, name) for task in batch.tasks]) for name in ("x", "y", "order"))

    def advance(carry: Any, factor: jax.Array, x: jax.Array, y: jax.Array, order: jax.Array) -> Any:
        def step(carry: Any, seen: jax.Array) -> tuple[Any, None]:
            parameters, memory = carry
            gradients = jax.grad(loss)(parameters, factor, x[seen], y[seen])
            updates, memory = optimizer.update(gradients, memory, parameters)
            return (optax.apply_updates(parameters, updates), memory), None

        return jax.lax.scan(step, carry, order)[0]

    every = jax.vmap(advance) if vmap else lambda *runs: jax.lax.map(lambda run: advance(*run), runs)
    advance_all = jax.jit(every)
    carry = parameters, jax.vmap(optimizer.init)(parameters)
    # Equal parts, so that one compilation serves them all.
    parts = next(count for count in range(SEGMENTS, 0, -1) if order.shape[1] % count == 0)
    for done, part in enumerate(np.split(order, parts, axis=1), 1):
        carry = jax.block_until_ready(advance_all(carry, factors, x, y, part))
        batch.report(done / parts)
    return [to_numpy(jax.tree.map(lambda leaf, run=run: leaf[run], carry[0])) for run in range(len(batch.tasks))]


def adam(learning_rate: float) -> optax.GradientTransformation:
    """Return an Adam that divides as Keras' does, which adds ε before it corrects the bias of √v."""

    def epsilon(count: jax.Array) -> jax.Array:
        return ADAM_EPSILON / jnp.sqrt(1 - 0.999 ** (count + 1.0))

    return optax.inject_hyperparams(optax.adam)(learning_rate, b2=0.999, eps=epsilon)


_ROLES = {
    ("dense_i", "kernel"): ("kernel",),
    ("dense_h", "kernel"): ("recurrent_kernel",),
    ("dense_h", "bias"): ("bias",),
    ("embedding",): ("embeddings",),
}


def _name(path: tuple[Any, ...]) -> str:
    """Return "layer/placement" for the path of a leaf; those of a cell belong to its RNN."""
    parts = tuple(str(part) for part in path if part != "cell")
    for end, role in _ROLES.items():
        if parts[-len(end) :] == end:
            parts = parts[: -len(end)] + role
    return "/".join(parts)


def to_state(state: nnx.State, weights: Mapping[str, np.ndarray]) -> nnx.State:
    """Return a state that holds weights in the layout of `arspec.layers`, which is that of Flax."""
    leaves = [(path, leaf.replace(jnp.asarray(weights[_name(path)]))) for path, leaf in nnx.to_flat_state(state)]
    return nnx.from_flat_state(leaves)


def to_numpy(state: nnx.State) -> Weights:
    """Return the inverse of `to_state`."""
    return {_name(path): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(state)}
