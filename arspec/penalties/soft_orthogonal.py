"""SoftOrthogonal: the distance of the Gram matrix from the identity."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, choice, refuse_mask, register, validated
from arspec.penalties._matrix import as_matrix, as_terms, from_matrix
from arspec.penalties.orthogonal import MODES


@register
@dataclass(frozen=True, slots=True)
class SoftOrthogonal(Penalty):
    """coefficient · ‖WᵀW - I‖²_F; the gradient is 4 W(WᵀW - I).

    Parameters
    ----------
    coefficient : finite number >= 0.
    mode : "columns" as above, or "rows" for ‖WWᵀ - I‖²_F, keyword only. W is the matrix
        view of the kernel: all other axes × the axis "output" (or the last one).

    Notes
    -----
    No factor ½. The Gram matrix is summed exactly, so near an orthogonal W every framework
    sees the same small differences. A mask is refused.

    References
    ----------
    N. Bansal, X. Chen, Z. Wang, Can we gain more from orthogonality regularizations in
    training deep networks?, NeurIPS 2018, equation (1).

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> float(ar.value(ar.SoftOrthogonal(1.0), np.array([[2.0, 0.0], [0.0, 1.0]])))
    9.0
    """

    name: ClassVar[str] = "soft_orthogonal"
    elementwise: ClassVar[bool] = False
    coefficient: float
    mode: Literal["rows", "columns"] = "columns"

    def __init__(self, coefficient: float, *, mode: str = "columns") -> None:
        validated(self, non_negative={"coefficient": coefficient})
        object.__setattr__(self, "mode", choice(self, "mode", mode, MODES))

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        _, gram = self._gram(x, xp, axes)
        return as_terms(xp.sum(xp.square(gram)), x, xp)

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        matrix, gram = self._gram(x, xp, axes)
        slope = xp.multiply(4.0, xp.matmul(matrix, gram))
        slope = slope if self.mode == "columns" else xp.permute(slope, (1, 0))
        return xp.multiply(weight, from_matrix(slope, x, xp=xp, axes=axes))

    def terms_shape(self, shape: tuple[int, ...], *, axes: Axes) -> tuple[int, ...]:
        return (1,) * len(shape)

    def terms_mask(self, mask: Array, *, xp: Namespace, axes: Axes) -> Array:
        raise refuse_mask(self)

    def _gram(self, x: Array, xp: Namespace, axes: Axes) -> tuple[Array, Array]:
        matrix = as_matrix(x, xp=xp, axes=axes)
        matrix = matrix if self.mode == "columns" else xp.permute(matrix, (1, 0))
        identity = xp.constant(np.eye(int(matrix.shape[1])), matrix)
        return matrix, xp.matmul(xp.permute(matrix, (1, 0)), matrix, minus=identity)
