"""Compare arrays by their bits, as NUMERICS defines identity."""

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
    return np.ascontiguousarray(x).view(_INTEGERS[x.dtype.itemsize])


def assert_same_bits(got: Any, expected: Any, what: str) -> int:
    """Assert identity and return how many elements were compared."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype == expected.dtype, f"{what}: dtype {got.dtype}, expected {expected.dtype}"
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    different = canonical(got) != canonical(expected)
    if different.any():
        where = tuple(int(i[0]) for i in np.nonzero(np.atleast_1d(different)))
        raise AssertionError(
            f"{what}: {int(different.sum())} of {different.size} elements differ; first at {where}: "
            f"got {np.atleast_1d(got)[where]!r}, expected {np.atleast_1d(expected)[where]!r}"
        )
    return int(different.size)
