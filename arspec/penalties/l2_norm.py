"""L2Norm: the Euclidean norm, not squared."""

from dataclasses import dataclass
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, register, validated
from arspec.penalties._norms import norm, norm_gradient, reduced


@register
@dataclass(frozen=True, slots=True)
class L2Norm(Penalty):
    """coefficient · mean ‖x‖₂; the gradient is x / ‖x‖₂, and 0 at the zero vector.

    The norm runs over every axis that is not in `mean_over`, the mean over those that are.

    Parameters
    ----------
    coefficient : finite number >= 0.

    Notes
    -----
    This is activation regularization as the paper writes it; its published code takes the
    mean of squares instead, which is `L2` averaged over all axes.

    References
    ----------
    S. Merity, B. McCann, R. Socher, Revisiting activation regularization for language RNNs,
    2017, equation (1).

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> float(ar.value(ar.L2Norm(1.0), np.array([[3.0, 4.0], [0.0, 0.0]]), mean_over=("batch",)))
    2.5
    """

    name: ClassVar[str] = "l2_norm"
    elementwise: ClassVar[bool] = False
    non_negative: ClassVar[bool] = True
    coefficient: float

    def __post_init__(self) -> None:
        validated(self, non_negative={"coefficient": self.coefficient})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        return norm(x, axes.summed, xp=xp, axes=axes).length

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        return norm_gradient(x, norm(x, axes.summed, xp=xp, axes=axes), weight, xp)

    def terms_shape(self, shape: tuple[int, ...], *, axes: Axes) -> tuple[int, ...]:
        return reduced(shape, axes.summed)

    def coupled(self, rank: int, *, axes: Axes) -> tuple[int, ...]:
        return axes.summed

    def terms_mask(self, mask: Array, *, xp: Namespace, axes: Axes) -> Array:
        return xp.any(mask, axes.summed)
