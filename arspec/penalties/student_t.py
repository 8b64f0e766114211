"""StudentT: the negative logarithm of a Student-t density."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, Positive, register, validated
from arspec.penalties._hypot import hypot


@register
@dataclass(frozen=True, slots=True)
class StudentT(Penalty):
    """coefficient · Σ log(1+u²) with u = x/s; the gradient is 2x/(s²+x²).

    Parameters
    ----------
    coefficient : finite number >= 0.
    scale : s, finite number > 0, keyword only.

    Notes
    -----
    Natural logarithm. At ±inf: value inf, gradient 0, its limit.

    References
    ----------
    B. A. Olshausen, D. J. Field, Emergence of simple-cell receptive field properties by
    learning a sparse code for natural images, Nature 381, 1996.
    M. Ranzato, Y. Boureau, Y. LeCun, Sparse feature learning for deep belief networks,
    NIPS 2007.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> ar.gradient(ar.StudentT(1.0), np.array([0.0, 1.0, -3.0]))
    array([ 0. ,  1. , -0.6])
    """

    name: ClassVar[str] = "student_t"
    non_negative: ClassVar[bool] = True
    coefficient: float
    scale: Positive = 1.0

    def __init__(self, coefficient: float, *, scale: float = 1.0) -> None:
        validated(self, non_negative={"coefficient": coefficient}, positive={"scale": scale})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        size = xp.abs(x)
        u = xp.divide(size, xp.where(size == size, self.scale, size))
        far = u > 2.0 ** (2 * xp.exponent)  # where u² may overflow, log(1+u²) is 2 log u
        logarithm = xp.log(xp.where(far, size, 1.0)) - log(self.scale)
        return xp.where(far, xp.double(logarithm), xp.log1p(xp.square(xp.where(far, 0.0, u))))

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        # With the larger of |x| and s taken out, x/(s²+x²) = (1 or x/s) / (large · root²).
        h = hypot(x, self.scale, xp)
        slope = xp.divide(xp.where(h.far, xp.sign(x), h.ratio), xp.multiply(h.large, 1.0 + xp.square(h.ratio)))
        return xp.multiply(weight, xp.double(slope))
