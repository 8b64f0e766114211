"""L1L2: the elastic net."""

from dataclasses import dataclass
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Component, Penalty, register, validated
from arspec.penalties.l1 import L1
from arspec.penalties.l2 import L2


@register
@dataclass(frozen=True, slots=True)
class L1L2(Penalty):
    """Σ l1·|x| + l2·x²; the gradient is l1·sign x + 2·l2·x, with sign 0 = 0.

    Parameters
    ----------
    l1, l2 : finite numbers >= 0, per unit of |x| and of x². Neither has a default, so that
        a forgotten argument cannot be a silent zero.

    Notes
    -----
    There is no ½ (Zou & Hastie write none either). Raises SpecError for a negative,
    infinite or NaN coefficient.

    References
    ----------
    H. Zou, T. Hastie, Regularization and variable selection via the elastic net,
    JRSS B 67, 2005, equation (3).

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> float(ar.value(ar.L1L2(0.5, 0.25), np.array([-1.0, 0.0, 2.0])))
    2.75
    >>> ar.gradient(ar.L1L2(0.5, 0.25), np.array([-1.0, 0.0, 2.0]))
    array([-1. ,  0. ,  1.5])
    """

    name: ClassVar[str] = "l1_l2"
    non_negative: ClassVar[bool] = True
    l1: float
    l2: float

    def __post_init__(self) -> None:
        validated(self, non_negative={"l1": self.l1, "l2": self.l2})

    def components(self) -> tuple[Component, ...]:
        if self.l1 and self.l2:
            return (Component(1.0, self),)
        return (Component(self.l1, L1(1.0)), Component(self.l2, L2(1.0)))

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        return xp.multiply(self.l1, xp.abs(x)) + xp.multiply(self.l2, xp.square(x))

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        return xp.multiply(weight, xp.multiply(self.l1, xp.sign(x)) + xp.multiply(self.l2, xp.double(x)))
