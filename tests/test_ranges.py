"""Shapes, dtypes and ranges for all penalties: 0-d, one step, one example, subnormals, float16."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import arspec as ar
from bits import assert_same_bits
from cases import DTYPES
from family import ELEMENTWISE, FAMILY, NAMES, PROBABILITIES, SHAPE, ordinary

names = pytest.mark.parametrize("name", FAMILY)
dtypes = pytest.mark.parametrize("dtype", DTYPES)
elementwise = pytest.mark.parametrize("name", sorted(ELEMENTWISE))
MEANS = ((), ("batch",), NAMES)


def parts(name: str, x: np.ndarray, **options: Any) -> tuple[Any, np.ndarray]:
    return ar.value(FAMILY[name], x, **options), ar.gradient(FAMILY[name], x, **options)


class TestShapes:
    @elementwise
    @dtypes
    def test_no_axes(self, name: str, dtype: str) -> None:
        x = np.array(0.25).astype(DTYPES[dtype])
        value, gradient = parts(name, x)
        one_value, one_gradient = parts(name, x.reshape(1))
        assert_same_bits(value, one_value, "value")
        assert_same_bits(gradient, one_gradient[0], "gradient")

    @pytest.mark.parametrize("name", ["temporal_difference", "norm_stabilizer", "total_variation"])
    @dtypes
    def test_a10_one_step(self, name: str, dtype: str) -> None:
        penalty = ar.TotalVariation(1.0, over=("time",)) if name == "total_variation" else FAMILY[name]
        x = np.array([[[3.0, -4.0]], [[np.inf, 1.0]]]).astype(DTYPES[dtype])
        for options in ({}, {"mean_over": "mean"}, {"mask": np.ones((2, 1), bool)}):
            assert ar.value(penalty, x, **options) == 0
            assert not ar.gradient(penalty, x[:1], **{**options, "mask": None}).astype(float).any()

    @names
    @dtypes
    def test_batch_of_one(self, name: str, dtype: str) -> None:
        """A mean over a batch of one is that example."""
        x = ordinary(name, dtype)[:1]
        value, gradient = parts(name, x, mean_over=("batch",))
        assert np.isfinite(float(value))
        if name in ELEMENTWISE:
            assert_same_bits(value, ar.value(FAMILY[name], x), "value")
            assert_same_bits(gradient, ar.gradient(FAMILY[name], x), "gradient")
        if name == "decov":
            assert value == 0
            assert not gradient.astype(float).any()

    @names
    def test_memory_layout_does_not_matter(self, name: str) -> None:
        x = ordinary(name, "float32")
        view = np.asfortranarray(np.repeat(x, 2, axis=1))[:, ::2]
        for got, expected in zip(parts(name, view), parts(name, x), strict=True):
            assert_same_bits(got, expected, name)


class TestRange:
    @names
    @dtypes
    def test_dtypes(self, name: str, dtype: str) -> None:
        for mean_over in MEANS:
            value, gradient = parts(name, ordinary(name, dtype), mean_over=mean_over)
            assert value.dtype == (np.float64 if dtype == "float64" else np.float32)
            assert (gradient.dtype, gradient.shape) == (DTYPES[dtype], SHAPE)

    @names
    @pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
    def test_not_floating_point(self, name: str, dtype: str) -> None:
        for function in (ar.value, ar.gradient):
            with pytest.raises(ar.SpecError, match=f"x is {dtype}; expected one of float16, bfloat16"):
                function(FAMILY[name], np.ones(SHAPE, dtype))

    @names
    def test_complex(self, name: str) -> None:
        with pytest.raises(ar.UnsupportedError, match="x is complex64; penalties of complex tensors"):
            ar.value(FAMILY[name], np.ones(SHAPE, np.complex64))

    @names
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
    def test_subnormal_numbers_count_as_zero(self, name: str, dtype: str) -> None:
        smallest = float(ml_dtypes.finfo(DTYPES[dtype]).smallest_normal)
        x = ordinary(name, dtype)
        x[0], zeros = (0.5 * smallest), x.copy()
        zeros[0] = 0.0
        for got, expected in zip(parts(name, x), parts(name, zeros), strict=True):
            assert_same_bits(got, expected, name)

    @pytest.mark.parametrize("name", ["l1", "l2", "l2_norm", "linf", "huber", "smooth_l1", "binarize", "decov"])
    def test_a5_float16_does_not_overflow_inside(self, name: str) -> None:
        """The sum of 60000 four times is beyond float16, and its square too."""
        x = np.full(SHAPE, 6e4, np.float16)
        x[:, :, 0] *= -1
        narrow, wide = ar.value(FAMILY[name], x), ar.value(FAMILY[name], x.astype(np.float64))
        assert np.isfinite(narrow)
        assert narrow == np.float32(wide)

    @pytest.mark.parametrize("name", sorted(FAMILY.keys() - PROBABILITIES))
    def test_a6_halves_keep_the_float64_coefficient(self, name: str) -> None:
        """The value for float16 is that for the same numbers in float64, rounded once."""
        x = ordinary(name, "float16")
        for mean_over in MEANS:
            wide = ar.value(FAMILY[name], x.astype(np.float64), mean_over=mean_over)
            np.testing.assert_allclose(ar.value(FAMILY[name], x, mean_over=mean_over), wide, rtol=2**-23.9)

    @pytest.mark.parametrize("name", sorted(PROBABILITIES))
    def test_outside_of_probabilities(self, name: str) -> None:
        for outside in (-0.25, 1.25):
            x = np.array([[0.5, outside]])
            if name == "kl_sparsity":
                with pytest.raises(
                    ar.SpecError, match=r"KLSparsity: x lies in \[.*\]; expected activations in \[0, 1\]"
                ):
                    ar.value(FAMILY[name], x)
                assert ar.value(FAMILY[name], x, mask=np.array([[True, False]])) > 0
            else:
                assert np.isnan(ar.gradient(FAMILY[name], x)).tolist() == [[False, True]]
                assert np.isnan(ar.value(FAMILY[name], x))
