"""Binarize: pull values to 0 or 1."""

from dataclasses import dataclass
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, register, validated


@register
@dataclass(frozen=True, slots=True)
class Binarize(Penalty):
    """coefficient · Σ x²(1-x)²; the gradient is 2x(1-x)(1-2x).

    Parameters
    ----------
    coefficient : finite number >= 0.

    Notes
    -----
    Zero, with zero gradient, at 0 and 1; a maximum between them at ½. For binary codes in a
    hidden layer.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> ar.gradient(ar.Binarize(1.0), np.array([0.0, 0.5, 1.0, 2.0]))
    array([ 0.,  0., -0., 12.])
    """

    name: ClassVar[str] = "binarize"
    non_negative: ClassVar[bool] = True
    coefficient: float

    def __post_init__(self) -> None:
        validated(self, non_negative={"coefficient": self.coefficient})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        return xp.square(xp.multiply(x, 1.0 - x))

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        well = xp.multiply(x, 1.0 - x)
        return xp.multiply(weight, xp.multiply(xp.double(well), 1.0 - xp.double(x)))
