"""StudentT: the negative logarithm of a Student-t density."""

from dataclasses import dataclass
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, register, validated

LARGE = 1e150  # beyond this 1+u² is u² in float64, and u² may overflow


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
    coefficient: float
    scale: float = 1.0

    def __init__(self, coefficient: float, *, scale: float = 1.0) -> None:
        validated(self, non_negative={"coefficient": coefficient}, positive={"scale": scale})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        u = xp.abs(xp.multiply(x, 1 / self.scale))
        logarithm = xp.log(xp.where(u > LARGE, u, 1.0))
        return xp.where(u > LARGE, logarithm + logarithm, xp.log1p(xp.square(xp.where(u > LARGE, 0.0, u))))

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        u = xp.multiply(x, 1 / self.scale)
        far = xp.abs(u) > LARGE
        near = xp.where(far, 0.0, u)
        slope = xp.where(far, xp.reciprocal(xp.where(far, u, 1.0)), xp.divide(near, 1.0 + xp.square(near)))
        return xp.multiply(weight, xp.multiply(2 / self.scale, slope))
