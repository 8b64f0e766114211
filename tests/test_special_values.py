"""Special values for all penalties: NaN, ±inf, empty, masked, a coefficient of 0."""

from typing import Any

import numpy as np
import pytest

import arspec as ar
from bits import assert_same_bits
from cases import DTYPES, specials
from family import ELEMENTWISE, FAMILY, MATRIX, NAMES, SHAPE, ordinary

names = pytest.mark.parametrize("name", FAMILY)
dtypes = pytest.mark.parametrize("dtype", DTYPES)
elementwise = pytest.mark.parametrize("name", sorted(ELEMENTWISE))
maskable = pytest.mark.parametrize("name", sorted(FAMILY.keys() - MATRIX))
MEANS = ((), ("batch",), NAMES)

# The axes along which a NaN at one entry spreads: its group. None: to the two neighbours in time.
GROUPS: dict[str, tuple[str, ...]] = {
    "group_lasso": ("feature",),
    "group_lasso scaled": ("batch", "feature"),
    "l2_norm": ("time", "feature"),
    "linf": ("time", "feature"),
    "hoyer": ("time", "feature"),
    "hoyer_square": ("time", "feature"),
    "kl_sparsity": ("batch",),
}


def parts(name: str, x: np.ndarray, **options: Any) -> tuple[Any, np.ndarray]:
    return ar.value(FAMILY[name], x, **options), ar.gradient(FAMILY[name], x, **options)


def group_of(position: tuple[int, ...], over: tuple[str, ...]) -> np.ndarray:
    """True at every entry that differs from `position` only along the axes `over`."""
    index = tuple(slice(None) if name in over else i for name, i in zip(NAMES, position, strict=True))
    found = np.zeros(SHAPE, bool)
    found[index] = True
    return found


class TestNaN:
    @elementwise
    @dtypes
    def test_elementwise_it_stays_where_it_is(self, name: str, dtype: str) -> None:
        x = ordinary(name, dtype)
        clean = ar.gradient(FAMILY[name], x)
        x[1, 2, 0] = np.nan
        value, gradient = parts(name, x)
        assert np.isnan(value)
        assert np.argwhere(np.isnan(gradient)).tolist() == [[1, 2, 0]]
        kept = ~np.isnan(x)
        assert_same_bits(gradient[kept], clean[kept], "the others")

    @pytest.mark.parametrize("name", GROUPS)
    @dtypes
    def test_coupled_it_spreads_over_its_group(self, name: str, dtype: str) -> None:
        x = ordinary(name, dtype)
        x[1, 2, 0] = np.nan
        value, gradient = parts(name, x, mean_over=("batch",))
        assert np.isnan(value)
        assert (np.isnan(gradient) == group_of((1, 2, 0), GROUPS[name])).all()

    @dtypes
    def test_differences_it_spreads_to_its_neighbours(self, dtype: str) -> None:
        x = np.arange(5.0).reshape(1, 5, 1).astype(DTYPES[dtype])
        x[0, 1] = np.nan
        for name in ("temporal_difference", "norm_stabilizer"):
            value, gradient = parts(name, x)
            assert np.isnan(value)
            assert np.isnan(gradient).ravel().tolist() == [True, True, True, False, False]
        gradient = ar.gradient(ar.TotalVariation(1.0, over=("time",)), x)
        assert np.isnan(gradient).ravel().tolist() == [True, True, True, False, False]

    @pytest.mark.parametrize("name", sorted(MATRIX | {"decov"}))
    @dtypes
    def test_matrices_it_is_never_lost(self, name: str, dtype: str) -> None:
        x = ordinary(name, dtype)
        x[1, 2, 0] = np.nan
        value, gradient = parts(name, x)
        assert np.isnan(value)
        assert np.isnan(gradient[1, 2, 0])

    @names
    def test_alone(self, name: str) -> None:
        """One step, one row or one feature is compared with nothing: there the penalty is constant."""
        constant = {"temporal_difference", "norm_stabilizer", "total_variation", "orthogonal", "decov"}
        value, _ = parts(name, np.full((1, 1, 1), np.nan))
        assert np.isnan(value) == (FAMILY[name].name not in constant)


INFINITE: dict[str, tuple[float, float]] = {
    # The value of (1, inf), and the gradient at inf, in units of the coefficient.
    "l1": (np.inf, 1.0),
    "l2": (np.inf, np.inf),
    "l1_l2": (np.inf, np.inf),
    "lp 0.5": (np.inf, 0.0),
    "lp 1.3": (np.inf, np.inf),
    "lp 3": (np.inf, np.inf),
    "l2_norm": (np.inf, np.nan),
    "linf": (np.inf, 1.0),
    "hoyer": (np.nan, np.nan),
    "hoyer_square": (np.nan, np.nan),
    "huber": (np.inf, 0.7),
    "pseudo_huber": (np.inf, 0.7),
    "smooth_l1": (np.inf, 1.0),
    "student_t": (np.inf, 0.0),
    "tanh": (np.tanh(1.7) + 1, 0.0),
    "binary_entropy": (np.nan, np.nan),
    "binarize": (np.inf, np.inf),
    "l0_step": (2.0, 0.0),
}


class TestInfinity:
    @pytest.mark.parametrize("name", INFINITE)
    @dtypes
    @pytest.mark.parametrize("sign", [1, -1])
    def test_the_limit_or_nan(self, name: str, dtype: str, sign: int) -> None:
        x = np.array([1.0, sign * np.inf]).astype(DTYPES[dtype])
        value, gradient = parts(name, x)
        of_value, of_gradient = INFINITE[name]
        coefficient = getattr(FAMILY[name], "coefficient", 1.0)
        if name == "l0_step" and sign < 0:
            of_value = 1.0
        np.testing.assert_allclose(float(value), of_value * coefficient, rtol=1e-6)
        slope = np.array(sign * of_gradient * (1 if np.isinf(of_gradient) else coefficient)).astype(x.dtype)
        assert_same_bits(gradient[1], slope, "gradient")

    def test_of_a_norm_at_the_finite_entries(self) -> None:
        x = np.array([[1.0, np.inf], [3.0, 4.0]])
        for penalty in (ar.GroupLasso(1.0, norm_over=("feature",)), ar.L2Norm(2.0)):
            gradient = ar.gradient(penalty, x, mean_over=("batch",) if penalty.name == "l2_norm" else ())
            np.testing.assert_allclose(gradient, [[0.0, np.nan], [0.6, 0.8]], rtol=1e-15)

    def test_shared_by_the_largest(self) -> None:
        assert ar.gradient(ar.LInf(1.0), np.array([np.inf, 1, -np.inf])).tolist() == [0.5, 0.0, -0.5]

    def test_differences_of_infinities(self) -> None:
        x = np.array([np.inf, 1.0, 2.0, 2.0]).reshape(1, 4, 1)
        assert ar.value(ar.TemporalDifference(1.0), x) == np.inf
        assert ar.gradient(ar.TemporalDifference(1.0), x).ravel().tolist() == [np.inf, -np.inf, 2.0, 0.0]
        assert ar.gradient(ar.TotalVariation(1.0, over=("time",)), x).ravel().tolist() == [1.0, -2.0, 1.0, 0.0]
        both = np.array([np.inf, np.inf]).reshape(1, 2, 1)
        assert np.isnan(ar.value(ar.TemporalDifference(1.0), both))


class TestNothing:
    @names
    @dtypes
    @pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
    def test_a10_empty(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        for mean_over in MEANS:
            value, gradient = parts(name, np.zeros(shape, DTYPES[dtype]), mean_over=mean_over)
            assert value == 0
            assert (gradient.shape, gradient.dtype) == (shape, DTYPES[dtype])

    @maskable
    @dtypes
    def test_a10_everything_masked(self, name: str, dtype: str) -> None:
        x = np.full(SHAPE, np.nan).astype(DTYPES[dtype])
        for mean_over in MEANS:
            value, gradient = parts(name, x, mean_over=mean_over, mask=np.zeros(2, bool))
            assert value == 0
            assert (gradient.astype(float) == 0).all()

    @maskable
    @dtypes
    def test_what_is_masked_does_not_matter(self, name: str, dtype: str) -> None:
        """Whatever stands there, the value and the other gradients keep their bits; its own are 0."""
        mask = np.array([True, False, True])
        x = np.concatenate([ordinary(name, dtype), ordinary(name, dtype, 1)])[:3]
        for mean_over in MEANS:
            value, gradient = parts(name, x, mean_over=mean_over, mask=mask)
            assert (gradient[1].astype(float) == 0).all()
            for held in (np.nan, np.inf, -np.inf, -2.0):
                other = x.copy()
                other[1] = held
                again = parts(name, other, mean_over=mean_over, mask=mask)
                assert_same_bits(again[0], value, "value")
                assert_same_bits(again[1], gradient, "gradient")

    @pytest.mark.parametrize("name", sorted(MATRIX))
    def test_a_matrix_refuses_a_mask(self, name: str) -> None:
        cls = type(FAMILY[name]).__name__
        with pytest.raises(ar.SpecError, match=f"{cls} is a function of a whole matrix; a mask has no meaning"):
            ar.value(FAMILY[name], np.ones(SHAPE), mask=np.ones(2, bool))
        with pytest.raises(ar.SpecError, match=f"{cls} is a function of a whole matrix; a mask has no meaning"):
            ar.gradient(FAMILY[name], np.ones(SHAPE), mask=np.ones(2, bool))

    def test_decov_refuses_a_mask_within_an_example(self) -> None:
        with pytest.raises(ar.SpecError, match=r"DeCov: mask has shape \(2, 3, 1\); expected one that only varies"):
            ar.value(ar.DeCov(1.0), np.ones(SHAPE), mask=np.ones((2, 3), bool))

    @names
    @dtypes
    def test_a10_a_coefficient_of_zero(self, name: str, dtype: str) -> None:
        x = np.resize(specials(dtype), SHAPE)
        for options in ({}, {"mean_over": "mean"}, {"mask": np.ones(2, bool)}):
            value, gradient = ar.value(0 * FAMILY[name], x, **options), ar.gradient(0 * FAMILY[name], x, **options)
            assert (float(value), value.dtype) == (0.0, np.float64 if dtype == "float64" else np.float32)
            assert (gradient.astype(float) == 0).all()
            assert (gradient.shape, gradient.dtype) == (x.shape, x.dtype)

    def test_a10_half_an_elastic_net_of_zero(self) -> None:
        x = np.array([np.inf, -1.0])
        assert ar.gradient(ar.L1L2(0.0, 2.0), x).tolist() == [np.inf, -4.0]
        assert ar.gradient(ar.L1L2(3.0, 0.0), x).tolist() == [3.0, -3.0]
        assert ar.value(ar.L1(1.0) + 0 * ar.Hoyer(1.0), x) == np.inf

    def test_a10_a_coefficient_of_zero_in_blocks(self) -> None:
        x = np.full(300_000, np.inf, np.float32)
        assert ar.value(ar.L1(0.0), x) == 0
        assert not ar.gradient(ar.L1(0.0), x).any()
