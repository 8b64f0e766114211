"""Huber: quadratic near zero, linear beyond."""

from dataclasses import dataclass
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, Positive, register, validated


@register
@dataclass(frozen=True, slots=True)
class Huber(Penalty):
    """coefficient · Σ h(x), h = ½x² for |x| <= δ and δ(|x| - ½δ) beyond.

    The gradient is x clipped to [-δ, δ]; both pieces agree at |x| = δ.

    Parameters
    ----------
    coefficient : finite number >= 0.
    delta : δ, finite number > 0, keyword only.

    Notes
    -----
    The quadratic piece has the factor ½. At ±inf: value inf, gradient ±δ.

    References
    ----------
    P. J. Huber, Robust estimation of a location parameter, Annals of Mathematical
    Statistics 35, 1964.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> ar.gradient(ar.Huber(1.0, delta=2.0), np.array([-5.0, 1.0, 2.0]))
    array([-2.,  1.,  2.])
    """

    name: ClassVar[str] = "huber"
    non_negative: ClassVar[bool] = True
    coefficient: float
    delta: Positive

    def __init__(self, coefficient: float, *, delta: float) -> None:
        validated(self, non_negative={"coefficient": coefficient}, positive={"delta": delta})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        size = xp.abs(x)
        near = xp.where(size <= self.delta, x, 0.0)
        inside = xp.multiply(xp.multiply(0.5, near), near)
        return xp.where(size <= self.delta, inside, xp.multiply(self.delta, size - 0.5 * self.delta))

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        beyond = xp.multiply(self.delta, xp.sign(x))
        return xp.multiply(weight, xp.where(xp.abs(x) <= self.delta, x, beyond))
