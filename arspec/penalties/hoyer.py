"""Hoyer: the ratio of the norms."""

from dataclasses import dataclass
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, register, validated
from arspec.penalties._norms import reduced, times
from arspec.penalties._ratio import norms


@register
@dataclass(frozen=True, slots=True)
class Hoyer(Penalty):
    """coefficient · mean ‖x‖₁/‖x‖₂, which is 1 for one non-zero entry and √n for equal ones.

    The gradient is sign x/‖x‖₂ - x ‖x‖₁/‖x‖₂³, with sign 0 = 0. The norms run over every
    axis that is not in `mean_over`, the mean over those that are.

    Parameters
    ----------
    coefficient : finite number >= 0.

    Notes
    -----
    The zero vector has value 0 and gradient 0. It does not change when x is scaled.

    References
    ----------
    P. O. Hoyer, Non-negative matrix factorization with sparseness constraints, JMLR 5, 2004.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> [float(ar.value(ar.Hoyer(1.0), np.array(x))) for x in ([0.0, 7.0, 0.0, 0.0], [3.0, 3.0, 3.0, 3.0])]
    [1.0, 2.0]
    """

    name: ClassVar[str] = "hoyer"
    elementwise: ClassVar[bool] = False
    non_negative: ClassVar[bool] = True
    coefficient: float

    def __post_init__(self) -> None:
        validated(self, non_negative={"coefficient": self.coefficient})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        n = norms(x, axes.summed, xp=xp, axes=axes)
        return xp.where(n.is_zero, 0.0, xp.divide(n.l1, xp.sqrt(n.l2_squared)))

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        n = norms(x, axes.summed, xp=xp, axes=axes)
        rise = xp.multiply(xp.sign(x), n.l2_squared) - xp.multiply(n.x, n.l1)
        slope = xp.divide(rise, xp.multiply(n.l2_squared, xp.sqrt(n.l2_squared)))
        return xp.multiply(weight, xp.where(n.is_zero, 0.0, times(slope, n.scale, xp)))

    def terms_shape(self, shape: tuple[int, ...], *, axes: Axes) -> tuple[int, ...]:
        return reduced(shape, axes.summed)

    def coupled(self, rank: int, *, axes: Axes) -> tuple[int, ...]:
        return axes.summed

    def terms_mask(self, mask: Array, *, xp: Namespace, axes: Axes) -> Array:
        return xp.any(mask, axes.summed)
