"""numerics="bounded": the framework's own float32 sums and products, quick and not identical."""

import numpy as np

from arspec._axes import Axes
from arspec._namespace import Array, Namespace


class Bounded(Namespace):
    """Mixed into an engine's namespace: no float64 for narrower tensors, no fixed order, no guards.

    Formulas, kinks and special values stay those of the definition. The error of a value is
    bounded by γₙ·Σ|terms| with the unit roundoff of float32 (float64 for float64 tensors).
    """

    def __init__(self, dtype: str) -> None:
        self.wide = "float64" if dtype == "float64" else "float32"
        self.exponent = 205 if dtype == "float64" else 25

    def raw_sum(self, x: Array, axis: int) -> Array:
        """Sum over one axis, kept with size 1, in whatever order the framework takes."""
        raise NotImplementedError

    def guard(self, product: Array) -> Array:
        return product

    def block_size(self, x: Array) -> int | None:
        return None

    def unordered_block(self, x: Array) -> int | None:
        return None

    def halve(self, x: Array, axis: int) -> Array:
        return self.raw_sum(x, axis)

    def matmul(self, x: Array, y: Array, minus: Array | float = 0.0) -> Array:
        return self.raw_matmul(x, y) - minus

    def constant(self, array: np.ndarray, like: Array) -> Array:
        constant = super().constant(array, like)
        return constant if array.dtype == bool else self.cast(constant, self.wide)


def in_range(dtype: str, xp: Namespace) -> bool:
    """Return whether squares of tensors of `dtype` neither overflow nor underflow in `xp.wide`."""
    return dtype == "float16" or (xp.wide == "float64" and dtype != "float64")


def chosen(xp: Namespace, axes: Axes) -> Namespace:
    """Return the namespace that the numerics of `axes` ask for."""
    return xp.bounded(axes.dtype) if axes.numerics == "bounded" else xp
