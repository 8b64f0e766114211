"""Value and gradient through Keras have the same bits as in the reference, on the running backend."""

import numpy as np
import pytest

import arspec as ar
import keras
from arspec_keras import value
from bits import assert_same_bits
from cases import DTYPES, PENALTIES, SHAPES, random_array, special_arrays
from modes.keras_modes import BACKEND, MODES

# JAX itself turns a float64 array into float32 unless x64 is enabled.
HELD = [name for name in DTYPES if BACKEND != "jax" or name != "float64"]


def compare(mode: str, penalty: ar.Penalty, x: np.ndarray, cotangent: float = 1.0, **options: object) -> int:
    found, gradient = MODES[mode](penalty, x, cotangent=cotangent, **options)
    expected = ar.gradient(penalty, x, cotangent=cotangent, **options)
    compared = assert_same_bits(found, ar.value(penalty, x, **options), f"{mode} value")
    return compared + assert_same_bits(gradient, expected, f"{mode} gradient")


EAGER, COMPILED = MODES
dtypes = pytest.mark.parametrize("dtype", HELD)


@dtypes
@pytest.mark.parametrize("penalty", PENALTIES)
def test_special_values(dtype: str, penalty: str) -> None:
    arrays = special_arrays(dtype)
    chosen = [arrays["all"], arrays["all finite"], arrays["zeros"], arrays["ties"]]
    assert sum(compare(EAGER, PENALTIES[penalty], x, -0.37) for x in chosen) > 50


@dtypes
def test_special_values_compiled(dtype: str) -> None:
    # The engines' own identity tests run every penalty; this shows that Keras adds nothing.
    assert compare(COMPILED, PENALTIES["sum"], special_arrays(dtype)["all"], -0.37) > 16


@dtypes
def test_shapes_and_reductions(dtype: str) -> None:
    compared = 0
    for index, shape in enumerate(SHAPES):
        mean_over = ("sum", "batchmean", "mean")[index % 3] if len(shape) > 1 else "sum"
        compared += compare(EAGER, PENALTIES["l1_l2"], random_array(shape, dtype), mean_over=mean_over)
    assert compared > 1000


@pytest.mark.parametrize("mode", MODES)
def test_masks(mode: str) -> None:
    x = random_array((3, 4, 2), "float32")
    x[1, 3] = np.nan
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
    assert compare(mode, ar.L2(0.3), x, mask=mask, mean_over=("batch", "time")) == 25


def test_a_keras_variable_is_read() -> None:
    found = value(ar.L1(0.5), keras.Variable(np.array([1.0, -2.0], np.float32)))
    assert float(keras.ops.convert_to_numpy(found)) == 1.5


def test_what_has_no_numbers_is_an_error() -> None:
    with pytest.raises(ar.SpecError, match=r"x is a symbolic KerasTensor.*attach a rule to the layer"):
        value(ar.L1(1.0), keras.Input((2,)))
    with pytest.raises(ar.SpecError, match=r"x is int32; expected one of float16"):
        value(ar.L1(1.0), keras.ops.convert_to_tensor(np.array([1, 2], np.int32)))
