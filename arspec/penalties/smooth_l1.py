"""SmoothL1: the absolute value rounded off by an epsilon under the root."""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, Positive, register, validated
from arspec.penalties._hypot import hypot


@register
@dataclass(frozen=True, slots=True)
class SmoothL1(Penalty):
    """coefficient · Σ √(x²+ε); the gradient is x/√(x²+ε).

    Parameters
    ----------
    coefficient : finite number >= 0.
    epsilon : ε, finite number > 0, keyword only; in the unit of x². It is a float64 and is
        not rounded to the dtype of x.

    Notes
    -----
    Not the piecewise function that frameworks call smooth L1; that one is `Huber`. The
    value at 0 is √ε, not 0. At ±inf: value inf, gradient ±1.

    References
    ----------
    H. Lee, A. Battle, R. Raina, A. Y. Ng, Efficient sparse coding algorithms, NIPS 2007.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> float(ar.value(ar.SmoothL1(1.0, epsilon=16.0), np.array([3.0])))
    5.0
    """

    name: ClassVar[str] = "smooth_l1"
    non_negative: ClassVar[bool] = True
    coefficient: float
    epsilon: Positive

    def __init__(self, coefficient: float, *, epsilon: float) -> None:
        validated(self, non_negative={"coefficient": coefficient}, positive={"epsilon": epsilon})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        h = hypot(x, sqrt(self.epsilon), xp)
        return xp.multiply(h.large, h.root)

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        h = hypot(x, sqrt(self.epsilon), xp)
        return xp.multiply(weight, xp.divide(xp.where(h.far, xp.sign(x), h.ratio), h.root))
