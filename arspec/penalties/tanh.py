"""Tanh: a saturating count of active units."""

from dataclasses import dataclass
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, Positive, register, validated


@register
@dataclass(frozen=True, slots=True)
class Tanh(Penalty):
    """coefficient · Σ tanh(s|x|); the gradient is s · sign x · (1 - tanh²(s|x|)), and 0 at 0.

    Parameters
    ----------
    coefficient : finite number >= 0.
    scale : s, finite number > 0, keyword only.

    Notes
    -----
    1 - tanh² is evaluated as 4e/(1+e)² with e = exp(-2s|x|), which does not cancel. At
    ±inf: value 1 per element, gradient 0.

    References
    ----------
    Anthropic interpretability team, Circuits Updates, February 2024 (tanh penalty for
    sparse autoencoders).

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> ar.gradient(ar.Tanh(1.0), np.array([0.0, np.inf]))
    array([0., 0.])
    """

    name: ClassVar[str] = "tanh"
    non_negative: ClassVar[bool] = True
    coefficient: float
    scale: Positive = 1.0

    def __init__(self, coefficient: float, *, scale: float = 1.0) -> None:
        validated(self, non_negative={"coefficient": coefficient}, positive={"scale": scale})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        return xp.tanh(xp.multiply(self.scale, xp.abs(x)))

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        size = xp.multiply(self.scale, xp.abs(x))
        e = xp.exp(-xp.double(size))
        slope = xp.divide(xp.multiply(4.0, e), xp.square(1.0 + e))
        return xp.multiply(weight, xp.multiply(self.scale, xp.multiply(xp.sign(x), slope)))
