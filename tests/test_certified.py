"""Sums in any order: only where every order rounds to the number of the definition."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import arspec as ar
import arspec_torch
from arspec import _certified
from arspec._axes import resolve_axes
from arspec._evaluate import prepare, with_mask
from arspec._numpy import NumpyNamespace
from arspec.penalties._base import components
from arspec_torch._plain import NUMPY
from family import FAMILY

REFERENCE = NumpyNamespace()
FLAGGED = {label: penalty for label, penalty in FAMILY.items() if getattr(penalty, "non_negative", False)}
ELEMENTWISE = {label: penalty for label, penalty in FLAGGED.items() if penalty.elementwise}
COUPLED = {label: penalty for label, penalty in FLAGGED.items() if not penalty.elementwise}
UNIT = st.floats(0.0, 1.0, width=32)
FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)


def certified(penalty: Any, x: np.ndarray) -> np.float32 | None:
    axes = prepare(penalty, x, xp=NUMPY, axes=None, mean_over=())
    with np.errstate(all="ignore"):
        return _certified.value(components(penalty), x, NUMPY, axes)


def test_which_penalties_are_flagged() -> None:
    names = {type(penalty).__name__ for penalty in ELEMENTWISE.values()}
    assert names >= {"L1", "L2", "L1L2", "Lp", "Huber", "PseudoHuber", "StudentT", "SmoothL1", "Tanh", "Binarize"}
    assert {type(penalty).__name__ for penalty in COUPLED.values()} >= {"KLSparsity", "GroupLasso", "L2Norm", "Hoyer"}


@pytest.mark.parametrize("label", ELEMENTWISE)
@given(x=hnp.arrays(np.float32, hnp.array_shapes(max_dims=2, max_side=9), elements=FLOATS))
def test_terms_are_never_negative(label: str, x: np.ndarray) -> None:
    penalty = FLAGGED[label]
    axes = resolve_axes(x.ndim, None, ())
    with np.errstate(all="ignore"):
        terms = penalty.terms(REFERENCE.lift(x), xp=REFERENCE, axes=axes)
    assert not (terms < 0).any()


@pytest.mark.parametrize("label", COUPLED)
@given(x=hnp.arrays(np.float32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=FLOATS | UNIT))
def test_terms_of_groups_and_steps_are_never_negative(label: str, x: np.ndarray) -> None:
    penalty = COUPLED[label]
    with np.errstate(all="ignore"):
        for mean_over in ("sum", "batchmean", "mean"):
            axes = resolve_axes(3, None, mean_over)
            assert not (penalty.terms(REFERENCE.lift(x), xp=REFERENCE, axes=axes) < 0).any()


@pytest.mark.parametrize("label", ELEMENTWISE)
@pytest.mark.parametrize("size", [1, 7, 1000, 3 * (1 << 16) + 5])
def test_a_certified_value_is_the_definition_s(label: str, size: int) -> None:
    generator = np.random.default_rng(size)
    found = 0
    for scale in (1e-30, 0.01, 1.0, 1e30):
        x = (scale * generator.uniform(0.0, 1.0, size)).astype(np.float32)
        quick = certified(FLAGGED[label], x)
        found += quick is not None
        assert quick is None or quick == ar.value(FLAGGED[label], x)
    assert found >= 2


def test_a_tie_is_left_to_the_definition() -> None:
    x = np.array([1.0, 2.0**-24], np.float32)  # halfway between two numbers of float32
    assert certified(ar.L1(1.0), x) is None
    assert certified(ar.L1(1.0), x[:1]) == 1.0
    assert arspec_torch.value(ar.L1(1.0), torch.from_numpy(x)).item() == ar.value(ar.L1(1.0), x) == 1.0


@pytest.mark.parametrize("special", [np.nan, np.inf, 3e38])
def test_special_values_and_overflow(special: float) -> None:
    x = np.full(70_000, special, np.float32)
    for penalty in (ar.L1(1.0), ar.L2(1.0)):
        got = arspec_torch.value(penalty, torch.from_numpy(x)).numpy()
        np.testing.assert_array_equal(got, ar.value(penalty, x))


def test_float64_and_masks_have_no_certificate() -> None:
    assert certified(ar.L1(1.0), np.ones(3)) is None
    assert certified(ar.LInf(1.0), np.ones((3, 3), np.float32)) is None
    x = np.ones((3, 2), np.float32)
    assert certified(ar.L1(1.0), x) == 6.0
    axes = with_mask(prepare(ar.L1(1.0), x, xp=NUMPY, axes=None, mean_over=()), np.array([True] * 3), x, NUMPY)
    assert _certified.value(components(ar.L1(1.0)), x, NUMPY, axes) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@given(
    x=hnp.arrays(np.float32, hnp.array_shapes(max_dims=1, max_side=9), elements=FLOATS),
    coefficient=st.floats(0.0, 1e300),
    cotangent=st.floats(width=32, allow_nan=False),
)
def test_the_gradient_of_an_exact_penalty(
    dtype: torch.dtype, x: np.ndarray, coefficient: float, cotangent: float
) -> None:
    tensor = torch.from_numpy(x).to(dtype).requires_grad_()
    arspec_torch.value(ar.L1(coefficient), tensor).backward(torch.tensor(cotangent))
    assert tensor.grad is not None
    given = tensor.detach().float().numpy()
    expected = ar.gradient(ar.L1(coefficient), given, cotangent=cotangent)
    rounded = torch.from_numpy(np.asarray(expected)).to(dtype).float().numpy()
    got = tensor.grad.float().numpy()
    tiny = np.float32(2.0**-126)
    for array in (got, rounded):
        array[np.abs(array) < tiny] = 0.0
    np.testing.assert_array_equal(got, rounded)
