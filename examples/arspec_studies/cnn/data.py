"""Digits as images, initial weights, and how trained networks are judged."""

import numpy as np

from arspec.layers import Convolution, Dense, Network
from arspec_studies._study.study import Task, Weights
from arspec_studies._study.weights import affine, shuffled
from arspec_studies.rectifiers.data import digits

TRAIN, BATCH = 600, 50
LEARNING_RATE = 1e-2
EPOCHS, QUICK_EPOCHS = 40, 1
CHANNELS = (8, 16)


def task(seed: int, quick: bool) -> Task:
    """Split at random, 600 images to train and 1197 to test; draw weights and order."""
    x, y = digits()
    images = x.reshape(-1, 8, 8, 1)
    rng = np.random.default_rng([seed, 6])
    chosen = rng.permutation(len(x))
    train, test = chosen[:TRAIN], chosen[TRAIN:]
    first, second = CHANNELS
    weights = (
        affine(rng, "conv1", 3, 3, 1, first)
        | affine(rng, "conv2", 3, 3, first, second)
        | affine(rng, "output", second, 10)
    )
    order = shuffled(rng, TRAIN, batch=BATCH, epochs=QUICK_EPOCHS if quick else EPOCHS)
    return Task(weights, images[train], y[train], order, {"x": images[test], "y": y[test]})


def measure(weights: Weights, task: Task) -> dict[str, float]:
    """Return accuracies, and how sparse the convolutions are on the test images."""
    convolutions = Network(
        {
            layer: Convolution(weights[f"{layer}/kernel"], weights[f"{layer}/bias"], activation="relu", padding="same")
            for layer in ("conv1", "conv2")
        }
    )
    head = Dense(weights["output/kernel"], weights["output/bias"])
    accuracies, hidden = {}, []
    for split, x, y in (("test", task.held_out["x"], task.held_out["y"]), ("train", task.x, task.y)):
        records = convolutions.forward(x)
        pooled = records["conv2"]["output"].mean(axis=(1, 2))
        accuracies[split] = float(np.mean(head.forward(pooled)["output"].argmax(axis=1) == y))
        hidden.append(np.concatenate([records[layer]["output"].ravel() for layer in records]))
    return {**accuracies, "zeros": float(np.mean(hidden[0] == 0)), "activation": float(hidden[0].mean())}
