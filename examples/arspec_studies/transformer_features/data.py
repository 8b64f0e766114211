"""Activations of a random transformer on Python's help topics, and how autoencoders of them are judged."""

from functools import cache
from typing import Any

import numpy as np

from arspec_studies._study.study import Task, Weights
from arspec_studies._study.weights import affine, shuffled
from arspec_studies.language_model.data import STEPS, WORDS, tokens
from arspec_studies.sparse_autoencoder.data import PIXELS, features, latents

LAYERS, HEADS, SEQUENCES, TRAIN = 4, 4, 300, 5000
UNITS, BATCH = 256, 250
EPOCHS, QUICK_EPOCHS = 25, 1
STRONGEST = 10


@cache
def activations() -> tuple[np.ndarray, np.ndarray]:
    """Return the hidden state after the second of four layers, float32 (6000, 64), and the words it stands above.

    The model is a GPT-2 of `transformers` made from a configuration, with random weights of
    seed 0: nothing is downloaded. Each feature has mean 0; all are scaled by one number, so
    that the squared length is that of the digits' variance, 4.7, on average.
    """
    import torch
    from transformers import GPT2Config, GPT2Model, set_seed

    set_seed(0)
    config = GPT2Config(
        vocab_size=WORDS, n_positions=STEPS, n_embd=PIXELS, n_layer=LAYERS, n_head=HEADS, bos_token_id=0, eos_token_id=0
    )
    model = GPT2Model(config).eval()
    words = tokens()[0][: SEQUENCES * STEPS].reshape(SEQUENCES, STEPS)
    with torch.no_grad():
        given: Any = model(torch.from_numpy(words), output_hidden_states=True).hidden_states[LAYERS // 2]
    x = given.numpy().reshape(-1, PIXELS)
    x = x - x.mean(axis=0)
    order = np.random.default_rng(0).permutation(len(x))
    scaled = (x * np.sqrt(4.7 / np.mean(np.sum(x**2, axis=1)))).astype(np.float32)
    return scaled[order], words.ravel()[order]


def task(seed: int, quick: bool, *, activation: str) -> Task:
    """Draw the weights of an autoencoder 64–256–64 and an order; 5000 states to train, 1000 to test."""
    rng = np.random.default_rng([seed, 8])
    weights = affine(rng, "encoder", PIXELS, UNITS) | affine(rng, "decoder", UNITS, PIXELS)
    if activation == "jumprelu":
        weights["margin/log_threshold"] = np.full(UNITS, np.log(0.05), np.float32)
    order = shuffled(rng, TRAIN, batch=BATCH, epochs=QUICK_EPOCHS if quick else EPOCHS)
    x = activations()[0][:TRAIN]
    return Task(weights, x, x, order, {"activation": activation})


def measure(weights: Weights, task: Task) -> dict[str, float]:
    """Return error and sparsity on the states to test, and how often the strongest states of a latent share a word."""
    x, words = activations()
    hidden = latents(weights, x, task.held_out["activation"])
    test = hidden[TRAIN:]
    rest = x[TRAIN:] - test @ features(weights) - weights["decoder/bias"]
    active = test > 0
    return {
        "unexplained": float(np.sum(rest**2) / np.sum((x[TRAIN:] - x[TRAIN:].mean(axis=0)) ** 2)),
        "active": float(active.sum(axis=1).mean()),
        "never": float(1 - active.any(axis=0).mean()),
        "word": _same_word(hidden, words),
        "chance": _same_word(np.random.default_rng(0).random((len(x), UNITS)), words),
    }


def _same_word(hidden: np.ndarray, words: np.ndarray) -> float:
    """Return the share of the most frequent word among the ten states in which a latent is strongest, on average."""
    alive = np.flatnonzero((hidden > 0).sum(axis=0) >= STRONGEST)
    strongest = np.argsort(-hidden[:, alive], axis=0)[:STRONGEST]
    shares = [np.unique(words[column], return_counts=True)[1].max() / STRONGEST for column in strongest.T]
    return float(np.mean(shares)) if shares else 0.0
