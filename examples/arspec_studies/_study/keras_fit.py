"""Training in Keras: one model per coefficient, compiled once, which trains one seed after the other."""

from collections.abc import Callable
from typing import Any

import numpy as np

import arspec
import arspec_keras
import keras
from arspec_studies._study.study import Batch, Task, Weights, scaled


def classify(
    make_model: Callable[[], keras.Model],
    spec: arspec.Spec,
    batch: Batch,
    make_optimizer: Callable[[], keras.optimizers.Optimizer],
) -> list[Weights]:
    """Train classifiers by cross-entropy and the penalties of a spec; return the weights of each."""

    def build(spec: arspec.Spec) -> keras.Model:
        model = arspec_keras.attach(make_model(), spec)
        loss = "sparse_categorical_crossentropy"
        model.compile(make_optimizer(), loss=loss, steps_per_execution=steps_per_execution())
        return model

    return fit(build, spec, batch)


def fit(build: Callable[[arspec.Spec], Any], spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train every run of a batch; return their weights.

    Parameters
    ----------
    build : spec -> model, regularized and compiled.
    """
    trained: dict[int, Weights] = {}
    for factor in dict.fromkeys(batch.factors):
        model = build(scaled(spec, factor))
        model.optimizer.build(model.trainable_variables)
        fresh = read(model.optimizer.variables)
        for run, task in enumerate(batch.tasks):
            if batch.factors[run] == factor:
                write(model.optimizer.variables, fresh)
                write(model.trainable_variables, [task.weights[name] for name in names(model)])
                _train(model, task)
                trained[run] = dict(zip(names(model), read(model.trainable_variables), strict=True))
                batch.report(len(trained) / len(batch.tasks))
    return [trained[run] for run in range(len(batch.tasks))]


def steps_per_execution() -> int:
    """Return how many steps go into one call of compiled code; torch has only 1."""
    return 1 if keras.backend.backend() == "torch" else 10


def names(model: Any) -> list[str]:
    """Return "layer/placement" of each trainable variable; those of a cell belong to its layer."""
    paths = [variable.path.removeprefix(f"{model.name}/").split("/") for variable in model.trainable_variables]
    return [f"{'/'.join(part for part in path[:-1] if not part.endswith('_cell'))}/{path[-1]}" for path in paths]


def _train(model: Any, task: Task) -> None:
    # All epochs as one, in the order that every framework has: setting up an epoch takes
    # Keras longer than a step.
    seen = task.order.ravel()
    model.fit(task.x[seen], task.y[seen], batch_size=task.order.shape[1], shuffle=False, verbose=0)


def read(variables: list[Any]) -> list[np.ndarray]:
    """Copy the values of variables out of a model."""
    # A copy: on some backends the array is the variable's own memory.
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def write(variables: list[Any], arrays: list[np.ndarray]) -> None:
    """Copy values into the variables of a model."""
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
