"""Value and gradient have the same bits in every engine and mode as in the reference."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits
from cases import DTYPES, MEANS, PENALTIES, SHAPES, dyadic_arrays, float_arrays, random_array, special_arrays
from hypothesis import given, settings
from hypothesis import strategies as st
from modes import jax_modes, tensorflow_modes, torch_modes

import arspec as ar

MODES: dict[str, Callable[..., Any]] = {**torch_modes.MODES, **tensorflow_modes.MODES, **jax_modes.MODES}
COTANGENTS = (1.0, -0.37)

modes = pytest.mark.parametrize("mode", MODES)
dtypes = pytest.mark.parametrize("dtype", DTYPES)
penalties = pytest.mark.parametrize("penalty", PENALTIES)


def compare(mode: str, penalty: str, x: np.ndarray, cotangent: float = 1.0, **options: Any) -> int:
    """Run one penalty in one mode, compare with NumPy, return the number of elements compared."""
    value, gradient = MODES[mode](PENALTIES[penalty], x, cotangent=cotangent, **options)
    expected = ar.value(PENALTIES[penalty], x, **options)
    compared = assert_same_bits(value, expected, f"{mode} value")
    by_reference = ar.gradient(PENALTIES[penalty], x, cotangent=cotangent, **options)
    return compared + assert_same_bits(gradient, by_reference, f"{mode} gradient")


def test_every_engine_is_here() -> None:
    assert {name.split("_")[0] for name in MODES} == {"torch", "tf", "jax"}
    assert len(MODES) >= 9


@modes
@dtypes
@penalties
def test_special_values(mode: str, dtype: str, penalty: str) -> None:
    compared = sum(compare(mode, penalty, x) for x in special_arrays(dtype).values())
    assert compared > 60


@modes
@dtypes
def test_shapes_and_reductions(mode: str, dtype: str) -> None:
    compared = 0
    for index, shape in enumerate(SHAPES):
        x = random_array(shape, dtype)
        mean_over = list(MEANS.values())[index % 3] if len(shape) > 1 else ()
        compared += compare(mode, "l1_l2", x, COTANGENTS[index % 2], mean_over=mean_over)
    assert compared > 1000


@modes
@dtypes
@penalties
def test_masks(mode: str, dtype: str, penalty: str) -> None:
    x = random_array((3, 4, 2), dtype)
    x[1, 3] = np.nan
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
    assert compare(mode, penalty, x, mask=mask, mean_over=("batch", "time")) == 25
    assert compare(mode, penalty, x, mask=mask, mean_over=("batch",)) == 25
    assert compare(mode, penalty, x, mask=np.zeros((3, 1), bool), mean_over="mean") == 25


@modes
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sizes_beyond_one_block(mode: str, dtype: str) -> None:
    x = random_array((200_003,), dtype)
    assert compare(mode, "l1_l2", x, -0.37) == 200_004


@modes
@dtypes
@penalties
@settings(max_examples=20)
@given(data=st.data())
def test_dyadic_numbers_are_exact(mode: str, dtype: str, penalty: str, data: st.DataObject) -> None:
    x = data.draw(dyadic_arrays((4, 3), dtype))
    compare(mode, penalty, x)
    simple = ar.L1(0.25) + 2 * ar.L2(0.5)
    value, _ = MODES[mode](simple, x)
    wide = x.astype(np.float64)
    assert float(value) == 0.25 * np.abs(wide).sum() + np.square(wide).sum()


@modes
@dtypes
@settings(max_examples=25)
@given(data=st.data())
def test_any_float(mode: str, dtype: str, data: st.DataObject) -> None:
    penalty = data.draw(st.sampled_from(sorted(PENALTIES)))
    compare(mode, penalty, data.draw(float_arrays((2, 3), dtype)), data.draw(st.sampled_from(COTANGENTS)))
