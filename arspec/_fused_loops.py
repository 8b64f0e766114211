"""Recorded expressions as compiled loops: fill an array, sum it all, or reduce one axis in the fixed order.

A loop (`_loop_text` writes it) is compiled by numba without fast math and kept by its text. The one
place where additions may be reordered is `total`, whose caller proves that the order does not
matter.
"""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from arspec._loop_text import SEGMENT, Layout, fill_text, merged, reduction_text, total_text
from arspec._recorded import Code, Expression, Pieces, Unfusable, written

# A second thread is worth its start from here on.
SHARED = 1 << 20

# Columns, or entries of a long axis, that one step of a reduction takes: its partial sums stay in cache.
STRIP = 512


class Prepared(NamedTuple):
    """A loop over all entries with everything it needs but the large array."""

    loop: Callable[..., Any]
    layout: Layout
    parameters: tuple[Any, ...]

    def fill(self, source: np.ndarray, out: np.ndarray, first: int, threads: int) -> None:
        """Write the result, rounded to the dtype of `out`, which is laid out like the source, from entry `first` on.

        All arrays are flat.
        """
        self._run(source, threads, out, first)

    def total(self, source: np.ndarray, threads: int) -> float:
        """Return the sum in float64, in any order; at most `roundings` of its additions touch one entry."""
        return sum(self._run(source, threads))

    def reduce(self, source: np.ndarray, out: np.ndarray, strip: int, threads: int) -> None:
        """Write what a reduction gives; both arrays are flat."""
        self._run(source, threads, out, strip)

    def _run(self, source: np.ndarray, threads: int, *more: Any) -> list[Any]:
        outer, sizes = self.layout.sizes[0], self.layout.sizes
        if threads == 1 or source.size < SHARED or outer == 1:
            return [self.loop(0, outer, source, *sizes, *self.layout.strides, *more, *self.parameters)]
        given = (source, *sizes, *self.layout.strides, *more, *self.parameters)
        parts = min(threads, outer, source.size // (SHARED // 2))
        cuts = [outer * i // parts for i in range(parts + 1)]
        with ThreadPoolExecutor(parts) as pool:
            ends = itertools.pairwise(cuts)
            return list(pool.map(lambda bounds: self.loop(*bounds, *given), ends))


def prepared_fill(expression: Expression) -> Prepared:
    """Prepare the loop that computes every entry of an expression."""
    code = written(expression)
    layout = merged(expression, code, (len(expression.shape),))
    return _prepared(fill_text(code, layout), code, layout, expression)


def prepared_total(expression: Expression) -> Prepared:
    """Prepare the loop that sums an expression."""
    code = written(expression)
    layout = merged(expression, code, (len(expression.shape),))
    return _prepared(total_text(code, layout), code, layout, expression)


def _prepared(text: str, code: Code, layout: Layout, expression: Expression) -> Prepared:
    arrays = [np.ascontiguousarray(array, np.float64).reshape(-1) for array in code.arrays]
    firsts = [_first(part, expression.source.shape) for part in code.parts]
    return Prepared(_compiled(text), layout, (*firsts, *code.numbers, *arrays))


def _first(starts: Sequence[int], shape: tuple[int, ...]) -> int:
    """Return the flat index of an entry."""
    flat = 0
    for start, size in zip(starts, shape, strict=True):
        flat = flat * size + start
    return flat


def fill(expression: Expression, threads: int = 1) -> np.ndarray:
    """Compute an expression of the shape of the large array and round every entry to its dtype."""
    if expression.shape != expression.source.shape:
        raise Unfusable
    out = np.empty(expression.shape, expression.source.dtype)
    pieces, axis = ((expression,), 0) if not isinstance(expression, Pieces) else (expression.operands, expression.axis)
    start = 0
    for piece in pieces:
        first = _first([start if index == axis else 0 for index in range(out.ndim)], out.shape)
        prepared_fill(piece).fill(expression.source.reshape(-1), out.reshape(-1), first, threads)
        start += piece.shape[axis] if out.ndim else 0
    return out


def total(expression: Expression, threads: int = 1) -> float:
    """Sum an expression in float64, in any order."""
    return prepared_total(expression).total(expression.source.reshape(-1), threads)


def roundings(size: int) -> int:
    """Return how many additions of `total` one of `size` entries can pass through."""
    return min(size, 2 * SEGMENT + size // SEGMENT + 64)


def reduce_axis(expression: Expression, axis: int, how: str, threads: int, known: dict[Any, np.ndarray]) -> np.ndarray:
    """Sum one axis by the halving tree of `Namespace.halve`, or take its maximum; float64, the axis kept with size 1.

    Parameters
    ----------
    how : "sum" or "max".
    known : what was reduced before, of the same large array; filled here.
    """
    code = written(expression)
    layout = merged(expression, code, (axis, axis + 1, len(expression.shape)))
    if len(layout.sizes) != 3:
        raise Unfusable
    shape = (*expression.shape[:axis], 1, *expression.shape[axis + 1 :])
    return _reduced(expression, code, layout, how, threads, known).reshape(shape)


def tree_total(expression: Expression) -> np.ndarray:
    """Sum all entries, flattened, by the halving tree; a 0-d float64 array."""
    code = written(expression)
    if code.arrays or expression.shape != expression.source.shape:
        raise Unfusable
    layout = Layout((1, prod(expression.shape), 1), (0, 1, 1), ((), (), ()))
    return _reduced(expression, code, layout, "sum", 1, {}).reshape(())


def _reduced(
    expression: Expression, code: Code, layout: Layout, how: str, threads: int, known: dict[Any, np.ndarray]
) -> np.ndarray:
    before, along, after = layout.sizes
    in_rows = after == 1 and layout.strides[1] == 1
    strip = min(STRIP, 1 << (along - 1).bit_length()) if in_rows else min(STRIP, after)
    text = reduction_text(code, layout, how, in_rows=in_rows)
    key = None if code.arrays else (text, layout, *code.numbers, *code.parts)
    if key is None or key not in known:
        out = np.empty(before * after)
        loop = _prepared(text, code, layout, expression)
        loop.reduce(expression.source.reshape(-1), out, strip, threads)
        if key is None:
            return out
        known[key] = out
    return known[key]


@lru_cache(maxsize=1024)
def _compiled(source: str) -> Callable[..., Any]:
    """Compile a loop; the text comes from this module, never from a file."""
    import math

    import numba

    # Only additions of a total may be reordered, and NaN and infinity stay what they are.
    add = numba.njit(fastmath={"reassoc", "nsz"})(lambda x, y: x + y)
    names: dict[str, Any] = {"math": math, "np": np, "add": add}
    exec(compile(source, "<fused loop>", "exec"), names)
    return numba.njit(nogil=True, error_model="numpy")(names["loop"])
