"""Words of Python's help topics, initial weights, and how a trained language model is judged."""

import re
from collections import Counter
from functools import cache

import numpy as np

from arspec.layers import LSTM, Dense, Embedding, Network
from arspec_studies._study.study import Task, Weights
from arspec_studies._study.weights import affine, embeddings, lstm, shuffled

WORDS, EMBEDDED, UNITS = 800, 64, 96
TRAIN, TEST, STEPS = 24000, 6000, 20
BATCH, LEARNING_RATE = 10, 3e-3
# By how many of the words are trained on: few are learned by heart, many are not.
EPOCHS = {8000: 10, TRAIN: 4}
UNKNOWN = "<unk>"


@cache
def tokens() -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the text as integers, and the words they stand for: the 799 most frequent ones of the training part."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics)).lower()
    found = re.findall(r"[a-z_]+|\d+|[^\sa-z\d_]", text)[: TRAIN + TEST]
    frequent = Counter(found[:TRAIN]).most_common(WORDS - 1)
    vocabulary = (UNKNOWN, *(word for word, _ in frequent))
    number = {word: index for index, word in enumerate(vocabulary)}
    return np.array([number.get(word, 0) for word in found], np.int64), vocabulary


def sequences(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut words into sequences of 20, and the words that follow each: (sequences, 20) both."""
    count = (len(part) - 1) // STEPS
    cut = part[: count * STEPS + 1]
    return cut[:-1].reshape(count, STEPS), cut[1:].reshape(count, STEPS)


def task(seed: int, quick: bool, *, words: int) -> Task:
    """Draw weights and the order of sequences; the text is the same for every seed, and the test for any `words`."""
    text, _ = tokens()
    x, y = sequences(text[: words // 8 if quick else words])
    rng = np.random.default_rng([seed, 4])
    weights = (
        embeddings(rng, "embedding", WORDS, EMBEDDED)
        | lstm(rng, "lstm", EMBEDDED, UNITS)
        | affine(rng, "output", UNITS, WORDS)
    )
    order = shuffled(rng, len(x), batch=BATCH, epochs=1 if quick else EPOCHS[words])
    test_x, test_y = sequences(text[TRAIN : TRAIN + (400 if quick else TEST)])
    return Task(weights, x, y, order, {"x": test_x, "y": test_y})


def network(weights: Weights) -> Network:
    """Return the reference network with these weights."""
    return Network(
        {
            "embedding": Embedding(weights["embedding/embeddings"]),
            "lstm": LSTM(weights["lstm/kernel"], weights["lstm/recurrent_kernel"], weights["lstm/bias"]),
            "output": Dense(weights["output/kernel"], weights["output/bias"]),
        }
    )


def measure(weights: Weights, task: Task) -> dict[str, float]:
    """Return perplexities, and what AR and TAR make small: mean squares of the states and of their steps."""
    net = network(weights)
    seen = slice(0, len(task.held_out["x"]))
    test, states = _perplexity(net, task.held_out["x"], task.held_out["y"])
    train, _ = _perplexity(net, task.x[seen], task.y[seen])
    return {
        "test": test,
        "train": train,
        "square": float(np.mean(states**2)),
        "step": float(np.mean(np.diff(states, axis=1) ** 2)),
    }


def _perplexity(net: Network, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    records = net.forward(x)
    logits = records["output"]["output"]
    top = logits.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(axis=-1)) + top[..., 0]
    loss = log_sum - np.take_along_axis(logits, y[..., None], axis=-1)[..., 0]
    return float(np.exp(loss.mean())), records["lstm"]["output"]
