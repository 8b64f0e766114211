"""SmoothL1: the absolute value rounded off by an epsilon under the root."""

from dataclasses import dataclass
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, register, validated

LARGE = 1e150  # beyond this √(x²+ε) is |x| in float64, and x² may overflow


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
    coefficient: float
    epsilon: float

    def __init__(self, coefficient: float, *, epsilon: float) -> None:
        validated(self, non_negative={"coefficient": coefficient}, positive={"epsilon": epsilon})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        far = xp.abs(x) > LARGE
        return xp.where(far, xp.abs(x), xp.sqrt(xp.square(xp.where(far, 0.0, x)) + self.epsilon))

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        far = xp.abs(x) > LARGE
        near = xp.where(far, 0.0, x)
        slope = xp.divide(near, xp.sqrt(xp.square(near) + self.epsilon))
        return xp.multiply(weight, xp.where(far, xp.sign(x), slope))
