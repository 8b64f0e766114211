"""TemporalDifference: squared steps along time (TAR)."""

from dataclasses import dataclass
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, register, validated
from arspec.penalties._differences import difference, ends, shorter, transposed_difference


@register
@dataclass(frozen=True, slots=True)
class TemporalDifference(Penalty):
    """coefficient · Σ_t (x_{t+1} - x_t)² along the axis "time"; T - 1 terms.

    The gradient at step t is 2(x_t - x_{t-1}) - 2(x_{t+1} - x_t), without the neighbour
    that is missing at either end.

    Parameters
    ----------
    coefficient : finite number >= 0.

    Notes
    -----
    With a mask a pair counts if both steps are valid. One step or none: 0. Averaged over
    all axes this is the temporal activation regularization of the awd-lstm-lm code; its
    companion AR is `L2` averaged over all axes.

    References
    ----------
    S. Merity, B. McCann, R. Socher, Revisiting activation regularization for language RNNs,
    2017, section 2.2.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> states = np.array([[[0.0], [1.0], [3.0]]])
    >>> float(ar.value(ar.TemporalDifference(1.0), states, mean_over="mean"))
    2.5
    """

    name: ClassVar[str] = "temporal_difference"
    elementwise: ClassVar[bool] = False
    non_negative: ClassVar[bool] = True
    coefficient: float

    def __post_init__(self) -> None:
        validated(self, non_negative={"coefficient": self.coefficient})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        return xp.square(difference(x, axes.index("time")))

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        step = difference(x, axes.index("time"))
        return transposed_difference(xp.multiply(weight, xp.double(step)), x, axes.index("time"), xp)

    def terms_shape(self, shape: tuple[int, ...], *, axes: Axes) -> tuple[int, ...]:
        return shorter(shape, axes.index("time"))

    def coupled(self, rank: int, *, axes: Axes) -> tuple[int, ...]:
        return (axes.index("time"),)

    def terms_mask(self, mask: Array, *, xp: Namespace, axes: Axes) -> Array:
        if int(mask.shape[axes.index("time")]) == 1:  # the mask does not vary along time
            return mask
        before, after = ends(mask, axes.index("time"))
        return before & after
