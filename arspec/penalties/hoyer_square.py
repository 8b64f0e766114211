"""HoyerSquare: the squared ratio of the norms."""

from dataclasses import dataclass
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, register, validated
from arspec.penalties._norms import reduced, times
from arspec.penalties._ratio import norms


@register
@dataclass(frozen=True, slots=True)
class HoyerSquare(Penalty):
    """coefficient · mean ‖x‖₁²/‖x‖₂², between 1 (one non-zero entry) and n (equal entries).

    The gradient is 2 ‖x‖₁/‖x‖₂² · (sign x - x ‖x‖₁/‖x‖₂²), with sign 0 = 0. The norms run
    over every axis that is not in `mean_over`, the mean over those that are.

    Parameters
    ----------
    coefficient : finite number >= 0.

    Notes
    -----
    The zero vector has value 0 and gradient 0. It does not change when x is scaled, so it
    acts as a differentiable count of non-zero entries.

    References
    ----------
    H. Yang, W. Wen, H. Li, DeepHoyer, ICLR 2020, equation (2).

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> [float(ar.value(ar.HoyerSquare(1.0), np.array(x))) for x in ([0.0, 7.0, 0.0], [3.0, 3.0, 3.0])]
    [1.0, 3.0]
    """

    name: ClassVar[str] = "hoyer_square"
    elementwise: ClassVar[bool] = False
    non_negative: ClassVar[bool] = True
    coefficient: float

    def __post_init__(self) -> None:
        validated(self, non_negative={"coefficient": self.coefficient})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        n = norms(x, axes.summed, xp=xp, axes=axes)
        return xp.where(n.is_zero, 0.0, xp.divide(xp.square(n.l1), n.l2_squared))

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        n = norms(x, axes.summed, xp=xp, axes=axes)
        rise = xp.multiply(xp.sign(x), n.l2_squared) - xp.multiply(n.x, n.l1)
        slope = xp.divide(xp.multiply(n.l1 + n.l1, rise), xp.square(n.l2_squared))
        return xp.multiply(weight, xp.where(n.is_zero, 0.0, times(slope, n.scale, xp)))

    def terms_shape(self, shape: tuple[int, ...], *, axes: Axes) -> tuple[int, ...]:
        return reduced(shape, axes.summed)

    def coupled(self, rank: int, *, axes: Axes) -> tuple[int, ...]:
        return axes.summed

    def terms_mask(self, mask: Array, *, xp: Namespace, axes: Axes) -> Array:
        return xp.any(mask, axes.summed)
