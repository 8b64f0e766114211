"""Torch tensors whose memory NumPy reads, and those that must stay in torch, have the same bits."""

from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
from torch.fx.experimental.proxy_tensor import make_fx

import arspec as ar
from arspec import _fusion
from arspec_torch import _kernels, _plain, value
from bits import assert_same_bits
from cases import DTYPES, random_array, special_arrays
from modes.torch_modes import eager, to_torch


@pytest.fixture(autouse=True)
def _without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here is what eager torch does where numba is not installed."""
    monkeypatch.setattr(_fusion, "available", lambda: False)


PENALTIES = {
    "l1": ar.L1(0.3),
    "l2": ar.L2(0.7),
    "l1_l2": ar.L1L2(0.2, 0.45),
    "sum": ar.L1(1e-4) + 0.5 * ar.L2(1e-3),
    "huber": ar.Huber(0.3, delta=0.5),
    "group_lasso": ar.GroupLasso(0.3, norm_over=("feature",)),
    "hoyer": ar.Hoyer(0.3),
    "total_variation": ar.TotalVariation(0.3, over=("feature",)),
}

penalties = pytest.mark.parametrize("penalty", PENALTIES)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def compare(penalty: ar.Penalty, x: np.ndarray, **options: Any) -> None:
    found, gradient = eager(penalty, x, cotangent=-0.37, **options)
    assert_same_bits(found, ar.value(penalty, x, **options), "value")
    assert_same_bits(gradient, ar.gradient(penalty, x, cotangent=-0.37, **options), "gradient")


@pytest.fixture
def torch_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no tensor be small: torch does all the work, in several blocks."""
    monkeypatch.setattr(_plain, "SMALL", 0)
    monkeypatch.setattr(_plain, "FEW_THREADS", 0)
    monkeypatch.setattr(_kernels, "BLOCK", 8)
    monkeypatch.setattr(_kernels, "THREADED_BLOCK", 8)


@pytest.mark.usefixtures("torch_kernels")
@dtypes
@penalties
def test_the_kernels_of_torch_have_the_same_bits(penalty: str, dtype: str) -> None:
    arrays = [random_array((5, 7), dtype), *special_arrays(dtype).values()]
    for x in arrays:
        compare(PENALTIES[penalty], x, mean_over=("batch",) if x.ndim > 1 else ())


@pytest.mark.parametrize("size", [_plain.SMALL, _plain.SMALL + 1, 3 * _kernels.BLOCK + 17])
@pytest.mark.parametrize("threads", [1, 2])
def test_sizes_around_the_limits(size: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for dtype in ("float32", "bfloat16"):
            compare(ar.L1(0.3) + ar.L2(0.1), random_array((size,), dtype))
    finally:
        torch.set_num_threads(before)


def test_which_tensors_are_plain() -> None:
    x = torch.ones(3)
    assert _plain.array_of(x) is not None
    assert _plain.array_of(torch.nn.Parameter(x)) is None
    with torch.no_grad():
        assert _plain.array_of(torch.nn.Parameter(x)) is not None
    seen = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(_plain.array_of(x) is None)
        return x.sum()

    torch.func.vmap(look)(x[None])
    torch.func.grad(look)(x)
    torch.func.jvp(look, (x,), (x,))
    make_fx(look)(x)
    assert seen == [True] * 4


@pytest.mark.parametrize("size", [6, 3 * _kernels.BLOCK])
def test_a_traced_function_follows_its_input(size: int) -> None:
    penalty, x = ar.L1(0.5) + ar.L2(0.25), random_array((size,), "float32")
    traced = make_fx(torch.func.grad(lambda x: value(penalty, x)))(torch.ones(size))
    assert_same_bits(traced(to_torch(x)).numpy(), ar.gradient(penalty, x), "traced gradient")


@pytest.mark.parametrize("size", [6, 3 * _kernels.BLOCK])
def test_vmap_over_the_cotangent_alone(size: int) -> None:
    penalty, x = ar.L1(0.5), random_array((size,), "float32")
    _, pull_back = torch.func.vjp(lambda x: value(penalty, x), to_torch(x))
    (rows,) = torch.func.vmap(pull_back)(torch.tensor([1.0, -2.0]))
    for row, cotangent in zip(rows, (1.0, -2.0), strict=True):
        assert_same_bits(row.numpy(), ar.gradient(penalty, x, cotangent=cotangent), "row")


@pytest.mark.parametrize("size", [6, _plain.SMALL + 1])
def test_forward_over_reverse_is_never_silently_zero(size: int) -> None:
    x, along = torch.linspace(-1, 2, size), torch.ones(size)
    hessian_product = torch.func.jvp(torch.func.grad(lambda x: value(ar.L2(0.5), x)), (x,), (along,))[1]
    assert torch.equal(hessian_product, along)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x.requires_grad_(), along)
        with pytest.raises(RuntimeError, match="Nested forward mode"):
            torch.autograd.grad(value(ar.L2(0.5), dual), dual)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo asks every tensor for it
@pytest.mark.parametrize("mask", [None, torch.tensor([True, False, True])])
def test_a_compiled_step_does_not_compile_the_backward_pass_of_every_penalty(mask: torch.Tensor | None) -> None:
    linear = torch.nn.Linear(2, 4)
    penalties = [ar.L1(0.1), ar.L2(0.1), ar.L1(0.1) + ar.L2(0.1), ar.Huber(0.1, delta=1.0), ar.Hoyer(0.1)]
    penalties += [ar.L1L2(0.1, 0.1), ar.StudentT(0.1), ar.Tanh(0.1), ar.Binarize(0.1), ar.L2Norm(0.1), ar.LInf(0.1)]
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True, recompile_limit=8):
        for penalty in penalties:
            outside = torch.compiler.disable(lambda h, penalty=penalty: value(penalty, h, mask=mask))

            def step(x: torch.Tensor, outside: Any = outside) -> None:
                h = linear(x)
                (h.sum() + outside(h)).backward()

            linear.zero_grad()
            torch.compile(step, backend="eager")(torch.ones(3, 2))
            assert linear.weight.grad is not None


def test_a_parameter_that_a_transformation_does_not_see() -> None:
    weight, x = torch.nn.Parameter(torch.tensor([2.0, -3.0])), torch.tensor([1.0, 4.0])

    def loss(x: torch.Tensor) -> torch.Tensor:
        return (weight * x).sum() + value(ar.L2(0.5), weight) + value(ar.L1(1.0), x)

    np.testing.assert_array_equal(torch.func.grad(loss)(x).detach().numpy(), [3.0, -2.0])
    np.testing.assert_array_equal(torch.func.jvp(loss, (x,), (x,))[1].detach().numpy(), -5.0)
    loss(x).backward()
    assert weight.grad is not None
    np.testing.assert_array_equal(weight.grad.numpy(), [3.0, 1.0])
