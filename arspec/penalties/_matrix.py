"""The matrix view of a tensor: input axes × output axis, as Keras lays out a kernel."""

from arspec._axes import Axes
from arspec._namespace import Array, Namespace


def as_matrix(x: Array, *, xp: Namespace, axes: Axes) -> Array:
    """Move the axis "output" (else the last one) to the end and flatten all others into rows."""
    moved = xp.permute(x, _order(axes))
    return xp.reshape(moved, (-1, xp.shape(x)[_column(axes)]))


def from_matrix(matrix: Array, x: Array, *, xp: Namespace, axes: Axes) -> Array:
    """Give the matrix the layout of `x` again."""
    order, shape = _order(axes), xp.shape(x)
    moved = xp.reshape(matrix, tuple(shape[i] for i in order))
    back = sorted(range(len(order)), key=order.__getitem__)
    return xp.permute(moved, tuple(back))


def as_terms(total: Array, x: Array, xp: Namespace) -> Array:
    """Return one number as terms: every axis of x, with size 1."""
    return xp.reshape(total, (1,) * len(x.shape))


def _column(axes: Axes) -> int:
    return axes.names.index("output") if "output" in axes.names else len(axes.names) - 1


def _order(axes: Axes) -> tuple[int, ...]:
    column = _column(axes)
    return (*(i for i in range(len(axes.names)) if i != column), column)
