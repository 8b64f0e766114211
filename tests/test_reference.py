"""The definition in NumPy against closed forms, exact arithmetic and loops written apart from it."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import ml_dtypes
import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import arspec as ar
from arspec._numpy import BLOCK
from bits import assert_same_bits
from cases import DTYPES, random_array, special_arrays

dtypes = pytest.mark.parametrize("dtype", DTYPES)

# The published equations, of one number, in exact arithmetic.
Term = Callable[[Fraction], Fraction]
TERMS: dict[str, tuple[ar.Penalty, Term]] = {
    "l1": (ar.L1(0.3), lambda x: Fraction(0.3) * abs(x)),
    "l2": (ar.L2(0.7), lambda x: Fraction(0.7) * x * x),
    "l1_l2": (ar.L1L2(0.2, 0.45), lambda x: Fraction(0.2) * abs(x) + Fraction(0.45) * x * x),
    "sum": (
        0.5 * (ar.L1(1e-4) + 3 * ar.L2(1e-3)),
        lambda x: Fraction(0.5) * Fraction(1e-4) * abs(x) + Fraction(1.5) * Fraction(1e-3) * x * x,
    ),
}
SLOPES: dict[str, Term] = {
    "l1": lambda x: Fraction(0.3) * sign(x),
    "l2": lambda x: Fraction(0.7) * 2 * x,
    "l1_l2": lambda x: Fraction(0.2) * sign(x) + Fraction(0.45) * 2 * x,
    "sum": lambda x: Fraction(0.5) * Fraction(1e-4) * sign(x) + Fraction(1.5) * Fraction(1e-3) * 2 * x,
}
penalties = pytest.mark.parametrize("name", TERMS)


def sign(x: Fraction) -> int:
    return (x > 0) - (x < 0)


def exact(x: np.ndarray) -> list[Fraction]:
    return [Fraction(float(number)) for number in x.ravel()]


def nearest(got: Any, expected: Fraction) -> bool:
    """Return whether `got` is the number of its dtype nearest to the exact one.

    Where the exact number lies between two of them, within the error of float64 (or of
    float32 on the way to half precision, rule R1), either will do.
    """
    got = np.asarray(got)
    info = ml_dtypes.finfo(got.dtype)
    exponent = math.frexp(max(abs(float(got)), float(info.smallest_normal)))[1]
    half_unit = Fraction(2) ** (exponent - 1) * Fraction(float(info.eps)) / 2
    slack = 1 + Fraction(2) ** (-24 if got.dtype == np.float32 else -12)
    return abs(Fraction(float(got)) - expected) <= half_unit * slack


def within(got: float, expected: Fraction, dtype: np.dtype, ulps: float) -> bool:
    """Return whether `got` is that many units in the last place of `dtype` from the exact number."""
    scale = max(abs(float(expected)), float(ml_dtypes.finfo(dtype).smallest_normal))
    return abs(Fraction(float(got)) - expected) <= Fraction(ulps * scale * float(ml_dtypes.finfo(dtype).eps))


class TestClosedForms:
    """Numbers anybody can check by hand."""

    def test_the_number_of_the_specification(self) -> None:
        assert ar.value(ar.L1(1e-4), np.ones((30, 500)), mean_over=("batch",)) == 0.05
        assert f"{ar.value(ar.L1(1e-4), np.ones((30, 500)), mean_over=('batch',))}" == "0.05"
        assert (ar.gradient(ar.L1(1e-4), np.ones((30, 500)), mean_over=("batch",)) == 1e-4 / 30).all()

    def test_reductions(self) -> None:
        x = np.arange(24.0).reshape(2, 3, 4)
        total = 276.0
        for mean_over, count in {"sum": 1, "batchmean": 2, "mean": 24, ("time",): 3, ("batch", "feature"): 8}.items():
            assert ar.value(ar.L1(1.0), x, mean_over=mean_over) == pytest.approx(total / count, rel=1e-15)
            assert (ar.gradient(ar.L1(1.0), x, mean_over=mean_over).ravel()[1:] == 1.0 / count).all()

    def test_names_decide_what_is_averaged_not_positions(self) -> None:
        x = np.ones((2, 3, 5))
        for order in itertools.permutations(("batch", "time", "feature")):
            size = dict(zip(order, x.shape, strict=True))["time"]
            assert ar.value(ar.L2(1.0), x, axes=order, mean_over=("time",)) == pytest.approx(30 / size, rel=1e-15)

    def test_there_is_no_half_in_l2(self) -> None:
        assert ar.value(ar.L2(1.0), np.array([3.0])) == 9.0
        assert ar.gradient(ar.L2(1.0), np.array([3.0])) == [6.0]

    def test_elastic_net_is_the_sum_of_its_parts(self) -> None:
        x = random_array((40,), "float64")
        parts = ar.value(ar.L1(0.25), x) + ar.value(ar.L2(0.5), x)
        assert ar.value(ar.L1L2(0.25, 0.5), x) == pytest.approx(parts, rel=1e-14)
        assert ar.value(ar.L1(0.25) + ar.L2(0.5), x) == pytest.approx(parts, rel=1e-14)


@penalties
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_values_are_exact_rounded_once(name: str, dtype: str) -> None:
    """For inputs narrower than float64 the value is the float32 nearest to the exact sum."""
    penalty, term = TERMS[name]
    for seed in range(20):
        x = random_array((37,), dtype, seed)
        expected = sum(map(term, exact(x)), Fraction())
        assert nearest(ar.value(penalty, x), expected)


@penalties
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_gradients_are_exact_rounded_once(name: str, dtype: str) -> None:
    penalty, _ = TERMS[name]
    x = random_array((200,), dtype)
    for got, number in zip(ar.gradient(penalty, x), exact(x), strict=True):
        assert nearest(got, SLOPES[name](number))


@penalties
def test_float64_is_within_its_rounding_errors(name: str) -> None:
    """A halving tree over n terms of k operations each errs by at most (log2 n + k) units."""
    penalty, term = TERMS[name]
    x = random_array((1000,), "float64")
    assert within(ar.value(penalty, x), sum(map(term, exact(x)), Fraction()), x.dtype, ulps=(10 + 6) / 2)
    for got, number in zip(ar.gradient(penalty, x), exact(x), strict=True):
        assert within(got, SLOPES[name](number), x.dtype, ulps=2.5)


@given(
    hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(-(2.0**60), 2.0**60, width=32, allow_subnormal=False))
)
def test_value_equals_fsum(x: np.ndarray) -> None:
    """`math.fsum` rounds the exact sum once, to float64."""
    assert float(ar.value(ar.L1(1.0), x)) == np.float32(math.fsum(abs(float(v)) for v in x))
    assert float(ar.value(ar.L2(1.0), x)) == np.float32(math.fsum(float(v) * float(v) for v in x))


def test_value_of_a_large_tensor_equals_fsum() -> None:
    """Beyond one block, where NumPy's own float32 sum has lost digits."""
    x = np.full(3 * BLOCK + 17, 0.1, np.float32)
    assert float(ar.value(ar.L1(1.0), x)) == np.float32(math.fsum([float(x[0])] * x.size))
    assert np.cumsum(x)[-1] != np.float32(math.fsum([float(x[0])] * x.size))


@penalties
def test_gradient_is_the_derivative_of_the_value(name: str) -> None:
    """Numerical differentiation at 50 digits, away from the kink."""
    penalty, term = TERMS[name]
    x = random_array((20,), "float64")
    x = x[np.abs(x) > 1e-3]
    with mpmath.workdps(50):

        def of(number: Any) -> Any:
            exact_term = term(Fraction(*mpmath_ratio(number)))
            return mpmath.mpf(exact_term.numerator) / exact_term.denominator

        slopes = [float(mpmath.diff(of, mpmath.mpf(float(number)))) for number in x]
    np.testing.assert_allclose(ar.gradient(penalty, x), slopes, rtol=1e-14)


def mpmath_ratio(number: Any) -> tuple[int, int]:
    sign_bit, mantissa, exponent, _ = number._mpf_
    mantissa = -int(mantissa) if sign_bit else int(mantissa)
    return (mantissa << exponent, 1) if exponent >= 0 else (mantissa, 1 << -exponent)


# Masks, by loops that know nothing of the implementation.


def looped(penalty: Term, slope: Term, x: np.ndarray, valid: np.ndarray, averaged: tuple[int, ...]) -> tuple[Any, Any]:
    """Mean over the valid positions along `averaged`, then sum; and the derivative of that."""
    value, gradient = Fraction(), {}
    kept = [i for i in range(x.ndim) if i not in averaged]
    for outer in itertools.product(*(range(x.shape[i]) for i in kept)):
        group = []
        for inner in itertools.product(*(range(x.shape[i]) for i in averaged)):
            index = dict(zip((*kept, *averaged), (*outer, *inner), strict=True))
            position = tuple(index[i] for i in range(x.ndim))
            if valid[position]:
                group.append(position)
        for position in group:
            number = Fraction(float(x[position]))
            value += penalty(number) / len(group)
            gradient[position] = slope(number) / len(group)
    return value, gradient


@penalties
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("mask_shape", [(3,), (3, 1), (3, 4), (1, 4), (3, 4, 1), (3, 4, 2), (1, 1, 2)])
@pytest.mark.parametrize("averaged", [(), (0,), (1,), (0, 1), (2,), (0, 1, 2)])
def test_masks(name: str, dtype: str, mask_shape: tuple[int, ...], averaged: tuple[int, ...]) -> None:
    penalty, term = TERMS[name]
    x = random_array((3, 4, 2), dtype)
    mask = np.random.default_rng(len(mask_shape) + sum(averaged)).random(mask_shape) < 0.6
    expanded = mask.reshape(mask_shape + (1,) * (3 - len(mask_shape)))
    valid = np.broadcast_to(expanded, x.shape)
    x = np.where(valid, x, np.array(np.nan, x.dtype))
    mean_over = [("batch", "time", "feature")[i] for i in averaged]
    value, slopes = looped(term, SLOPES[name], x, valid, averaged)
    out = np.dtype("float64" if dtype == "float64" else "float32")
    assert within(ar.value(penalty, x, mask=mask, mean_over=mean_over), value, out, ulps=8)
    gradient = ar.gradient(penalty, x, mask=mask, mean_over=mean_over)
    assert gradient.dtype == x.dtype
    for position in np.ndindex(x.shape):
        expected = slopes.get(position, Fraction())
        assert within(gradient[position], expected, x.dtype, ulps=4)
        assert valid[position] or gradient[position] == 0


def test_a_mask_that_is_true_everywhere_changes_nothing_but_the_last_bit() -> None:
    x = random_array((6, 5), "float32")
    for mean_over in ("sum", "batchmean", "mean"):
        masked = ar.value(ar.L2(0.5), x, mask=np.ones(6, bool), mean_over=mean_over)
        assert masked == ar.value(ar.L2(0.5), x, mean_over=mean_over)


@penalties
@dtypes
def test_b3_padding_does_not_count(name: str, dtype: str) -> None:
    """Masked steps, NaN and inf among them, are as if they were not there."""
    penalty, _ = TERMS[name]
    x = random_array((2, 3, 4), dtype)
    padded = np.concatenate(
        [x, np.full((2, 2, 4), np.nan).astype(x.dtype), np.full((2, 1, 4), np.inf).astype(x.dtype)], 1
    )
    mask = np.array([[True] * 3 + [False] * 3] * 2)
    options: dict[str, Any] = {"mean_over": ("batch", "time")}
    assert ar.value(penalty, padded, mask=mask, **options) == pytest.approx(
        float(ar.value(penalty, x, **options)), rel=1e-6
    )
    gradient = ar.gradient(penalty, padded, mask=mask, **options)
    assert not gradient[:, 3:].astype(float).any()
    assert np.isfinite(gradient.astype(float)).all()


class TestSpecialValues:
    """Zeros, NaN, inf, empty tensors, overflow."""

    @dtypes
    def test_a1_the_gradient_of_l1_at_zero_is_zero(self, dtype: str) -> None:
        zeros = np.array([0.0, -0.0]).astype(DTYPES[dtype])
        for penalty in (ar.L1(1.0), ar.L1L2(1.0, 1.0), 3 * ar.L1(1.0)):
            assert (ar.gradient(penalty, zeros) == 0).all()

    @dtypes
    def test_nan_stays_at_its_element(self, dtype: str) -> None:
        x = np.array([1.0, np.nan, -1.0]).astype(DTYPES[dtype])
        for penalty in (ar.L1(1.0), ar.L2(0.5), ar.L1L2(1.0, 0.5)):
            assert np.isnan(ar.value(penalty, x))
            gradient = ar.gradient(penalty, x).astype(float)
            assert np.isnan(gradient).tolist() == [False, True, False]

    @dtypes
    def test_infinity(self, dtype: str) -> None:
        x = np.array([1.0, -np.inf]).astype(DTYPES[dtype])
        assert ar.value(ar.L1(0.5), x) == np.inf
        assert ar.gradient(ar.L1(0.5), x).tolist() == [0.5, -0.5]
        assert ar.value(ar.L2(0.5), x) == np.inf
        assert ar.gradient(ar.L2(0.5), x).tolist() == [1.0, -np.inf]

    @dtypes
    def test_a10_a_coefficient_of_zero(self, dtype: str) -> None:
        x = random_array((5, 3), dtype)
        for penalty in (ar.L1(0), ar.L2(0.0), ar.L1L2(0, 0), 0 * ar.L1(3.0), 0 * ar.L1(1.0) + 0 * ar.L2(1.0)):
            assert ar.value(penalty, x) == 0
            assert not ar.gradient(penalty, x).astype(float).any()

    @dtypes
    @pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
    @pytest.mark.parametrize("mean_over", ["sum", "mean"])
    def test_a10_empty(self, dtype: str, shape: tuple[int, ...], mean_over: str) -> None:
        x = np.zeros(shape, DTYPES[dtype])
        for options in ({}, {"mask": np.zeros(shape[:1], bool)}):
            value = ar.value(ar.L1L2(1.0, 1.0), x, mean_over=mean_over, **options)
            gradient = ar.gradient(ar.L1L2(1.0, 1.0), x, mean_over=mean_over, **options)
            assert value == 0
            assert (gradient.shape, gradient.dtype) == (shape, x.dtype)

    @dtypes
    def test_a10_everything_masked(self, dtype: str) -> None:
        x = special_arrays(dtype)["all"].reshape(4, 4)
        for mean_over in ("sum", "batchmean", "mean"):
            options: dict[str, Any] = {"mask": np.zeros(4, bool), "mean_over": mean_over}
            assert ar.value(ar.L1L2(1.0, 1.0), x, **options) == 0
            assert not ar.gradient(ar.L1L2(1.0, 1.0), x, **options).astype(float).any()

    @dtypes
    def test_no_axes(self, dtype: str) -> None:
        x = np.array(-1.5).astype(DTYPES[dtype])
        assert ar.value(ar.L1L2(1.0, 2.0), x) == 6.0
        gradient = ar.gradient(ar.L1L2(1.0, 2.0), x)
        assert (gradient.shape, gradient.dtype, float(gradient)) == ((), x.dtype, -7.0)
        assert ar.value(ar.L1(1.0), x, mask=np.array(False)) == 0

    def test_a5_float16_does_not_overflow_inside(self) -> None:
        x = np.full((8, 64), 8.0, np.float16)
        value = ar.value(ar.L2(1.0), x)
        assert (value, value.dtype) == (32768.0, np.float32)
        x = np.full(1000, 200.0, np.float16)
        assert ar.value(ar.L2(1.0), x) == 4e7
        assert np.square(x.astype(np.float32)).sum() > np.finfo(np.float16).max

    def test_values_round_to_infinity_only_beyond_the_range_of_float32(self) -> None:
        largest = np.array([np.finfo(np.float32).max])
        assert ar.value(ar.L1(1.0), largest.astype(np.float32)) == largest[0].astype(np.float32)
        assert ar.value(ar.L1(2.0), largest.astype(np.float32)) == np.inf

    def test_a6_the_coefficient_is_not_rounded_to_the_dtype(self) -> None:
        x = np.ones(3, np.float16)
        assert float(ar.value(ar.L1(0.1), x)) == float(np.float32(3 * 0.1))
        assert float(ar.value(ar.L1(1e-9), np.ones(1000, np.float16))) == float(np.float32(1e-6))

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
    def test_subnormal_numbers_count_as_zero(self, dtype: str) -> None:
        tiny = float(ml_dtypes.finfo(DTYPES[dtype]).smallest_normal)
        x = np.array([tiny / 2, -tiny / 2, tiny, 0.0]).astype(DTYPES[dtype])
        assert ar.gradient(ar.L1(1.0), x).astype(float).tolist() == [0.0, 0.0, 1.0, 0.0]

    def test_subnormal_float16_counts(self) -> None:
        x = np.array([6e-8, -6e-8], np.float16)
        assert ar.gradient(ar.L1(1.0), x).tolist() == [1.0, -1.0]
        assert ar.value(ar.L1(1.0), x) > 0

    def test_no_warnings_are_printed(self) -> None:
        """Warnings are errors in these tests."""
        for dtype in DTYPES:
            for x in special_arrays(dtype).values():
                ar.value(ar.L1L2(1e30, 1e30), x)
                ar.gradient(ar.L1L2(1e300, 1e30), x, cotangent=1e300)


class TestResults:
    """What comes back."""

    @dtypes
    def test_dtypes(self, dtype: str) -> None:
        x = random_array((2, 3), dtype)
        for options in ({}, {"mask": np.ones(2, bool)}, {"mean_over": "mean"}):
            value = ar.value(ar.L1(1.0) + ar.L2(1.0), x, **options)
            assert isinstance(value, np.floating)
            assert value.dtype == (np.float64 if dtype == "float64" else np.float32)
            gradient = ar.gradient(ar.L1(1.0) + ar.L2(1.0), x, **options)
            assert (gradient.dtype, gradient.shape) == (x.dtype, x.shape)

    def test_python_numbers_and_lists(self) -> None:
        assert ar.value(ar.L1(1.0), -2.5) == 2.5
        assert ar.value(ar.L1(1.0), [[1.0, -2.0]], mean_over="mean") == 1.5
        assert ar.value(ar.L1(1.0), [1.0, 2.0], mask=[True, False]) == 1.0

    @dtypes
    def test_any_memory_layout(self, dtype: str) -> None:
        x = random_array((4, 6, 5), dtype)
        for view in (x.T, x[::2, ::-1, 1::3], np.asfortranarray(x), x[:, 2]):
            whole = np.ascontiguousarray(view)
            assert_same_bits(ar.value(ar.L2(0.3), view), ar.value(ar.L2(0.3), whole), "value")
            assert_same_bits(ar.gradient(ar.L2(0.3), view), ar.gradient(ar.L2(0.3), whole), "gradient")

    def test_the_input_is_left_alone(self) -> None:
        x = special_arrays("float32")["all"]
        x.setflags(write=False)
        before = x.tobytes()
        ar.value(ar.L1L2(1.0, 1.0), x)
        ar.gradient(ar.L1L2(1.0, 1.0), x)
        assert x.tobytes() == before

    def test_the_cotangent_multiplies(self) -> None:
        x = random_array((7,), "float32")
        doubled = ar.gradient(ar.L2(0.3), x, cotangent=2.0)
        assert_same_bits(doubled, 2 * ar.gradient(ar.L2(0.3), x), "power of two")
        rounded_first = ar.gradient(ar.L2(0.3), x, cotangent=0.1)
        assert_same_bits(rounded_first, ar.gradient(ar.L2(0.3), x, cotangent=float(np.float32(0.1))), "float32")
        for one in (1, 1.0, np.float32(1), np.array(1.0), ml_dtypes.bfloat16(1)):
            assert_same_bits(ar.gradient(ar.L2(0.3), x, cotangent=one), ar.gradient(ar.L2(0.3), x), "one")
        assert np.isnan(ar.gradient(ar.L2(0.3), x, cotangent=np.nan)).all()
        assert ar.gradient(ar.L1(1.0), np.ones(1, np.float32), cotangent=1e300) == np.inf

    @dtypes
    def test_one_large_tensor_is_worked_on_in_blocks_with_the_same_bits(self, dtype: str) -> None:
        x = random_array((3, BLOCK + 1), dtype)
        all_valid = np.ones(3, bool)
        in_blocks, whole = ar.value(ar.L2(0.3), x), ar.value(ar.L2(0.3), x, mask=all_valid)
        assert_same_bits(in_blocks, whole, "value")
        assert_same_bits(ar.gradient(ar.L2(0.3), x), ar.gradient(ar.L2(0.3), x, mask=all_valid), "gradient")
