"""√(x² + a²) for a constant a > 0, safe for every magnitude."""

from typing import NamedTuple

from arspec._namespace import Array, Namespace


class Hypot(NamedTuple):
    """√(x² + a²) = large · root, where large is the larger of |x| and a."""

    far: Array  # |x| > a
    large: Array
    small: Array  # the other one: x itself, or a with the sign of x
    ratio: Array  # small / large
    root: Array  # √(1 + ratio²), between 1 and √2


def hypot(x: Array, a: float, xp: Namespace) -> Hypot:
    """Split √(x² + a²) so that nothing overflows, and x = ±inf takes its limit."""
    size = xp.abs(x)
    far = size > a
    large = xp.where(far, size, a)
    small = xp.where(far, xp.multiply(xp.sign(x), a), x)
    ratio = xp.divide(small, large)
    return Hypot(far, large, small, ratio, xp.sqrt(1.0 + xp.square(ratio)))
