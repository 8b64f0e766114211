"""Orthogonal: the mean absolute cosine between rows or columns."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, choice, refuse_mask, register, validated
from arspec.penalties._matrix import as_matrix, as_terms, from_matrix
from arspec.penalties._norms import norm, norm_gradient

MODES = ("rows", "columns")


@register
@dataclass(frozen=True, slots=True)
class Orthogonal(Penalty):
    """coefficient · mean over pairs i < j of |cos(w_i, w_j)|, w the rows (columns) of W.

    With u = w/‖w‖₂ and S = sign(u uᵀ) off the diagonal, the gradient to u is S u divided by
    the number of pairs, and (I - u uᵀ)/‖w‖₂ takes it to w. A zero row has cosine and
    gradient 0.

    Parameters
    ----------
    coefficient : finite number >= 0.
    mode : "rows" or "columns", keyword only. W is the matrix view of the kernel: all other
        axes × the axis "output" (or the last one), as Keras lays out a kernel.

    Notes
    -----
    One row: 0. A cosine below 2⁻⁴⁴ is rounding, and counts as 0 for the sign, the
    subgradient of smallest norm. It does not change when rows are scaled. A mask is refused.

    References
    ----------
    Keras, `keras.regularizers.OrthogonalRegularizer`.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> float(ar.value(ar.Orthogonal(1.0), np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]]))) * 3
    1.0
    """

    name: ClassVar[str] = "orthogonal"
    elementwise: ClassVar[bool] = False
    coefficient: float
    mode: str = "rows"

    def __init__(self, coefficient: float, *, mode: str = "rows") -> None:
        validated(self, non_negative={"coefficient": coefficient})
        object.__setattr__(self, "mode", choice(self, "mode", mode, MODES))

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        unit, _, _ = self._units(x, xp, axes)
        rows = int(unit.shape[0])
        # Each pair stands twice in the matrix of cosines.
        total = xp.multiply(xp.sum(xp.abs(self._cosines(unit, xp))), 1 / max(rows * (rows - 1), 1))
        return as_terms(total, x, xp)

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        unit, length, rows = self._units(x, xp, axes)
        cosines = self._cosines(unit, xp)
        signs = xp.where(xp.abs(cosines) < 2.0**-44, 0.0, xp.sign(cosines))
        slope = xp.multiply(xp.matmul(signs, unit), 2 / max(int(unit.shape[0]) * (int(unit.shape[0]) - 1), 1))
        along = xp.sum(xp.multiply(slope, unit), (1,))
        of_rows = xp.divide(slope - xp.multiply(along, unit), xp.where(length == 0, 1.0, length))
        of_rows = xp.where(length == 0, 0.0, of_rows)
        of_matrix = of_rows if self.mode == "rows" else xp.permute(of_rows, (1, 0))
        return xp.multiply(weight, from_matrix(of_matrix, x, xp=xp, axes=axes))

    def terms_shape(self, shape: tuple[int, ...], *, axes: Axes) -> tuple[int, ...]:
        return (1,) * len(shape)

    def terms_mask(self, mask: Array, *, xp: Namespace, axes: Axes) -> Array:
        raise refuse_mask(self)

    def _units(self, x: Array, xp: Namespace, axes: Axes) -> tuple[Array, Array, Array]:
        matrix = as_matrix(x, xp=xp, axes=axes)
        rows = matrix if self.mode == "rows" else xp.permute(matrix, (1, 0))
        length = norm(rows, (1,), xp=xp, axes=axes)
        return norm_gradient(rows, length, 1.0, xp), length, rows

    def _cosines(self, unit: Array, xp: Namespace) -> Array:
        off_diagonal = xp.constant(~np.eye(int(unit.shape[0]), dtype=bool), unit)
        return xp.where(off_diagonal, xp.matmul(unit, xp.permute(unit, (1, 0))), 0.0)
