"""PseudoHuber: the smooth Huber function."""

from dataclasses import dataclass
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, register, validated

LARGE = 1e150  # beyond this √(1+u²) is |u| in float64, and u² may overflow


@register
@dataclass(frozen=True, slots=True)
class PseudoHuber(Penalty):
    """coefficient · Σ δ²(√(1+u²) - 1) with u = x/δ; the gradient is x/√(1+u²).

    Parameters
    ----------
    coefficient : finite number >= 0.
    delta : δ, finite number > 0, keyword only.

    Notes
    -----
    Near 0 it is ½x². Evaluated as δ²u²/(1+√(1+u²)), which does not cancel. At ±inf: value
    inf, gradient ±δ.

    References
    ----------
    R. Hartley, A. Zisserman, Multiple View Geometry, 2nd edition, 2003, appendix 6.8.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> float(ar.value(ar.PseudoHuber(1.0, delta=4.0), np.array([3.0])))
    4.0
    """

    name: ClassVar[str] = "pseudo_huber"
    coefficient: float
    delta: float

    def __init__(self, coefficient: float, *, delta: float) -> None:
        validated(self, non_negative={"coefficient": coefficient}, positive={"delta": delta})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        u = self._scaled(x, xp)
        size = xp.abs(u)
        finite = xp.where(size == float("inf"), 1.0, size)
        ratio = xp.divide(finite, 1.0 + self._root(finite, xp))
        terms = xp.multiply(self.delta, xp.multiply(self.delta, xp.multiply(finite, ratio)))
        return xp.where(size == float("inf"), size, terms)

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        u = self._scaled(x, xp)
        endless = xp.abs(u) == float("inf")
        finite = xp.where(endless, 1.0, u)
        slope = xp.where(endless, xp.sign(x), xp.divide(finite, self._root(finite, xp)))
        return xp.multiply(weight, xp.multiply(self.delta, slope))

    def _scaled(self, x: Array, xp: Namespace) -> Array:
        return xp.multiply(x, 1 / self.delta)

    def _root(self, u: Array, xp: Namespace) -> Array:
        far = xp.abs(u) > LARGE
        return xp.where(far, xp.abs(u), xp.sqrt(1.0 + xp.square(xp.where(far, 0.0, u))))
