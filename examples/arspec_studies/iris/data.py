"""Random splits of Iris, and how trained weights are judged."""

from functools import cache
from typing import Any

import numpy as np

from arspec.layers import Dense, Network
from arspec_studies._study.study import Task, Weights
from arspec_studies._study.weights import dense_stack, shuffled

UNITS = {"dense1": 512, "dense2": 256, "dense3": 64, "dense4": 32, "output": 3}
LEARNING_RATE = 0.01
EPOCHS, QUICK_EPOCHS = 350, 5
TRAIN, BATCH = 112, 28


@cache
def flowers() -> tuple[np.ndarray, np.ndarray]:
    """Return the measurements, standardized, float32 of shape (150, 4), and the species, integers."""
    from sklearn.datasets import load_iris

    bunch: Any = load_iris()
    x = (bunch.data - bunch.data.mean(axis=0)) / bunch.data.std(axis=0)
    return x.astype(np.float32), bunch.target.astype(np.int64)


def task(seed: int, quick: bool) -> Task:
    """Split at random: 112 flowers to train and 38 to test, as published; draw weights and order."""
    x, y = flowers()
    rng = np.random.default_rng([seed, 1])
    chosen = rng.permutation(len(x))
    train, test = chosen[:TRAIN], chosen[TRAIN:]
    order = shuffled(rng, TRAIN, batch=BATCH, epochs=QUICK_EPOCHS if quick else EPOCHS)
    weights = dense_stack(rng, UNITS, inputs=4)
    return Task(weights, x[train], y[train], order, {"x": x[test], "y": y[test]})


def network(weights: Weights) -> Network:
    """Return the reference network with these weights."""
    return Network(
        {
            layer: Dense(
                weights[f"{layer}/kernel"],
                weights[f"{layer}/bias"],
                activation="linear" if layer == "output" else "tanh",
            )
            for layer in UNITS
        }
    )


def measure(weights: Weights, task: Task) -> dict[str, float]:
    """Return accuracies, and what the penalty does to the first layer."""
    net = network(weights)
    on_train, on_test = net.forward(task.x), net.forward(task.held_out["x"])
    return {
        "test": float(np.mean(on_test["output"]["output"].argmax(axis=1) == task.held_out["y"])),
        "train": float(np.mean(on_train["output"]["output"].argmax(axis=1) == task.y)),
        "kernel": float(np.abs(weights["dense1/kernel"]).mean()),
        "activation": float(np.abs(on_train["dense1"]["output"]).mean()),
    }
