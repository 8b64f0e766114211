"""Sequences to reverse, initial weights, and how trained encoder–decoders are judged."""

import numpy as np

from arspec.layers import LSTM, Dense, Embedding, Network
from arspec_studies._study.study import Task, Weights
from arspec_studies._study.weights import affine, embeddings, lstm, shuffled

SYMBOLS, STEPS, EMBEDDED, UNITS = 8, 5, 16, 48
TRAIN, TEST, BATCH = 1000, 500, 50
LEARNING_RATE = 5e-3
EPOCHS, QUICK_EPOCHS = 40, 1


def task(seed: int, quick: bool) -> Task:
    """Draw 1500 different sequences of 5 of 8 symbols, 1000 to train and 500 to test; weights and order."""
    rng = np.random.default_rng([seed, 7])
    numbers = rng.choice(SYMBOLS**STEPS, TRAIN + TEST, replace=False)
    x = numbers[:, None] // SYMBOLS ** np.arange(STEPS) % SYMBOLS
    y = np.ascontiguousarray(x[:, ::-1])
    weights = (
        embeddings(rng, "embedding", SYMBOLS, EMBEDDED)
        | lstm(rng, "encoder", EMBEDDED, UNITS)
        | lstm(rng, "decoder", UNITS, UNITS)
        | affine(rng, "output", UNITS, SYMBOLS)
    )
    order = shuffled(rng, TRAIN, batch=BATCH, epochs=QUICK_EPOCHS if quick else EPOCHS)
    return Task(weights, x[:TRAIN], y[:TRAIN], order, {"x": x[TRAIN:], "y": y[TRAIN:]})


def measure(weights: Weights, task: Task) -> dict[str, float]:
    """Return the share of symbols that are right, and what the states of the encoder are like."""

    def recurrent(layer: str) -> LSTM:
        return LSTM(*(weights[f"{layer}/{role}"] for role in ("kernel", "recurrent_kernel", "bias")))

    encoder = Network({"embedding": Embedding(weights["embedding/embeddings"]), "encoder": recurrent("encoder")})
    decoder = Network(
        {"decoder": recurrent("decoder"), "output": Dense(weights["output/kernel"], weights["output/bias"])}
    )
    found: dict[str, float] = {}
    states = np.zeros(0)
    for split, x, y in (("train", task.x, task.y), ("test", task.held_out["x"], task.held_out["y"])):
        states = encoder.forward(x)["encoder"]["hidden_state"]
        code = np.repeat(states[:, -1:], STEPS, axis=1)
        found[split] = float(np.mean(decoder.forward(code)["output"]["output"].argmax(axis=-1) == y))
    return {
        "test": found["test"],
        "train": found["train"],
        "square": float(np.mean(states**2)),
        "step": float(np.mean(np.diff(states, axis=1) ** 2)),
    }
