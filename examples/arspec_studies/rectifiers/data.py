"""Digits to classify, initial weights, and how trained networks are judged."""

from functools import cache
from typing import Any

import numpy as np

from arspec.layers import Dense, Network
from arspec_studies._study.study import Task, Weights
from arspec_studies._study.weights import dense_stack, shuffled

UNITS = {"hidden1": 200, "hidden2": 200, "hidden3": 200, "output": 10}
PIXELS, TRAIN, BATCH = 64, 1200, 60
LEARNING_RATE = 0.1
EPOCHS, QUICK_EPOCHS = 40, 1


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the images of scikit-learn's digits, float32 of shape (1797, 64), from 0 to 1, and what they show."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return (bunch.data / 16).astype(np.float32), bunch.target.astype(np.int64)


def task(seed: int, quick: bool, *, activation: str) -> Task:
    """Split at random, 1200 images to train and 597 to test; draw weights and order."""
    x, y = digits()
    rng = np.random.default_rng([seed, 5])
    chosen = rng.permutation(len(x))
    train, test = chosen[:TRAIN], chosen[TRAIN:]
    order = shuffled(rng, TRAIN, batch=BATCH, epochs=QUICK_EPOCHS if quick else EPOCHS)
    held_out = {"x": x[test], "y": y[test], "activation": activation}
    return Task(dense_stack(rng, UNITS, inputs=PIXELS), x[train], y[train], order, held_out)


def measure(weights: Weights, task: Task) -> dict[str, float]:
    """Return accuracies, and how sparse the hidden layers are on the test images."""
    functions = dict.fromkeys(UNITS, task.held_out["activation"]) | {"output": "linear"}
    network = Network(
        {
            layer: Dense(weights[f"{layer}/kernel"], weights[f"{layer}/bias"], activation=functions[layer])
            for layer in UNITS
        }
    )
    on_train, on_test = network.forward(task.x), network.forward(task.held_out["x"])
    hidden = np.stack([on_test[layer]["output"] for layer in UNITS if layer != "output"])
    return {
        "test": float(np.mean(on_test["output"]["output"].argmax(axis=1) == task.held_out["y"])),
        "train": float(np.mean(on_train["output"]["output"].argmax(axis=1) == task.y)),
        "zeros": float(np.mean(hidden == 0)),
        "dead": float(np.mean((hidden == 0).all(axis=1))),
        "activation": float(np.abs(hidden).mean()),
    }
