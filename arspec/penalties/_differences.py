"""Differences of neighbours along an axis, and the transposed operation."""

from arspec._namespace import Array, Namespace


def difference(x: Array, axis: int) -> Array:
    """Return x[i + 1] - x[i] along `axis`."""
    return ends(x, axis)[1] - ends(x, axis)[0]


def ends(x: Array, axis: int) -> tuple[Array, Array]:
    """Return x without its last and x without its first entry along `axis`."""
    before = (slice(None),) * axis
    return x[(*before, slice(None, -1))], x[(*before, slice(1, None))]


def transposed_difference(slope: Array, x: Array, axis: int, xp: Namespace) -> Array:
    """Return the gradient of Σ slope · difference(x): each entry meets both its neighbours."""
    first = x[(slice(None),) * axis + (slice(0, 1),)]
    edge = xp.where(first == first, 0.0, 0.0)
    return xp.concat([edge, slope], axis) - xp.concat([slope, edge], axis)


def shorter(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """Return `shape` with one entry less along `axis`."""
    size = shape[axis]
    return (*shape[:axis], max(size - 1, 0) if isinstance(size, int) else size - 1, *shape[axis + 1 :])
