"""L0Step: the number of entries above a threshold."""

from dataclasses import dataclass
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, Positive, register, validated


@register
@dataclass(frozen=True, slots=True)
class L0Step(Penalty):
    """coefficient · Σ 1[x > θ]; the gradient to x is 0 by definition.

    To θ the straight-through slope is -(1/ε) · rect((x-θ)/ε), rect being 1 within ±½ and 0
    elsewhere; `threshold_gradient` gives it, for a θ that is trained.

    Parameters
    ----------
    coefficient : finite number >= 0.
    threshold : θ, finite number >= 0, keyword only, in the unit of x.
    bandwidth : ε, finite number > 0, keyword only, in the unit of x.

    Notes
    -----
    x = θ does not count. rect is 1 at both of its ends.

    References
    ----------
    S. Rajamanoharan et al., Jumping ahead: improving reconstruction fidelity with JumpReLU
    sparse autoencoders, 2024, equations (8) and (12).

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> penalty = ar.L0Step(1.0, threshold=0.5, bandwidth=0.1)
    >>> float(ar.value(penalty, np.array([0.2, 0.5, 0.52, 3.0])))
    2.0
    >>> ar.gradient(penalty, np.array([0.2, 0.52]))
    array([0., 0.])
    """

    name: ClassVar[str] = "l0_step"
    non_negative: ClassVar[bool] = True
    coefficient: float
    threshold: float
    bandwidth: Positive

    def __init__(self, coefficient: float, *, threshold: float, bandwidth: float) -> None:
        validated(
            self,
            non_negative={"coefficient": coefficient, "threshold": threshold},
            positive={"bandwidth": bandwidth},
        )

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        return xp.where(x != x, x, xp.where(x > self.threshold, 1.0, 0.0))

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        return xp.where(x != x, x, 0.0)

    def threshold_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        """Return the straight-through gradient of Σ weight · terms(x) with respect to θ, per entry of x."""
        inside = xp.where(xp.abs(x - self.threshold) <= 0.5 * self.bandwidth, -1 / self.bandwidth, 0.0)
        return xp.multiply(weight, xp.where(x != x, x, inside))
