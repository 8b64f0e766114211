"""DeCov: the covariances between features over the batch."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from arspec._axes import Axes
from arspec._errors import SpecError
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, register, validated
from arspec.penalties._matrix import as_terms


@register
@dataclass(frozen=True, slots=True)
class DeCov(Penalty):
    """coefficient · ½(‖C‖²_F - ‖diag C‖²₂), C the covariance over "batch", divided by B.

    With y = x - mean and C₀ = C off its diagonal, the gradient is 2 y C₀ / B.

    Parameters
    ----------
    coefficient : finite number >= 0.

    Notes
    -----
    Divided by B, not B - 1. Every axis but "batch" counts features. `mean_over` does not
    matter: the mean over the batch is inside. Batch 1: 0. A mask may only leave out whole
    examples, and B counts those that are left.

    References
    ----------
    M. Cogswell, F. Ahmed, R. Girshick, L. Zitnick, D. Batra, Reducing overfitting in deep
    networks by decorrelating representations, ICLR 2016, equations (1) and (2).

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> float(ar.value(ar.DeCov(1.0), np.array([[1.0, 2.0], [-1.0, -2.0]])))
    4.0
    """

    name: ClassVar[str] = "decov"
    elementwise: ClassVar[bool] = False
    coefficient: float

    def __post_init__(self) -> None:
        validated(self, non_negative={"coefficient": self.coefficient})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        _, covariance, _ = self._covariance(x, xp, axes)
        return as_terms(xp.multiply(0.5, xp.sum(xp.square(covariance))), x, xp)

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        centred, covariance, share = self._covariance(x, xp, axes)
        slope = xp.multiply(xp.matmul(centred, covariance), share)
        batch_first = xp.reshape(xp.double(slope), tuple(xp.shape(x)[i] for i in self._order(axes)))
        back = sorted(range(len(axes.names)), key=self._order(axes).__getitem__)
        return xp.multiply(weight, xp.permute(batch_first, tuple(back)))

    def terms_shape(self, shape: tuple[int, ...], *, axes: Axes) -> tuple[int, ...]:
        return (1,) * len(shape)

    def terms_mask(self, mask: Array, *, xp: Namespace, axes: Axes) -> Array:
        if any(int(n) != 1 for i, n in enumerate(mask.shape) if i != axes.index("batch")):
            raise SpecError(f"DeCov: mask has shape {tuple(mask.shape)}; expected one that only varies along 'batch'.")
        return xp.any(mask, (axes.index("batch"),))

    def _covariance(self, x: Array, xp: Namespace, axes: Axes) -> tuple[Array, Array, Array | float]:
        """Return centred examples × features, C without its diagonal, and 1/B."""
        examples, *sizes = (xp.shape(x)[i] for i in self._order(axes))
        features = prod(sizes)  # said, for the batch may be unknown while tracing
        flat = xp.reshape(xp.permute(x, self._order(axes)), (-1, features))
        valid = self._valid(flat, xp, axes)
        share = xp.share(1.0, examples) if valid is None else self._inverse_count(flat, valid, xp)
        centred = flat - xp.multiply(xp.sum(flat, (0,)), share)
        centred = centred if valid is None else xp.where(valid, centred, 0.0)
        covariance = xp.multiply(xp.matmul(xp.permute(centred, (1, 0)), centred), share)
        off_diagonal = xp.constant(~np.eye(int(features), dtype=bool), flat)
        return centred, xp.where(off_diagonal, covariance, 0.0), share

    def _valid(self, flat: Array, xp: Namespace, axes: Axes) -> Array | None:
        if axes.mask is None:
            return None
        self.terms_mask(axes.mask, xp=xp, axes=axes)
        return xp.reshape(axes.mask, (-1, 1))

    def _inverse_count(self, flat: Array, valid: Array, xp: Namespace) -> Array:
        column = xp.where(flat[:, :1] == flat[:, :1], 1.0, 1.0)
        counted = xp.sum(xp.where(valid, column, 0.0), (0,))
        return xp.where(counted == 0, 0.0, xp.reciprocal(xp.where(counted == 0, 1.0, counted)))

    def _order(self, axes: Axes) -> tuple[int, ...]:
        batch = axes.index("batch")
        return (batch, *(i for i in range(len(axes.names)) if i != batch))
