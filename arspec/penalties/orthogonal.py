"""Orthogonal: the mean absolute cosine between rows or columns."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, choice, refuse_mask, register, validated
from arspec.penalties._matrix import as_matrix, as_terms, from_matrix
from arspec.penalties._norms import norm, norm_gradient, times

MODES = ("rows", "columns")
ROUNDING = 2.0**-60  # the products of rows are exact to 2⁻⁷⁰ of their lengths


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
    One row: 0. A cosine below 2⁻⁶⁰ is rounding, and counts as 0 for the sign, the
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
    mode: Literal["rows", "columns"] = "rows"

    def __init__(self, coefficient: float, *, mode: str = "rows") -> None:
        validated(self, non_negative={"coefficient": coefficient})
        object.__setattr__(self, "mode", choice(self, "mode", mode, MODES))

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        cosines = self._cosines(self._rows(x, xp, axes), xp, axes)
        # Each pair stands twice in the matrix of cosines.
        return as_terms(xp.multiply(xp.sum(xp.abs(cosines)), 0.5 * _share(cosines)), x, xp)

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        rows = self._rows(x, xp, axes)
        of_row = norm(rows, (1,), xp=xp, axes=axes)
        unit, cosines = norm_gradient(rows, of_row, 1.0, xp), self._cosines(rows, xp, axes)
        signs = xp.where(xp.abs(cosines) < ROUNDING, 0.0, xp.sign(cosines))
        along = xp.sum(xp.multiply(signs, cosines), (1,))
        slope = xp.multiply(xp.matmul(signs, unit) - xp.multiply(along, unit), _share(cosines))
        of_rows = xp.divide(slope, xp.where(of_row.length == 0, 1.0, of_row.length))
        of_matrix = of_rows if self.mode == "rows" else xp.permute(of_rows, (1, 0))
        return xp.multiply(weight, from_matrix(of_matrix, x, xp=xp, axes=axes))

    def terms_shape(self, shape: tuple[int, ...], *, axes: Axes) -> tuple[int, ...]:
        return (1,) * len(shape)

    def terms_mask(self, mask: Array, *, xp: Namespace, axes: Axes) -> Array:
        raise refuse_mask(self)

    def _rows(self, x: Array, xp: Namespace, axes: Axes) -> Array:
        matrix = as_matrix(x, xp=xp, axes=axes)
        return matrix if self.mode == "rows" else xp.permute(matrix, (1, 0))

    def _cosines(self, rows: Array, xp: Namespace, axes: Axes) -> Array:
        """Return the products of the rows over their lengths, and 0 on the diagonal and for a zero row."""
        of_row = norm(rows, (1,), xp=xp, axes=axes)
        scaled = times(rows, of_row.scale, xp)
        inverse = xp.reciprocal(xp.where(of_row.scaled == 0, 1.0, of_row.scaled))
        products = xp.multiply(xp.matmul(scaled, xp.permute(scaled, (1, 0))), inverse)
        off_diagonal = xp.constant(~np.eye(int(rows.shape[0]), dtype=bool), rows)
        return xp.where(off_diagonal, xp.multiply(products, xp.permute(inverse, (1, 0))), 0.0)


def _share(cosines: Array) -> float:
    """Return 1 / (number of pairs)."""
    rows = int(cosines.shape[0])
    return 2 / max(rows * (rows - 1), 1)
