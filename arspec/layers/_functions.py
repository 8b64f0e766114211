"""The activation functions of the reference layers, each with its derivative.

At a kink the derivative is the one every framework uses there: relu'(0) = 0.
"""

import math
from collections.abc import Callable

import numpy as np

from arspec._errors import unknown

Array = np.ndarray

_SQRT_HALF, _SQRT_TWO_PI = math.sqrt(0.5), math.sqrt(2 * math.pi)
_GELU_SLOPE, _GELU_CUBE = math.sqrt(2 / math.pi), 0.044715


def sigmoid(z: Array) -> Array:
    """Return 1 / (1 + exp(-z)), accurate at both ends."""
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, small) / (1.0 + small)


def _erf(z: Array) -> Array:
    return np.vectorize(math.erf, otypes=[np.float64])(z)


def _gelu_slope(z: Array, y: Array) -> Array:
    return 0.5 * (1 + _erf(z * _SQRT_HALF)) + z * np.exp(-0.5 * z * z) / _SQRT_TWO_PI


def _gelu_tanh(z: Array) -> Array:
    return 0.5 * z * (1 + np.tanh(_GELU_SLOPE * (z + _GELU_CUBE * z**3)))


def _gelu_tanh_slope(z: Array, y: Array) -> Array:
    bent = np.tanh(_GELU_SLOPE * (z + _GELU_CUBE * z**3))
    return 0.5 * (1 + bent) + 0.5 * z * (1 - bent * bent) * _GELU_SLOPE * (1 + 3 * _GELU_CUBE * z * z)


def _silu_slope(z: Array, y: Array) -> Array:
    gate = sigmoid(z)
    return gate + y * (1 - gate)


# name: (function of z, derivative from z and y = function(z))
_ELEMENTWISE: dict[str, tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]] = {
    "linear": (lambda z: z, lambda z, y: np.ones_like(z)),
    "relu": (lambda z: np.maximum(z, 0), lambda z, y: np.where(z > 0, 1.0, 0.0)),
    "elu": (lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))), lambda z, y: np.where(z > 0, 1.0, y + 1)),
    "tanh": (np.tanh, lambda z, y: 1 - y * y),
    "sigmoid": (sigmoid, lambda z, y: y * (1 - y)),
    "softplus": (lambda z: np.logaddexp(z, 0), lambda z, y: sigmoid(z)),
    "silu": (lambda z: z * sigmoid(z), _silu_slope),
    "gelu": (lambda z: 0.5 * z * (1 + _erf(z * _SQRT_HALF)), _gelu_slope),
    "gelu_tanh": (_gelu_tanh, _gelu_tanh_slope),
}


def softmax(z: Array) -> Array:
    """Return exp(z) / Σ exp(z) over the last axis."""
    shares = np.exp(z - np.max(z, -1, keepdims=True))
    return shares / np.sum(shares, -1, keepdims=True)


def softmax_gradient(y: Array, gradient: Array) -> Array:
    """Return the gradient with respect to z, given that with respect to y = softmax(z)."""
    return y * (gradient - np.sum(gradient * y, -1, keepdims=True))


def require_function(owner: str, field: str, name: object, *, elementwise: bool = False) -> None:
    """Raise unless `name` is an activation function of this module."""
    allowed = (*_ELEMENTWISE,) if elementwise else (*_ELEMENTWISE, "softmax")
    if name not in allowed:
        raise unknown(f"{field} of {owner}", name, allowed)


def activate(name: str, z: Array) -> Array:
    """Return the activation function called `name` at z."""
    return softmax(z) if name == "softmax" else _ELEMENTWISE[name][0](z)


def activation_gradient(name: str, z: Array, y: Array, gradient: Array) -> Array:
    """Return the gradient with respect to z, given that with respect to y = activate(name, z)."""
    return softmax_gradient(y, gradient) if name == "softmax" else gradient * _ELEMENTWISE[name][1](z, y)
