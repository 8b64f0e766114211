"""Two circles in Keras: an ordinary Sequential model, regularized by `attach`, then compile and fit.

KERAS_BACKEND=jax python -m arspec_studies.circles.train_keras --seeds 3 --epochs 400
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import arspec
import arspec_keras
import keras
from arspec_studies._study.keras_fit import names, read, steps_per_execution, write
from arspec_studies.circles import worker
from arspec_studies.circles.data import HIDDEN, LEARNING_RATE, Circles


def network() -> keras.Model:
    """Return the model 2–500–1 with a ReLU and a sigmoid."""
    return keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(HIDDEN, activation="relu", name="hidden"),
            keras.layers.Dense(1, activation="sigmoid", name="output"),
        ]
    )


def train(spec: arspec.Spec, data: Circles, weights: worker.Weights, epochs: list[int]) -> Iterator[worker.Weights]:
    """Train one network per seed; yield the weights of all of them at each of `epochs`."""
    model = arspec_keras.attach(network(), spec)
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    model.compile(optimizer, loss="binary_crossentropy", steps_per_execution=steps_per_execution())
    optimizer.build(model.trainable_variables)

    # One model serves every seed, so that its training step is compiled once.
    seeds = [initial_state(model, weights, seed) for seed in range(len(weights["hidden/bias"]))]
    for steps in np.diff([0, *epochs]).tolist():
        # Many epochs of one batch are one epoch of many batches: setting up an epoch takes
        # Keras longer than the step itself.
        x, y = np.tile(data.x_train, (steps, 1)), np.tile(data.y_train, steps)
        for seed, state in enumerate(seeds):
            write(variables(model), state)
            model.fit(x, y, batch_size=len(data.x_train), shuffle=False, verbose=0)
            seeds[seed] = read(variables(model))
        yield stacked(model, seeds)


def variables(model: keras.Model) -> list[Any]:
    """Return what makes up the state of a training run: the weights, then the optimizer's variables."""
    return [*model.trainable_variables, *model.optimizer.variables]


def initial_state(model: keras.Model, weights: worker.Weights, seed: int) -> list[np.ndarray]:
    """Return the state in which training starts from the weights of one seed."""
    start = [weights[name][seed] for name in names(model)]
    return [*start, *read(variables(model))[len(start) :]]


def stacked(model: keras.Model, seeds: list[list[np.ndarray]]) -> worker.Weights:
    """Return the weights of all seeds by name, stacked."""
    return {name: np.stack([state[index] for state in seeds]) for index, name in enumerate(names(model))}


def penalty_and_gradients(
    spec: arspec.Spec, weights: worker.Weights, x: np.ndarray
) -> tuple[np.ndarray, worker.Weights]:
    """Return the penalty of the model on x and its gradient with respect to each parameter."""
    model = arspec_keras.attach(network(), spec)
    others = [variable.value for variable in model.non_trainable_variables]

    def penalty(parameters: Sequence[Any]) -> Any:
        _, _, losses = model.stateless_call(parameters, others, x, return_losses=True)
        return sum(losses)

    value, gradients = value_and_gradients(penalty, [weights[name] for name in names(model)])
    return value, dict(zip(names(model), gradients, strict=True))


def value_and_gradient(penalty: object, tensor: np.ndarray, mean_over: object) -> tuple[np.ndarray, np.ndarray]:
    """Return value and gradient of the penalty of a given tensor."""
    value, (gradient,) = value_and_gradients(
        lambda given: arspec_keras.value(penalty, given[0], mean_over=mean_over), [tensor]
    )
    return value, gradient


def value_and_gradients(
    function: Callable[[Sequence[Any]], Any], arrays: Sequence[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Differentiate by the framework under Keras, which has no gradients of its own."""
    differentiate = {"jax": _in_jax, "torch": _in_torch, "tensorflow": _in_tensorflow}[keras.backend.backend()]
    value, gradients = differentiate(function, [keras.ops.convert_to_tensor(array) for array in arrays])
    to_numpy = keras.ops.convert_to_numpy
    return to_numpy(value), [to_numpy(gradient) for gradient in gradients]


def _in_jax(function: Callable[[Any], Any], tensors: list[Any]) -> tuple[Any, Any]:
    import jax

    return jax.jit(jax.value_and_grad(function))(tensors)


def _in_torch(function: Callable[[Any], Any], tensors: list[Any]) -> tuple[Any, Any]:
    import torch

    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    value = function(leaves)
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    return value, [torch.zeros_like(t) if g is None else g for g, t in zip(gradients, leaves, strict=True)]


def _in_tensorflow(function: Callable[[Any], Any], tensors: list[Any]) -> tuple[Any, Any]:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(tensors)
    return value, tape.gradient(value, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)


if __name__ == "__main__":
    backend = keras.backend.backend()
    packages = ("keras", backend, f"{backend}-cpu")
    note = f"Keras backend: {backend}"
    worker.main(worker.Study("keras", packages, train, penalty_and_gradients, value_and_gradient, note))
