"""What the study measures on trained weights, in NumPy, so that every framework is judged alike.

Weights are stacked over seeds: "hidden/kernel" has shape (seeds, 2, 500), and so on.
"""

from collections.abc import Mapping

import numpy as np

from arspec_studies.circles.data import Circles, grid

Weights = Mapping[str, np.ndarray]


def hidden(weights: Weights, x: np.ndarray) -> np.ndarray:
    """Return relu(x · kernel + bias), of shape (seeds, points, 500)."""
    affine = np.matmul(x, weights["hidden/kernel"]) + weights["hidden/bias"][:, None, :]
    return np.maximum(affine, 0)


def logits(weights: Weights, x: np.ndarray) -> np.ndarray:
    """Return the output before the sigmoid, of shape (seeds, points)."""
    affine = np.matmul(hidden(weights, x), weights["output/kernel"]) + weights["output/bias"][:, None, :]
    return affine[..., 0]


def accuracy(weights: Weights, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the fraction of points on the right side of probability ½, per seed."""
    return np.mean((logits(weights, x) > 0) == (y == 1), axis=1)


def accuracies(weights: Weights, data: Circles) -> dict[str, list[float]]:
    """Return train and test accuracy per seed."""
    return {
        "train": accuracy(weights, data.x_train, data.y_train).tolist(),
        "test": accuracy(weights, data.x_test, data.y_test).tolist(),
    }


def hidden_statistics(weights: Weights, data: Circles) -> dict[str, list[float]]:
    """Return mean and fraction of exact zeros of the hidden output on the training points, per seed."""
    active = hidden(weights, data.x_train)
    return {
        "mean_activation": active.mean(axis=(1, 2), dtype=np.float64).tolist(),
        "exact_zeros": np.mean(active == 0, axis=(1, 2)).tolist(),
    }


def boundary(weights: Weights) -> list[float]:
    """Return the probability of class 1 on the points of `grid`, averaged over seeds."""
    points, seeds = grid(), len(weights["hidden/kernel"])
    total = np.zeros(len(points))
    for seed in range(seeds):
        one = {name: array[seed : seed + 1] for name, array in weights.items()}
        total += 1 / (1 + np.exp(-np.clip(logits(one, points)[0].astype(np.float64), -40, 40)))
    return np.round(total / seeds, 3).tolist()
