"""LInf: the largest magnitude."""

from dataclasses import dataclass
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, register, validated
from arspec.penalties._norms import reduced


@register
@dataclass(frozen=True, slots=True)
class LInf(Penalty):
    """coefficient · mean max|x|; the c maximal entries share the gradient, sign x / c each.

    The maximum runs over every axis that is not in `mean_over`, the mean over those that are.

    Parameters
    ----------
    coefficient : finite number >= 0.

    Notes
    -----
    Equal shares are the subgradient of smallest norm; frameworks give the whole gradient to
    the first maximum, or shares, depending on the call. The zero vector has gradient 0. A
    NaN makes the value and the whole gradient of its vector NaN.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> ar.gradient(ar.LInf(1.0), np.array([2.0, -2.0, 1.0]))
    array([ 0.5, -0.5,  0. ])
    """

    name: ClassVar[str] = "linf"
    elementwise: ClassVar[bool] = False
    coefficient: float

    def __post_init__(self) -> None:
        validated(self, non_negative={"coefficient": self.coefficient})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        return xp.max(xp.abs(x), axes.summed)

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        largest = xp.max(xp.abs(x), axes.summed)
        maximal = xp.where(xp.abs(x) == largest, 1.0, 0.0)
        tied = xp.sum(maximal, axes.summed)
        share = xp.reciprocal(xp.where(tied == 0, 1.0, tied))
        slope = xp.multiply(xp.multiply(xp.sign(x), maximal), share)
        return xp.multiply(weight, xp.where(largest != largest, float("nan"), slope))

    def terms_shape(self, shape: tuple[int, ...], *, axes: Axes) -> tuple[int, ...]:
        return reduced(shape, axes.summed)

    def terms_mask(self, mask: Array, *, xp: Namespace, axes: Axes) -> Array:
        return xp.any(mask, axes.summed)
