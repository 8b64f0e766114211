"""BinaryEntropy: push probabilities to 0 or 1."""

from dataclasses import dataclass
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, register, validated


@register
@dataclass(frozen=True, slots=True)
class BinaryEntropy(Penalty):
    """coefficient · Σ -x log x - (1-x) log(1-x); the gradient is log((1-x)/x).

    Parameters
    ----------
    coefficient : finite number >= 0.

    Notes
    -----
    Natural logarithm (nats). The value is 0 at x = 0 and x = 1, where the gradient is +inf
    and -inf: there the entropy really is vertical. x outside [0, 1] gives NaN.

    References
    ----------
    C. E. Shannon, A mathematical theory of communication, 1948, section 6.
    Y. Grandvalet, Y. Bengio, Semi-supervised learning by entropy minimization, NIPS 2004.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> float(ar.value(ar.BinaryEntropy(1.0), np.array([0.0, 1.0])))
    0.0
    """

    name: ClassVar[str] = "binary_entropy"
    non_negative: ClassVar[bool] = True
    coefficient: float

    def __post_init__(self) -> None:
        validated(self, non_negative={"coefficient": self.coefficient})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        inner = xp.where((x == 0) | (x == 1), 0.5, x)
        terms = -(xp.multiply(inner, xp.log(inner)) + xp.multiply(1.0 - inner, xp.log1p(-inner)))
        return xp.where((x == 0) | (x == 1), 0.0, terms)

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        middle = (x > 0.25) & (x < 0.75)
        inner = xp.where(middle, x, 0.5)
        # Near ½ the quotient is near 1, where log1p of its exact excess keeps every digit.
        near_half = xp.log1p(xp.divide(1.0 - xp.double(inner), inner))
        return xp.multiply(weight, xp.where(middle, near_half, xp.log1p(-x) - xp.log(x)))
