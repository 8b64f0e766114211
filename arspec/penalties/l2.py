"""L2: the sum of squares, without a factor one half."""

from dataclasses import dataclass
from typing import Any, ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, register, validated


@register
@dataclass(frozen=True, slots=True)
class L2(Penalty):
    """coefficient · Σ x²; the gradient of x² is 2x.

    Parameters
    ----------
    coefficient : finite number >= 0, per unit of x².

    Notes
    -----
    There is no ½: this is the convention of Keras. `weight_decay=2 * coefficient` of a torch
    SGD is the same step, and `tf.nn.l2_loss` is `L2(0.5)`. Raises SpecError for a negative,
    infinite or NaN coefficient.

    References
    ----------
    A. E. Hoerl, R. W. Kennard, Ridge regression, Technometrics 12, 1970.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> float(ar.value(ar.L2(0.5), np.array([-1.0, 0.0, 3.0])))
    5.0
    >>> ar.gradient(ar.L2(0.5), np.array([-1.0, 0.0, 3.0]))
    array([-1.,  0.,  3.])
    """

    name: ClassVar[str] = "l2"
    non_negative: ClassVar[bool] = True
    quick: ClassVar[bool] = True
    coefficient: float

    def __post_init__(self) -> None:
        validated(self, non_negative={"coefficient": self.coefficient})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        return xp.square(x)

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        return xp.multiply(weight, xp.double(x))

    def quick_sum(self, x: Array, kernels: Any) -> Any:
        return kernels.sum_of_squares(x)

    def quick_gradient(self, x: Array, weight: Any, kernels: Any, out: Any) -> Any:
        return kernels.scaled(x, 2.0 * weight, out)

    @property
    def subnormal_term(self) -> float:
        return 2.0**-252
