"""Digits of 8 × 8 pixels, initial weights, and how trained autoencoders are judged."""

from functools import cache
from typing import Any

import numpy as np

from arspec_studies._study.study import Task, Weights
from arspec_studies._study.weights import affine, shuffled

PIXELS, TRAIN, BATCH = 64, 1500, 100
LEARNING_RATE = 3e-3
EPOCHS, QUICK_EPOCHS = 60, 1
BANDWIDTH, FIRST_THRESHOLD = 0.2, 0.05
SIGMOID_IS_ACTIVE = 0.1
PICTURES = 16


@cache
def digits() -> np.ndarray:
    """Return the images, float32 of shape (1797, 64), from 0 to 1, in one random order."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return np.random.default_rng(0).permutation((bunch.data / 16).astype(np.float32))


def task(seed: int, quick: bool, *, units: int, activation: str) -> Task:
    """Draw the weights of an autoencoder 64–units–64 and an order; 1500 images to train, 297 to test."""
    rng = np.random.default_rng([seed, 2])
    order = shuffled(rng, TRAIN, batch=BATCH, epochs=QUICK_EPOCHS if quick else EPOCHS)
    weights = affine(rng, "encoder", PIXELS, units) | affine(rng, "decoder", units, PIXELS)
    if activation == "jumprelu":
        weights["margin/log_threshold"] = np.full(units, np.log(FIRST_THRESHOLD), np.float32)
    x = digits()[:TRAIN]
    return Task(weights, x, x, order, {"x": digits()[TRAIN:], "activation": activation})


def latents(weights: Weights, x: np.ndarray, activation: str) -> np.ndarray:
    """Return the activations of the hidden layer."""
    z = x @ weights["encoder/kernel"] + weights["encoder/bias"]
    if activation == "sigmoid":
        return 1 / (1 + np.exp(-z))
    return np.where(z > np.exp(weights["margin/log_threshold"]), z, 0) if activation == "jumprelu" else np.maximum(z, 0)


def features(weights: Weights) -> np.ndarray:
    """Return what each latent adds to the image: the rows of the decoder, of length 1."""
    kernel = weights["decoder/kernel"]
    return kernel / np.linalg.norm(kernel, axis=1, keepdims=True)


def _active(hidden: np.ndarray, task: Task) -> np.ndarray:
    return hidden > (SIGMOID_IS_ACTIVE if task.held_out["activation"] == "sigmoid" else 0)


def measure(weights: Weights, task: Task) -> dict[str, float]:
    """Return the error on the test images, and how many latents take part."""
    x = task.held_out["x"]
    hidden = latents(weights, x, task.held_out["activation"])
    rest = x - hidden @ features(weights) - weights["decoder/bias"]
    active = _active(hidden, task)
    return {
        "unexplained": float(np.sum(rest**2) / np.sum((x - x.mean(axis=0)) ** 2)),
        "active": float(active.sum(axis=1).mean()),
        "never": float(1 - active.any(axis=0).mean()),
        "mean": float(hidden.mean()),
    }


def show(weights: Weights, task: Task) -> list[list[float]]:
    """Return the features of the latents that are most often active, as images."""
    active = _active(latents(weights, task.held_out["x"], task.held_out["activation"]), task)
    chosen = np.argsort(-active.mean(axis=0), kind="stable")[:PICTURES]
    return np.round(features(weights)[chosen].astype(float), 2).tolist()
