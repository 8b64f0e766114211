"""PseudoHuber: the smooth Huber function."""

from dataclasses import dataclass
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, Positive, register, validated
from arspec.penalties._hypot import hypot


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
    non_negative: ClassVar[bool] = True
    coefficient: float
    delta: Positive

    def __init__(self, coefficient: float, *, delta: float) -> None:
        validated(self, non_negative={"coefficient": coefficient}, positive={"delta": delta})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        # With the larger of |x| and δ taken out of the root, δ²u²/(1+√(1+u²)) = |x|·small/(…).
        h = hypot(x, self.delta, xp)
        below = xp.where(h.far, xp.abs(h.ratio), 1.0) + h.root
        return xp.multiply(xp.abs(x), xp.divide(xp.abs(h.small), below))

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        h = hypot(x, self.delta, xp)
        return xp.multiply(weight, xp.divide(h.small, h.root))
