"""TotalVariation: absolute differences of neighbours."""

from dataclasses import dataclass
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Component, Penalty, axis_names, register, validated
from arspec.penalties._differences import difference, ends, shorter, transposed_difference


@register
@dataclass(frozen=True, slots=True)
class TotalVariation(Penalty):
    """coefficient · Σ_axis Σ_i |x_{i+1} - x_i| over the axes `over` (anisotropic).

    The gradient is sign(x_i - x_{i-1}) - sign(x_{i+1} - x_i) per axis, with sign 0 = 0.

    Parameters
    ----------
    coefficient : finite number >= 0.
    over : names of the axes, keyword only, such as ("height", "width").

    Notes
    -----
    Each axis is a sum of its own: averaged over an axis of size n in `over`, its n - 1
    differences are divided by n - 1. One step: 0. With a mask a difference counts if both
    neighbours are valid.

    References
    ----------
    L. I. Rudin, S. Osher, E. Fatemi, Nonlinear total variation based noise removal
    algorithms, Physica D 60, 1992.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> float(ar.value(ar.TotalVariation(1.0, over=("feature",)), np.array([0.0, 2.0, 2.0, 1.0])))
    3.0
    """

    name: ClassVar[str] = "total_variation"
    elementwise: ClassVar[bool] = False
    non_negative: ClassVar[bool] = True
    coefficient: float
    over: tuple[str, ...]

    def __init__(self, coefficient: float, *, over: tuple[str, ...]) -> None:
        validated(self, non_negative={"coefficient": coefficient})
        object.__setattr__(self, "over", axis_names(self, "over", over))

    def components(self) -> tuple[Component, ...]:
        return tuple(Component(self.coefficient, TotalVariation(1.0, over=(name,))) for name in self.over)

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        return xp.abs(difference(x, axes.index(self.over[0])))

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        axis = axes.index(self.over[0])
        return transposed_difference(xp.multiply(weight, xp.sign(difference(x, axis))), x, axis, xp)

    def terms_shape(self, shape: tuple[int, ...], *, axes: Axes) -> tuple[int, ...]:
        return shorter(shape, axes.index(self.over[0]))

    def coupled(self, rank: int, *, axes: Axes) -> tuple[int, ...]:
        return axes.indices(self.over)

    def terms_mask(self, mask: Array, *, xp: Namespace, axes: Axes) -> Array:
        if int(mask.shape[axes.index(self.over[0])]) == 1:  # the mask does not vary along the axis
            return mask
        before, after = ends(mask, axes.index(self.over[0]))
        return before & after
