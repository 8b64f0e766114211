"""GroupLasso: the sum of the Euclidean norms of groups."""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

from arspec._axes import Axes
from arspec._means import group_count
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, axis_names, flag, register, validated
from arspec.penalties._norms import norm, norm_gradient, reduced


@register
@dataclass(frozen=True, slots=True)
class GroupLasso(Penalty):
    """coefficient · Σ_g √n_g^s ‖x_g‖₂; the gradient is x / ‖x_g‖₂, and 0 in a zero group.

    Parameters
    ----------
    coefficient : finite number >= 0.
    norm_over : names of the axes that make up a group, keyword only; every other axis
        counts groups. For the columns of a kernel: norm_over=("input",).
    size_scaled : whether a norm is multiplied by √n_g, n_g being the (valid) size of a
        group: s = 1 or s = 0 above.

    Notes
    -----
    Squares neither overflow nor underflow, at any magnitude of x. A group with an infinity
    has gradient NaN there and 0 at its finite members; a NaN spreads over its group.

    References
    ----------
    M. Yuan, Y. Lin, Model selection and estimation in regression with grouped variables,
    JRSS B 68, 2006, equation (2.1), where s = 1.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> kernel = np.array([[3.0, 0.0], [4.0, 0.0]])
    >>> penalty = ar.GroupLasso(1.0, norm_over=("input",))
    >>> float(ar.value(penalty, kernel, axes="input output"))
    5.0
    >>> ar.gradient(penalty, kernel, axes="input output")
    array([[0.6, 0. ],
           [0.8, 0. ]])
    """

    name: ClassVar[str] = "group_lasso"
    elementwise: ClassVar[bool] = False
    non_negative: ClassVar[bool] = True
    coefficient: float
    norm_over: tuple[str, ...]
    size_scaled: bool = False

    def __init__(self, coefficient: float, *, norm_over: tuple[str, ...], size_scaled: bool = False) -> None:
        validated(self, non_negative={"coefficient": coefficient})
        object.__setattr__(self, "norm_over", axis_names(self, "norm_over", norm_over))
        object.__setattr__(self, "size_scaled", flag(self, "size_scaled", size_scaled))

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        of_group = norm(x, axes.indices(self.norm_over), xp=xp, axes=axes)
        return xp.multiply(self._scale(x, xp=xp, axes=axes), of_group.length)

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        of_group = norm(x, axes.indices(self.norm_over), xp=xp, axes=axes)
        return norm_gradient(x, of_group, xp.multiply(weight, self._scale(x, xp=xp, axes=axes)), xp)

    def terms_shape(self, shape: tuple[int, ...], *, axes: Axes) -> tuple[int, ...]:
        return reduced(shape, axes.indices(self.norm_over))

    def coupled(self, rank: int, *, axes: Axes) -> tuple[int, ...]:
        return axes.indices(self.norm_over)

    def terms_mask(self, mask: Array, *, xp: Namespace, axes: Axes) -> Array:
        return xp.any(mask, axes.indices(self.norm_over))

    def _scale(self, x: Array, *, xp: Namespace, axes: Axes) -> Array | float:
        if not self.size_scaled:
            return 1.0
        size = group_count(x, axes.indices(self.norm_over), xp, axes)
        return sqrt(size) if isinstance(size, float) else xp.sqrt(size)
