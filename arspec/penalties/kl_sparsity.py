"""KLSparsity: the divergence of mean activations from a target."""

from dataclasses import dataclass
from math import frexp, ldexp
from typing import Any, ClassVar

from arspec._axes import Axes
from arspec._errors import SpecError
from arspec._means import group_count, mean_count, mean_weight
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, Proportion, register, validated
from arspec.penalties._norms import reduced


@register
@dataclass(frozen=True, slots=True)
class KLSparsity(Penalty):
    """coefficient · Σ KL(ρ‖ρ̂), ρ̂ the mean of x over `mean_over`, taken first.

    KL(ρ‖ρ̂) = ρ log(ρ/ρ̂) + (1-ρ) log((1-ρ)/(1-ρ̂)), with gradient (ρ̂-ρ)/(ρ̂(1-ρ̂)) to ρ̂.

    Parameters
    ----------
    coefficient : finite number >= 0.
    target : ρ, 0 < ρ < 1, keyword only.

    Notes
    -----
    Averaging first is the definition: the divergence of each example, averaged afterwards,
    is another function. ρ̂ = 0 or 1 gives +inf and a gradient of -inf or +inf: a dead or a
    saturated unit; keep x inside (0, 1), with a sigmoid say. x outside [0, 1] is a SpecError
    in NumPy and NaN for that mean in compiled code. Near ρ̂ = ρ nothing cancels.

    References
    ----------
    H. Lee, C. Ekanadham, A. Y. Ng, Sparse deep belief net model for visual area V2, NIPS 2007.
    A. Ng, Sparse autoencoder, CS294A lecture notes, 2011, page 15.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> x = np.array([[0.25, 0.0], [0.75, 1.0]])
    >>> float(ar.value(ar.KLSparsity(1.0, target=0.5), x, mean_over=("batch",)))
    0.0
    """

    name: ClassVar[str] = "kl_sparsity"
    elementwise: ClassVar[bool] = False
    non_negative: ClassVar[bool] = True
    coefficient: float
    target: Proportion

    def __init__(self, coefficient: float, *, target: float) -> None:
        validated(self, non_negative={"coefficient": coefficient}, positive={"target": target})
        if self.target >= 1:
            raise SpecError(f"KLSparsity: target={target!r}; expected a mean activation with 0 < target < 1.")

    def check_values(self, x: Any) -> None:
        if ((x < 0) | (x > 1)).any():
            raise SpecError(
                f"KLSparsity: x lies in [{float(x.min()):.6g}, {float(x.max()):.6g}]; expected activations in [0, 1], "
                "those of a sigmoid, say."
            )

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        mean, rest, away = self._means(x, xp=xp, axes=axes)
        # With f(t) = t - log(1 + t) the linear parts of both logarithms cancel exactly.
        active = xp.multiply(self.target, xp.remainder_of_log1p(xp.multiply(away, 1 / self.target)))
        idle = xp.multiply(1 - self.target, xp.remainder_of_log1p(xp.multiply(-away, 1 / (1 - self.target))))
        return xp.where((mean == 0) | (rest == 0), float("inf"), active + idle)

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        mean, rest, away = self._means(x, xp=xp, axes=axes)
        slope = xp.divide(away, xp.multiply(mean, rest))
        share = self._share(x, xp=xp, axes=axes)
        return xp.multiply(xp.multiply(weight, slope), xp.multiply(xp.ones(x), share))

    def terms_shape(self, shape: tuple[int, ...], *, axes: Axes) -> tuple[int, ...]:
        return reduced(shape, axes.averaged)

    def coupled(self, rank: int, *, axes: Axes) -> tuple[int, ...]:
        return axes.averaged

    def terms_mask(self, mask: Array, *, xp: Namespace, axes: Axes) -> Array:
        return xp.any(mask, axes.averaged)

    def _means(self, x: Array, *, xp: Namespace, axes: Axes) -> tuple[Array, Array, Array]:
        """Return ρ̂, 1 - ρ̂ and ρ̂ - ρ; the differences are taken from the sum, before it is rounded to a mean."""
        total = xp.sum(xp.within(x, 0.0, 1.0), axes.averaged)
        count, share = group_count(x, axes.averaged, xp, axes), self._share(x, xp=xp, axes=axes)
        # count · ρ in two parts, of which the first is exact and cancels.
        high = leading_digits(self.target)
        away = (total - xp.multiply(count, high)) - xp.multiply(count, self.target - high)
        return xp.multiply(total, share), xp.multiply(count - total, share), xp.multiply(away, share)

    def _share(self, x: Array, *, xp: Namespace, axes: Axes) -> Array | float:
        if axes.mask is None:
            return xp.share(1.0, mean_count(xp.shape(x), axes))
        return mean_weight(axes.mask, xp.shape(x), xp, axes)


def leading_digits(number: float) -> float:
    """Return the first 26 of the 53 binary digits of a float64."""
    mantissa, exponent = frexp(number)
    return ldexp(round(ldexp(mantissa, 26)), exponent - 26)
