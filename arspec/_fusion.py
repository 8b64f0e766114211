"""Fused evaluation on a CPU: a penalty's own equation, recorded once and run as one compiled loop.

`FusedNamespace` is a namespace like every other, whose large arrays are `Expression`s: they
record the operations of the equation instead of computing them. A sum, a maximum or the
rounding at the end compiles what was recorded, by numba, into a loop that reads x once, holds
everything in registers in float64 and has the bits of the definition, because its operations
are the same IEEE operations in the same order. What cannot be recorded raises `Unfusable`, and
the caller asks the definition.

Numba is optional: `available` says whether it is there.
"""

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from arspec._fused_loops import fill, reduce_axis, roundings, total, tree_total
from arspec._namespace import SMALLEST_NORMAL, Array, Namespace
from arspec._recorded import Expression, Pieces, Unfusable, apply, where


@cache
def available() -> bool:
    """Return whether the compiler of fused loops, numba, is installed."""
    return find_spec("numba") is not None


class _Library:
    """The functions of NumPy that `Namespace` asks for, recorded where an argument is."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)  # what needs no second form: small arrays alone

    @staticmethod
    def where(condition: Array, x: Array | float, y: Array | float) -> Array:
        given = (condition, x, y)
        return where(*given) if any(isinstance(one, Expression) for one in given) else np.where(*given)

    @staticmethod
    def sign(x: Array) -> Array:
        if not isinstance(x, Expression):
            return np.sign(x)
        return where(apply("gt", x, 0.0), 1.0, where(apply("lt", x, 0.0), -1.0, 0.0))

    @staticmethod
    def reshape(x: Array, shape: tuple[int, ...]) -> Array:
        return x.flat(shape) if isinstance(x, Expression) else np.reshape(x, shape)

    @staticmethod
    def broadcast_to(x: Array, shape: tuple[int, ...]) -> Array:
        return x if isinstance(x, Expression) else np.broadcast_to(x, shape)

    @staticmethod
    def tanh(x: Array) -> Array:
        _refuse(x)  # NumPy computes several at once, and the loop one by one: twice as slow
        return np.tanh(x)

    @staticmethod
    def power(x: Array, exponent: float) -> Array:
        return apply("pow", x, exponent) if isinstance(x, Expression) else np.power(x, exponent)


def _function(name: str) -> Any:
    return lambda x: apply(name, x) if isinstance(x, Expression) else getattr(np, name)(x)


for _name in ("abs", "sqrt", "exp", "log", "log1p", "cos"):
    setattr(_Library, _name, staticmethod(_function(_name)))


class FusedNamespace(Namespace):
    """Recorded operations on one large array, NumPy on everything that follows from its sums.

    Parameters
    ----------
    threads : that share the work of a large array.
    known : sums over its axes that were taken before; those taken now are added.
    """

    lib = _Library()

    def __init__(self, threads: int = 1, known: dict[Any, np.ndarray] | None = None) -> None:
        self.threads, self.known = threads, {} if known is None else known

    def dtype_name(self, x: Array) -> str:
        return x.source.dtype.name if isinstance(x, Expression) else x.dtype.name

    def cast(self, x: Array, dtype: str) -> Array:
        if not isinstance(x, Expression):
            return np.asarray(x).astype(dtype, copy=False)
        return where(x, 1.0, 0.0) if x.is_condition else x

    def narrow(self, x: Array) -> Array:
        return where(abs(x) < SMALLEST_NORMAL[self.dtype_name(x)], 0.0, x)

    def lower(self, x: Array, dtype: str) -> Array:
        """Round once: compute what was recorded."""
        return fill(x, self.threads) if isinstance(x, Expression) else np.asarray(x).astype(dtype)

    def unordered_block(self, x: Array) -> int | None:
        return max(int(np.prod(x.shape)), 1)  # one loop takes it all

    def unordered_sum(self, x: Array) -> float:
        return total(x, self.threads) if isinstance(x, Expression) else float(np.add.reduce(x, axis=None))

    def unordered_roundings(self, size: int) -> int:
        return roundings(size)

    def halve(self, x: Array, axis: int) -> Array:
        return self._reduce(x, axis, "sum") if isinstance(x, Expression) else super().halve(x, axis)

    def raw_max(self, x: Array, axis: tuple[int, ...]) -> Array:
        if not axis or not isinstance(x, Expression):
            return super().raw_max(x, axis)
        return super().raw_max(self._reduce(x, axis[0], "max"), axis[1:])

    def _reduce(self, x: Expression, axis: int, how: str) -> np.ndarray:
        return reduce_axis(x, axis, how, self.threads, self.known)

    def zeros(self, like: Array, shape: tuple[int, ...]) -> Array:
        return np.zeros(shape)

    def concat(self, parts: list[Array], axis: int) -> Array:
        if not any(isinstance(part, Expression) for part in parts):
            return super().concat(parts, axis)
        if not all(type(part) is Expression for part in parts):
            raise Unfusable
        return Pieces(parts, axis)

    def permute(self, x: Array, order: tuple[int, ...]) -> Array:
        _refuse(x)
        return super().permute(x, order)

    def raw_matmul(self, x: Array, y: Array) -> Array:
        _refuse(x, y)
        return super().raw_matmul(x, y)

    def sum(self, x: Array, axis: tuple[int, ...] | None = None) -> Array:
        if axis is None and isinstance(x, Expression):
            return tree_total(x)
        return super().sum(x, axis)


def _refuse(*arrays: Array) -> None:
    if any(isinstance(array, Expression) for array in arrays):
        raise Unfusable
