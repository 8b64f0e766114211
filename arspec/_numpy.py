"""The reference namespace: the core's operations in NumPy itself."""

from functools import cache
from typing import Any

import numpy as np

from arspec._namespace import Array, Namespace


class NumpyNamespace(Namespace):
    """The reference: plain NumPy, float64 inside."""

    lib = np
    mutable_arrays = True

    def dtype_name(self, x: Array) -> str:
        return name_of(x.dtype)

    def cast(self, x: Array, dtype: str) -> Array:
        if dtype == "bfloat16":
            return round_to_bfloat16(x)
        return np.asarray(x).astype(dtype, copy=False)

    def block_size(self, x: Array) -> int | None:
        return BLOCK

    def empty(self, like: Array, shape: tuple[int, ...]) -> Array:
        return np.empty(shape, like.dtype)

    def flush(self, x: Array, smallest: float) -> Array:
        magnitude = np.abs(x)
        subnormal = (magnitude < smallest) & (magnitude > 0)
        return np.where(subnormal, x.dtype.type(0), x) if subnormal.any() else x

    def sign(self, x: Array) -> Array:
        return np.sign(x)  # NaN stays

    def within(self, x: Array, low: float, high: float) -> Array:
        inside = x.size > 0 and np.min(x) >= low and np.max(x) <= high  # no NaN is
        return x if inside else super().within(x, low, high)

    def ones(self, x: Array) -> Array | float:
        return 1.0 if x.size > 0 and not np.isnan(np.max(x)) else super().ones(x)


# Temporaries of a block, 128 KiB, stay in the cache of one core, and malloc keeps their pages.
BLOCK = 1 << 14


@cache
def name_of(dtype: np.dtype[Any]) -> str:
    """Return the name of a dtype; NumPy spells it anew each time, slower than it adds small arrays."""
    return dtype.name


def round_to_bfloat16(x: Array) -> Array:
    """Round to bfloat16 with the dtype that `ml_dtypes` registers (a JAX or TensorFlow need)."""
    import ml_dtypes

    return np.asarray(x).astype(ml_dtypes.bfloat16)
