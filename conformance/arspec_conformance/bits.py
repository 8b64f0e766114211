"""Compare arrays by their bits, as NUMERICS defines identity, and count units in the last place."""

from typing import Any

import ml_dtypes
import numpy as np

_INTEGERS = {2: np.int16, 4: np.int32, 8: np.int64}


def canonical(x: Any) -> np.ndarray:
    """Return bit patterns: subnormals and -0 count as 0, every NaN as the same NaN."""
    x = np.array(x)
    tiny = float(ml_dtypes.finfo(x.dtype).smallest_normal)
    wide = x.astype(np.float64)
    x = np.where(np.abs(wide) < tiny, np.zeros((), x.dtype), x)
    x = np.where(np.isnan(wide), np.array(np.nan, x.dtype), x)
    return np.array(x, order="C").view(_INTEGERS[x.dtype.itemsize])


def ulp_distance(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return how many floats lie between two arrays of one dtype, after `canonical`.

    A NaN on one side only is as far away as the dtype has patterns. Subnormals count as 0,
    so that the smallest normal number is one step from it.

    Returns
    -------
    uint64 array, 0 only where the canonical bits are equal.
    """
    got, expected = np.asarray(got), np.asarray(expected)
    if got.tobytes() == expected.tobytes():  # the usual case, and much the fastest
        return np.zeros(got.shape, np.uint64)
    ours, theirs = _ordered(got), _ordered(expected)
    # Modulo 2⁶⁴ the difference is right even where it does not fit into int64.
    with np.errstate(over="ignore"):
        distance = np.maximum(ours, theirs).view(np.uint64) - np.minimum(ours, theirs).view(np.uint64)
    one_nan = np.isnan(got.astype(np.float64)) != np.isnan(expected.astype(np.float64))
    return np.where(one_nan, np.uint64(1 << (8 * got.dtype.itemsize - 1)), distance)


def _ordered(x: np.ndarray) -> np.ndarray:
    """Number the floats in their order, 0 at 0 and ±1 at the smallest normal numbers."""
    smallest = int(canonical(np.array(ml_dtypes.finfo(x.dtype).smallest_normal)))
    bits = canonical(x)
    size = (bits & np.iinfo(bits.dtype).max).astype(np.int64)
    size = np.where(size == 0, 0, size - (smallest - 1))
    return np.asarray(np.where(bits < 0, -size, size))
