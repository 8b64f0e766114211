"""The runs of the grid, trained by the code of `arspec_studies.circles` and judged by its measures."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from arspec_studies._study.study import Batch, Task, Weights, scaled
from arspec_studies.circles import measures
from arspec_studies.circles.data import EPOCHS, circles, initial_weights

QUICK_EPOCHS = 40


def task(seed: int, quick: bool) -> Task:
    """Return the 30 points to train, all of them in every step, and the weights of a seed."""
    data = circles()
    order = np.tile(np.arange(len(data.x_train)), (QUICK_EPOCHS if quick else EPOCHS, 1))
    return Task(initial_weights(seed), data.x_train, data.y_train, order)


def measure(weights: Weights, task: Task) -> dict[str, float]:
    """Return accuracies and what the hidden layer does."""
    one = {name: array[None] for name, array in weights.items()}
    accuracies, hidden = measures.accuracies(one, circles()), measures.hidden_statistics(one, circles())
    return {
        "test": accuracies["test"][0],
        "train": accuracies["train"][0],
        "activation": hidden["mean_activation"][0],
        "zeros": hidden["exact_zeros"][0],
    }


def train_each_coefficient(train: Callable[..., Iterator[Weights]], spec: Any, batch: Batch) -> list[Weights]:
    """Train all seeds of a coefficient together by `train` of `arspec_studies.circles`."""
    trained: dict[int, Weights] = {}
    for factor in dict.fromkeys(batch.factors):
        runs = [run for run, other in enumerate(batch.factors) if other == factor]
        starts = [batch.tasks[run].weights for run in runs]
        stacked = {name: np.stack([start[name] for start in starts]) for name in starts[0]}
        (weights,) = train(scaled(spec, factor), circles(), stacked, [len(batch.tasks[0].order)])
        for index, run in enumerate(runs):
            trained[run] = {name: array[index] for name, array in weights.items()}
        batch.report(len(trained) / len(batch.tasks))
    return [trained[run] for run in range(len(batch.tasks))]
