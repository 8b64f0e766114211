"""Initial weights, in NumPy: those that Keras would draw, by "layer/placement"."""

import numpy as np

from arspec_studies._study.study import Weights


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw a kernel (..., inputs, outputs), uniform within ±√(6 / (fan in + fan out))."""
    field = int(np.prod(shape[:-2]))
    limit = np.sqrt(6 / (field * (shape[-2] + shape[-1])))
    return rng.uniform(-limit, limit, shape).astype(np.float32)


def affine(rng: np.random.Generator, layer: str, *shape: int) -> Weights:
    """Return kernel and zero bias of a dense or convolutional layer whose kernel has this shape."""
    return {f"{layer}/kernel": glorot_uniform(rng, shape), f"{layer}/bias": np.zeros(shape[-1], np.float32)}


def dense_stack(rng: np.random.Generator, sizes: dict[str, int], inputs: int) -> Weights:
    """Return the weights of dense layers in a row, given the units of each by name."""
    weights: Weights = {}
    for layer, units in sizes.items():
        weights |= affine(rng, layer, inputs, units)
        inputs = units
    return weights


def lstm(rng: np.random.Generator, layer: str, inputs: int, units: int) -> Weights:
    """Return the weights of an LSTM: orthogonal recurrent kernel, and 1 at the bias of the forget gate."""
    square = np.linalg.qr(rng.normal(size=(4 * units, units)))[0].T
    bias = np.zeros(4 * units, np.float32)
    bias[units : 2 * units] = 1
    return {
        f"{layer}/kernel": glorot_uniform(rng, (inputs, 4 * units)),
        f"{layer}/recurrent_kernel": square.astype(np.float32),
        f"{layer}/bias": bias,
    }


def embeddings(rng: np.random.Generator, layer: str, tokens: int, features: int) -> Weights:
    """Return a table of embeddings, uniform within ±0.05."""
    return {f"{layer}/embeddings": rng.uniform(-0.05, 0.05, (tokens, features)).astype(np.float32)}


def shuffled(rng: np.random.Generator, examples: int, *, batch: int, epochs: int) -> np.ndarray:
    """Return the order of examples, (steps, batch): every epoch a new permutation, its remainder left out."""
    steps = examples // batch
    order = [rng.permutation(examples)[: steps * batch].reshape(steps, batch) for _ in range(epochs)]
    return np.concatenate(order)
