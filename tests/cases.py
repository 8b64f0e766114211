"""Inputs on which every engine must agree with the reference to the bit."""

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import arspec as ar

DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}

PENALTIES = {
    "l1": ar.L1(0.3),
    "l2": ar.L2(0.7),
    "l1_l2": ar.L1L2(0.2, 0.45),
    "sum": ar.L1(1e-4) + 0.5 * ar.L2(1e-3),
}

# Sizes around powers of two, where the halving tree changes its shape.
SHAPES = [(), (1,), (0, 3), (2,), (5, 7), (3, 4, 2), (2, 3, 2, 5), (1025,)]
MEANS = {"sum": (), "batchmean": "batchmean", "mean": "mean"}


def specials(dtype: str) -> np.ndarray:
    """Zeros, ties, ±0, NaN, ±inf, the largest and smallest numbers, and subnormals."""
    info = ml_dtypes.finfo(DTYPES[dtype])
    numbers = [0.0, -0.0, 1.0, 1.0, -1.0, 0.5, float(info.max), float(info.min), float(info.smallest_normal)]
    numbers += [float(info.smallest_subnormal), -float(info.smallest_subnormal), float(info.eps), np.pi]
    with np.errstate(over="ignore"):
        finite = np.array(numbers, np.float64).astype(DTYPES[dtype])
    return np.concatenate([finite, np.array([np.inf, -np.inf, np.nan], np.float64).astype(DTYPES[dtype])])


def special_arrays(dtype: str) -> dict[str, np.ndarray]:
    """Every special value alone and in company, so that one does not hide the others."""
    values = specials(dtype)
    arrays = {f"alone {value!s}": values[i : i + 1] for i, value in enumerate(values)}
    arrays["all finite"] = values[np.isfinite(values.astype(np.float64))]
    arrays["all"] = values
    arrays["zeros"] = np.zeros((3, 4), DTYPES[dtype])
    arrays["ties"] = np.full((4, 3), -2.5, np.float64).astype(DTYPES[dtype])
    return arrays


def random_array(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Normal numbers over many magnitudes, with exact zeros among them."""
    rng = np.random.default_rng(seed)
    x = np.asarray(rng.standard_normal(shape) * np.exp2(rng.integers(-12, 12, shape)))
    return np.where(rng.random(shape) < 0.1, 0.0, x).astype(DTYPES[dtype])


def dyadic_arrays(shape: tuple[int, ...], dtype: str) -> st.SearchStrategy[np.ndarray]:
    """Small multiples of 1/8: every term and partial sum is exact, in any order."""
    eighths = st.integers(-16, 16).map(lambda n: n / 8)
    return hnp.arrays(np.float64, shape, elements=eighths).map(lambda x: x.astype(DTYPES[dtype]))


def float_arrays(shape: tuple[int, ...], dtype: str) -> st.SearchStrategy[np.ndarray]:
    """Any float of the dtype at all."""
    width = {"float64": 64, "float32": 32, "bfloat16": 32, "float16": 16}[dtype]
    return hnp.arrays(f"float{width}", shape, elements=st.floats(width=width)).map(lambda x: x.astype(DTYPES[dtype]))
