"""The reference layers with random parameters, one row each, and numerical differentiation."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from arspec import layers
from arspec.layers import Record, ReferenceLayer

BATCH, TIME, FEATURES, UNITS = 3, 7, 5, 2

Array = np.ndarray


def random(*shape: int, seed: int = 0) -> Array:
    """Return normal numbers, a different array for every shape and seed."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def recurrent(cls: type[layers.Recurrent], *, bias: tuple[int, ...] = (), seed: int = 0, **options: Any) -> Any:
    """Return a recurrent layer with random parameters; the bias is left out where its shape is ()."""
    gates = cls.gates * UNITS
    parameters = {"kernel": random(FEATURES, gates, seed=seed), "recurrent_kernel": random(UNITS, gates, seed=seed)}
    return cls(**parameters, bias=random(*bias, seed=seed) if bias else None, **options)


def simple_rnn(**options: Any) -> layers.SimpleRNN:
    return recurrent(layers.SimpleRNN, **{"bias": (UNITS,), **options})


def lstm(**options: Any) -> layers.LSTM:
    return recurrent(layers.LSTM, **{"bias": (4 * UNITS,), **options})


def gru(*, reset_after: bool = True, **options: Any) -> layers.GRU:
    bias = (2, 3 * UNITS) if reset_after else (3 * UNITS,)
    return recurrent(layers.GRU, **{"bias": bias, "reset_after": reset_after, **options})


def bidirectional(cell: Callable[..., Any] = lstm, *, merge: str = "concat", **options: Any) -> layers.Bidirectional:
    return layers.Bidirectional(cell(**options), cell(reverse=True, seed=1, **options), merge)


def convolution(*size: int, groups: int = 1, inputs: int = FEATURES, outputs: int = UNITS, **options: Any) -> Any:
    kernel = random(*size, inputs // groups, outputs)
    return layers.Convolution(kernel, random(outputs), groups=groups, **options)


def depthwise(*size: int, multiplier: int = 2, **options: Any) -> layers.DepthwiseConvolution:
    return layers.DepthwiseConvolution(
        random(*size, FEATURES, multiplier), random(FEATURES * multiplier, seed=1), **options
    )


def separable(*size: int, multiplier: int = 3, **options: Any) -> layers.SeparableConvolution:
    ones = (1,) * len(size)
    kernels = random(*size, FEATURES, multiplier), random(*ones, FEATURES * multiplier, UNITS)
    return layers.SeparableConvolution(*kernels, random(UNITS, seed=2), **options)


def attention(heads: int = 2, size: int = 3, value_size: int = 4, output: int = 7, **options: Any) -> Any:
    kernels = [random(FEATURES, heads, size, seed=seed) for seed in (0, 1)]
    kernels += [random(FEATURES, heads, value_size, seed=2), random(heads, value_size, output)]
    biases = [random(heads, size, seed=4), random(heads, size, seed=5), random(heads, value_size), random(output)]
    return layers.MultiHeadAttention(*kernels, *biases, **options)


def batch_normalization(**options: Any) -> layers.BatchNormalization:
    mean, scale, shift = (random(FEATURES, seed=seed) for seed in range(3))
    return layers.BatchNormalization(mean, np.exp(random(FEATURES, seed=3)), scale, shift, **options)


SEQUENCE = random(BATCH, TIME, FEATURES)
IMAGE = random(2, 7, 5, FEATURES)
VOLUME = random(2, 5, 3, 4, FEATURES)
TOKENS = np.array([[3, 1, 0, 1, 3], [2, 0, 0, 1, 1]])

# Padding behind, in front and in the middle; an example that is all padding.
MASKS: dict[str, Array] = {
    "behind": layers.mask_of_lengths([7, 4, 1], TIME),
    "in front": layers.mask_of_lengths([7, 4, 1], TIME)[:, ::-1],
    "holes": np.array([[1, 0, 1, 1, 0, 0, 1], [0, 1, 1, 0, 1, 1, 1], [1, 1, 0, 0, 0, 1, 0]], bool),
    "an empty example": layers.mask_of_lengths([5, 0, 7], TIME),
    "of the batch": np.array([True, False, True]),
}

_ROWS: dict[str, tuple[Callable[[], Any], Array]] = {
    "dense": (lambda: layers.Dense(random(FEATURES, UNITS), random(UNITS), "tanh"), random(BATCH, FEATURES)),
    "dense over time": (lambda: layers.Dense(random(FEATURES, UNITS), random(UNITS), "gelu"), SEQUENCE),
    "dense without bias": (lambda: layers.Dense(random(FEATURES, UNITS), activation="softmax"), SEQUENCE),
    "activation": (lambda: layers.Activation("silu"), SEQUENCE),
    "flatten": (lambda: layers.Flatten(), IMAGE),
    "conv 1-D valid": (lambda: convolution(3, strides=2), SEQUENCE),
    "conv 1-D causal": (lambda: convolution(3, padding="causal", dilation=2, activation="tanh"), SEQUENCE),
    "conv 1-D same": (lambda: convolution(4, padding="same", dilation=2), SEQUENCE),
    "conv 2-D same": (lambda: convolution(3, 2, padding="same", strides=(2, 3), activation="elu"), IMAGE),
    "conv 2-D groups": (lambda: convolution(2, 3, groups=5, outputs=10, dilation=(2, 1)), IMAGE),
    "conv 2-D pairs": (lambda: convolution(3, 3, padding=((1, 0), (2, 1)), strides=2), IMAGE),
    "conv 3-D": (lambda: convolution(2, 3, 1, padding="same", strides=(1, 2, 1)), VOLUME),
    "depthwise 1-D": (lambda: depthwise(3, padding="causal", activation="softplus"), SEQUENCE),
    "depthwise 2-D": (lambda: depthwise(2, 3, padding="same", strides=2), IMAGE),
    "depthwise 3-D": (lambda: depthwise(2, 1, 2, multiplier=1), VOLUME),
    "separable 1-D": (lambda: separable(3, padding="same", activation="sigmoid"), SEQUENCE),
    "separable 2-D": (lambda: separable(3, 2, dilation=(1, 2)), IMAGE),
    "simple rnn": (simple_rnn, SEQUENCE),
    "simple rnn without bias": (lambda: simple_rnn(bias=(), activation="softplus"), SEQUENCE),
    "lstm": (lstm, SEQUENCE),
    "lstm last": (lambda: lstm(return_sequences=False, reverse=True), SEQUENCE),
    "lstm without bias": (lambda: lstm(bias=(), activation="softplus", recurrent_activation="tanh"), SEQUENCE),
    "lstm zero": (lambda: lstm(zero_output_for_mask=True), SEQUENCE),
    "gru": (gru, SEQUENCE),
    "gru reset before": (lambda: gru(reset_after=False), SEQUENCE),
    "gru reverse": (lambda: gru(reverse=True, activation="softplus"), SEQUENCE),
    "gru without bias": (lambda: gru(bias=(), reset_after=False, return_sequences=False), SEQUENCE),
    "bidirectional lstm": (bidirectional, SEQUENCE),
    "bidirectional sum": (lambda: bidirectional(gru, merge="sum"), SEQUENCE),
    "bidirectional ave": (lambda: bidirectional(simple_rnn, merge="ave", return_sequences=False), SEQUENCE),
    "bidirectional mul": (lambda: bidirectional(gru, merge="mul", zero_output_for_mask=True), SEQUENCE),
    "attention": (attention, SEQUENCE),
    "causal attention": (lambda: attention(causal=True), SEQUENCE),
    "embedding": (lambda: layers.Embedding(random(4, FEATURES)), TOKENS),
    "embedding with a mask": (lambda: layers.Embedding(random(4, FEATURES), mask_zero=True), TOKENS),
    "batch normalization": (batch_normalization, IMAGE),
    "batch normalization bare": (lambda: layers.BatchNormalization(random(5), np.exp(random(5))), SEQUENCE),
    "layer normalization": (lambda: layers.LayerNormalization(random(5), random(5, seed=1)), SEQUENCE),
    "layer normalization bare": (lambda: layers.LayerNormalization(epsilon=1e-5), IMAGE),
}
CASES: dict[str, tuple[ReferenceLayer, Array]] = {name: (make(), x) for name, (make, x) in _ROWS.items()}


def cotangents(record: Record) -> dict[str, Array]:
    """Return a random direction for every named tensor of a record."""
    return {name: random(*np.shape(tensor), seed=len(name)) for name, tensor in record.items()}


def paired(record: Record, directions: Mapping[str, Array]) -> float:
    """Return Σ tensor · direction over the named tensors, a function of all of them, summed exactly."""
    return math.fsum(p for name, direction in directions.items() for p in np.ravel(record[name] * direction))


def numerical_gradient(function: Callable[[Array], float], x: Array, step: float = 1e-3) -> Array:
    """Return the gradient by central differences of sixth order; their error is near step⁶."""
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        for offset, weight in ((1, 45), (2, -9), (3, 1)):
            ahead, behind = x.copy(), x.copy()
            ahead[index] += offset * step
            behind[index] -= offset * step
            gradient[index] += weight * (function(ahead) - function(behind))
    return gradient / (60 * step)
