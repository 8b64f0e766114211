"""Lp: the bridge penalty."""

from dataclasses import dataclass
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, Positive, register, validated


@register
@dataclass(frozen=True, slots=True)
class Lp(Penalty):
    """coefficient · Σ |x|^p; the gradient is p · sign x · |x|^(p-1), and 0 at x = 0.

    Parameters
    ----------
    coefficient : finite number >= 0.
    p : finite number > 0, keyword only.

    Notes
    -----
    For p < 1 the penalty is not convex and its slope at 0 is infinite; 0 is taken there, so
    that a weight at 0 stays. Half-integer p up to 8 are products and square roots, hence
    identical to the bit in float64 too.

    References
    ----------
    W. J. Fu, Penalized regressions: the bridge versus the lasso, JCGS 7, 1998.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> ar.gradient(ar.Lp(2.0, p=0.5), np.array([-4.0, 0.0, 0.25]))
    array([-0.5,  0. ,  2. ])
    """

    name: ClassVar[str] = "lp"
    non_negative: ClassVar[bool] = True
    coefficient: float
    p: Positive

    def __init__(self, coefficient: float, *, p: float) -> None:
        validated(self, non_negative={"coefficient": coefficient}, positive={"p": p})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        return xp.power(xp.abs(x), self.p)

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        size = xp.where(x == 0, 1.0, xp.abs(x))
        slope = xp.multiply(self.p, xp.power(size, self.p - 1))
        return xp.multiply(weight, xp.where(x == 0, 0.0, xp.multiply(xp.sign(x), slope)))
