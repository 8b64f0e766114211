"""L1: the sum of absolute values."""

from dataclasses import dataclass
from typing import Any, ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, register, validated


@register
@dataclass(frozen=True, slots=True)
class L1(Penalty):
    """coefficient · Σ |x|; the gradient of |x| is sign x, and 0 at x = 0.

    Parameters
    ----------
    coefficient : finite number >= 0, per unit of |x|.

    Notes
    -----
    At ±0 the subgradient of smallest norm, 0, is taken in every framework (JAX's own rule
    gives +1 there). Averaging is chosen by `mean_over`, not here. NaN gives NaN, at that
    element only. Raises SpecError for a negative, infinite or NaN coefficient.

    References
    ----------
    R. Tibshirani, Regression shrinkage and selection via the lasso, JRSS B 58, 1996.
    X. Glorot, A. Bordes, Y. Bengio, Deep sparse rectifier neural networks, AISTATS 2011.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> float(ar.value(ar.L1(0.5), np.array([-1.0, 0.0, 3.0])))
    2.0
    >>> ar.gradient(ar.L1(0.5), np.array([-1.0, 0.0, 3.0]))
    array([-0.5,  0. ,  0.5])
    """

    name: ClassVar[str] = "l1"
    non_negative: ClassVar[bool] = True
    quick: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    coefficient: float

    def __post_init__(self) -> None:
        validated(self, non_negative={"coefficient": self.coefficient})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        return xp.abs(x)

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        return xp.multiply(weight, xp.sign(x))

    def quick_sum(self, x: Array, kernels: Any) -> Any:
        return kernels.sum_of_magnitudes(x)

    def quick_gradient(self, x: Array, weight: Any, kernels: Any, out: Any) -> Any:
        return kernels.signs(x, weight, out)

    @property
    def subnormal_term(self) -> float:
        return 2.0**-126
