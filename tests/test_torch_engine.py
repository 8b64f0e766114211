"""The torch engine beyond value and gradient: higher orders, transforms, layouts, autocast, errors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

import arspec as ar
from arspec_torch import value
from bits import assert_same_bits
from cases import random_array
from modes.torch_modes import to_numpy, to_torch

PENALTIES = {
    "l1": ar.L1(0.3),
    "l2": ar.L2(0.7),
    "l1_l2": ar.L1L2(0.2, 0.45),
    "sum": ar.L1(1e-4) + 0.5 * ar.L2(1e-3),
}
CURVATURE = {"l1": 0.0, "l2": 1.4, "l1_l2": 0.9, "sum": 1e-3}
penalties = pytest.mark.parametrize("name", PENALTIES)
dtypes = pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])


def of(name: str, **options: Any) -> Callable[..., Tensor]:
    return lambda x, **more: value(PENALTIES[name], x, **options, **more)


def kinked() -> Tensor:
    return torch.tensor([-2.0, 0.0, -0.0, 0.5, 3.0])


def gradient(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x), x)[0]


class TestSecondOrder:
    """Curvature is that of our gradient: constant, at a kink too."""

    @penalties
    @pytest.mark.parametrize(
        "second",
        [
            hessian,
            lambda f: jacfwd(grad(f)),
            lambda f: jacrev(grad(f)),
            lambda f: jacrev(jacfwd(f)),
            lambda f: lambda x: torch.autograd.functional.hessian(f, x),
            lambda f: lambda x: torch.autograd.functional.hessian(f, x, vectorize=True),
        ],
        ids=["hessian", "jacfwd grad", "jacrev grad", "jacrev jacfwd", "autograd", "autograd vectorized"],
    )
    def test_hessian(self, name: str, second: Any) -> None:
        expected = torch.eye(5) * CURVATURE[name]
        torch.testing.assert_close(second(of(name))(kinked()), expected, rtol=1e-6, atol=0)

    def test_forward_over_forward_is_right_or_refused(self) -> None:
        """torch drops the outer tangent of a custom function: a silent zero."""
        with pytest.raises(ar.UnsupportedError, match=r"forward mode inside forward mode.*hessian"):
            jacfwd(jacfwd(of("l2")))(kinked())

    @penalties
    def test_double_backward(self, name: str) -> None:
        x = kinked().requires_grad_()
        (first,) = torch.autograd.grad(of(name)(x), x, create_graph=True)
        assert_same_bits(first.detach().numpy(), ar.gradient(PENALTIES[name], x.detach().numpy()), "first")
        (second,) = torch.autograd.grad(first.square().sum(), x)
        torch.testing.assert_close(second, 2 * first.detach() * CURVATURE[name], rtol=1e-6, atol=0)

    def test_the_gradient_penalty_of_a_network_trains(self) -> None:
        """A loss on the gradient of the penalty reaches the weights: the derivative by hand."""
        layer = nn.Linear(3, 4, bias=False)
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
        h = layer(x)
        (of_h,) = torch.autograd.grad(of("l2", mean_over="batchmean")(h), h, create_graph=True)
        of_h.square().sum().backward()
        expected = (1.4 / 5) ** 2 * 2 * h.detach().T @ x
        torch.testing.assert_close(layer.weight.grad, expected)

    @penalties
    @pytest.mark.parametrize("mean_over", ["sum", "batchmean", "mean"])
    def test_numerical_derivatives(self, name: str, mean_over: str) -> None:
        x = torch.from_numpy(random_array((3, 4), "float64"))
        x = torch.where(x.abs() < 0.01, torch.full_like(x, 0.5), x).clamp(-8, 8).requires_grad_()
        function = of(name, mean_over=mean_over)
        assert gradcheck(function, x, check_forward_ad=True)
        assert gradgradcheck(function, x)
        mask = torch.tensor([True, False, True])
        assert gradcheck(lambda x: function(x, mask=mask), x, check_forward_ad=True)
        assert gradgradcheck(lambda x: function(x, mask=mask), x)


class TestForwardMode:
    """Tangents are gradients times directions."""

    @penalties
    def test_func_jvp(self, name: str) -> None:
        x, direction = kinked(), torch.tensor([1.0, 2.0, -1.0, 0.5, 4.0])
        found, tangent = jvp(of(name), (x,), (direction,))
        assert found == of(name)(x)
        expected = ar.gradient(PENALTIES[name], x.numpy()).astype(np.float64) @ direction.numpy().astype(np.float64)
        assert tangent.dtype == torch.float32
        assert tangent.item() == pytest.approx(expected, rel=1e-6)

    @dtypes
    def test_dual_numbers(self, dtype: str) -> None:
        x = to_torch(random_array((6,), dtype))
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, torch.ones_like(x))
            found = forward_ad.unpack_dual(of("l1_l2")(dual))
        expected = ar.gradient(ar.L1L2(0.2, 0.45), to_numpy(x)).astype(np.float64).sum()
        assert found.primal == of("l1_l2")(x)
        assert found.tangent.item() == pytest.approx(expected, rel=1e-2 if "16" in dtype else 1e-6)


class TestVmap:
    """Mapped calls give the bits of single calls."""

    @penalties
    @dtypes
    @pytest.mark.parametrize("axis", [0, 1, 2, -1])
    def test_in_dims(self, name: str, dtype: str, axis: int) -> None:
        x = to_torch(random_array((3, 5, 4), dtype))
        function = of(name, mean_over="batchmean")
        values = vmap(function, in_dims=axis)(x)
        gradients = vmap(grad(function), in_dims=axis, out_dims=axis)(x)
        assert gradients.shape == x.shape
        for index in range(x.shape[axis]):
            single = x.select(axis, index)
            assert_same_bits(to_numpy(values[index]), to_numpy(function(single)), "value")
            one = gradient(single, function)
            assert_same_bits(to_numpy(gradients.select(axis, index)), to_numpy(one), "gradient")

    def test_nested(self) -> None:
        x = torch.randn(2, 3, 4, 5)
        mapped = vmap(vmap(of("l1_l2", mean_over="mean"), in_dims=1), in_dims=1)(x)
        assert mapped.shape == (3, 4)
        assert mapped[2, 1] == of("l1_l2", mean_over="mean")(x[:, 2, :][:, 1])

    @pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0)])
    def test_masks_may_be_mapped(self, in_dims: tuple[int | None, int | None]) -> None:
        x, mask = torch.randn(3, 5, 4), torch.rand(3, 5, generator=torch.Generator().manual_seed(0)) < 0.6
        given = (x if in_dims[0] == 0 else x[0], mask if in_dims[1] == 0 else mask[0])

        def function(x: Tensor, mask: Tensor) -> Tensor:
            return value(ar.L1L2(0.2, 0.45), x, mask=mask, mean_over="batchmean")

        mapped = vmap(function, in_dims=in_dims)(*given)
        gradients = vmap(grad(function), in_dims=in_dims)(*given)
        for index in range(3):
            one = tuple(g[index] if d == 0 else g for g, d in zip(given, in_dims, strict=True))
            assert mapped[index] == function(*one)
            expected = ar.gradient(ar.L1L2(0.2, 0.45), one[0].numpy(), mask=one[1].numpy(), mean_over="batchmean")
            assert_same_bits(gradients[index].numpy(), expected, "gradient")

    def test_per_example_gradients_of_a_network(self) -> None:
        layer = nn.Linear(3, 4)
        x = torch.randn(5, 3)

        def loss(weight: Tensor, example: Tensor) -> Tensor:
            return value(ar.L2(0.5), torch.nn.functional.linear(example, weight, layer.bias))

        mapped = vmap(grad(loss), in_dims=(None, 0))(layer.weight.detach(), x)
        for index in range(5):
            torch.testing.assert_close(mapped[index], grad(loss)(layer.weight.detach(), x[index]))

    def test_batched_cotangents(self) -> None:
        x = kinked().requires_grad_()
        found = of("l1_l2")(x)
        scales = torch.tensor([1.0, -2.0, 0.5])
        (batched,) = torch.autograd.grad(found, x, scales, is_grads_batched=True)
        for scale, row in zip(scales, batched, strict=True):
            expected = ar.gradient(ar.L1L2(0.2, 0.45), x.detach().numpy(), cotangent=scale.item())
            assert_same_bits(row.numpy(), expected, "gradient")


class TestPrecision:
    """float32 out of everything narrower, whatever surrounds the call."""

    @dtypes
    def test_dtypes(self, dtype: str) -> None:
        x = to_torch(random_array((4, 3), dtype)).requires_grad_()
        found = of("l1_l2", mean_over="mean")(x)
        assert found.dtype == (torch.float64 if dtype == "float64" else torch.float32)
        assert found.shape == ()
        found.backward()
        assert (x.grad.dtype, x.grad.shape) == (x.dtype, x.shape)

    @pytest.mark.parametrize("default", [torch.float64, torch.float16])
    def test_the_default_dtype_does_not_matter(self, default: torch.dtype) -> None:
        x = random_array((7,), "float32")
        before = torch.get_default_dtype()
        torch.set_default_dtype(default)
        try:
            tensor = torch.from_numpy(x).requires_grad_()
            found = of("sum", mean_over="mean")(tensor)
            found.backward()
        finally:
            torch.set_default_dtype(before)
        assert_same_bits(found.detach().numpy(), ar.value(PENALTIES["sum"], x, mean_over="mean"), "value")
        assert_same_bits(tensor.grad.numpy(), ar.gradient(PENALTIES["sum"], x, mean_over="mean"), "gradient")

    @penalties
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_a5_autocast_changes_nothing(self, name: str, dtype: str) -> None:
        x = random_array((9, 5), dtype)
        tensor = to_torch(x).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = of(name, mean_over="batchmean")(tensor)
        found.backward()
        assert_same_bits(to_numpy(found), ar.value(PENALTIES[name], x, mean_over="batchmean"), "value")
        assert_same_bits(to_numpy(tensor.grad), ar.gradient(PENALTIES[name], x, mean_over="batchmean"), "gradient")

    def test_autocast_around_a_layer(self) -> None:
        """What is penalized is what the layer gives: bfloat16; what comes back is float32."""
        layer = nn.Linear(4, 6)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = layer(torch.randn(3, 4))
            found = of("l1_l2")(h)
        assert (h.dtype, found.dtype) == (torch.bfloat16, torch.float32)
        assert_same_bits(to_numpy(found), ar.value(PENALTIES["l1_l2"], to_numpy(h)), "value")
        found.backward()
        assert layer.weight.grad.dtype == torch.float32

    @pytest.mark.parametrize("scale", [2.0**16, 65536.0 / 3])
    def test_c16_loss_scaling_scales_the_penalty_like_the_loss(self, scale: float) -> None:
        x = random_array((8,), "float16") / np.float16(16)
        tensor = to_torch(x).requires_grad_()
        task = tensor.float().sum() * 1e-4
        ((task + of("sum")(tensor)) * scale).backward()
        alone = ar.gradient(PENALTIES["sum"], x, cotangent=scale).astype(np.float32)
        rest = np.float16(np.float32(1e-4) * np.float32(scale)).astype(np.float32)
        np.testing.assert_allclose(tensor.grad.float().numpy(), alone + rest, rtol=2**-9)

    def test_c16_a_scaled_loss_that_overflows_is_seen(self) -> None:
        """GradScaler skips a step where it finds inf; the penalty must not hide it."""
        tensor = torch.full((3,), 1000.0, dtype=torch.float16, requires_grad=True)
        (of("l2")(tensor) * 2.0**16).backward()
        assert tensor.grad.isinf().all()


class TestLayouts:
    """Any strides, any size."""

    @pytest.mark.parametrize(
        "view",
        [
            lambda x: x.T,
            lambda x: x[::2, 1::3],
            lambda x: x[:, 2],
            lambda x: x.unsqueeze(1).expand(-1, 3, -1),
            lambda x: x.flatten().unfold(0, 3, 2),
            lambda x: x.view(2, 3, 7).permute(2, 0, 1),
        ],
        ids=["transposed", "strided", "column", "expanded", "overlapping", "permuted"],
    )
    def test_views(self, view: Callable[[Tensor], Tensor]) -> None:
        x = torch.from_numpy(random_array((6, 7), "float32")).requires_grad_()
        seen = view(x)
        seen.retain_grad()
        found = of("l1_l2")(seen)
        assert_same_bits(found.detach().numpy(), ar.value(PENALTIES["l1_l2"], seen.detach().numpy()), "value")
        found.backward()
        assert_same_bits(seen.grad.numpy(), ar.gradient(PENALTIES["l1_l2"], seen.detach().numpy()), "gradient")
        reached = torch.autograd.grad(view(x), x, seen.grad)[0]
        assert_same_bits(x.grad.numpy(), reached.numpy(), "through the view")

    def test_gradients_reach_the_base_through_a_view_only(self) -> None:
        base = torch.ones(4, requires_grad=True)
        part = base[:2]
        of("l2")(part).backward()
        assert base.grad.tolist() == pytest.approx([1.4, 1.4, 0.0, 0.0])

    def test_channels_last(self) -> None:
        x = torch.from_numpy(random_array((2, 3, 4, 5), "float32"))
        last = x.to(memory_format=torch.channels_last).requires_grad_()
        options: dict[str, Any] = {"axes": "batch feature height width", "mean_over": ("batch", "height", "width")}
        found = value(PENALTIES["l1_l2"], last, **options)
        found.backward()
        assert_same_bits(found.detach().numpy(), ar.value(PENALTIES["l1_l2"], x.numpy(), **options), "value")
        assert_same_bits(last.grad.numpy(), ar.gradient(PENALTIES["l1_l2"], x.numpy(), **options), "gradient")

    @pytest.mark.parametrize("size", [(1 << 17) + 5, (1 << 20) + 3])
    @pytest.mark.parametrize("threads", [1, 2])
    def test_large_and_non_contiguous(self, size: int, threads: int) -> None:
        x = random_array((size, 2), "float32")
        tensor = torch.from_numpy(x).requires_grad_()
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            found = of("l2", mean_over="batchmean")(tensor.T[:1].T)
            found.backward()
        finally:
            torch.set_num_threads(before)
        assert_same_bits(found.detach().numpy(), ar.value(ar.L2(0.7), x[:, :1], mean_over="batchmean"), "value")
        assert_same_bits(tensor.grad.numpy()[:, :1], ar.gradient(ar.L2(0.7), x[:, :1], mean_over="batchmean"), "slope")
        assert not tensor.grad[:, 1].any()

    @dtypes
    def test_no_axes_and_no_elements(self, dtype: str) -> None:
        for x in (random_array((), dtype), random_array((0, 3), dtype), random_array((2, 0), dtype)):
            tensor = to_torch(x).requires_grad_()
            found = of("l1_l2")(tensor)
            found.backward()
            assert_same_bits(to_numpy(found), ar.value(PENALTIES["l1_l2"], x), "value")
            assert_same_bits(to_numpy(tensor.grad), ar.gradient(PENALTIES["l1_l2"], x), "gradient")

    def test_the_tensor_is_left_alone_and_no_graph_is_made_without_need(self) -> None:
        x = kinked()
        found = of("l1_l2")(x)
        assert not found.requires_grad
        assert x.equal(kinked())
        with torch.no_grad():
            assert not of("l1_l2")(kinked().requires_grad_()).requires_grad
        with torch.inference_mode():
            assert of("l1_l2")(kinked()) == found
        parameter = nn.Parameter(kinked())
        assert type(of("l1_l2")(parameter)) is Tensor

    def test_backward_twice_accumulates(self) -> None:
        x = kinked().requires_grad_()
        found = of("l1_l2")(x)
        found.backward(retain_graph=True)
        once = x.grad.clone()
        found.backward()
        assert x.grad.equal(2 * once)


class TestCompile:
    """Sizes that change: right every time."""

    @pytest.mark.parametrize("dynamic", [None, True, False])
    def test_changing_batch_sizes(self, dynamic: bool | None) -> None:
        torch._dynamo.reset()
        function = torch.compile(of("l1_l2", mean_over="batchmean"), dynamic=dynamic)
        for size in (3, 5, 8, 1):
            x = random_array((size, 4), "float32", seed=size)
            tensor = torch.from_numpy(x).requires_grad_()
            found = function(tensor)
            found.backward()
            assert_same_bits(found.detach().numpy(), ar.value(PENALTIES["l1_l2"], x, mean_over="batchmean"), "value")
            expected = ar.gradient(PENALTIES["l1_l2"], x, mean_over="batchmean")
            assert_same_bits(tensor.grad.numpy(), expected, "gradient")

    def test_a_size_that_must_stay_open_is_refused_by_torch(self) -> None:
        """The order of the sum depends on the size: a graph for all sizes cannot be."""
        torch._dynamo.reset()
        x = torch.randn(6, 4)
        torch._dynamo.mark_dynamic(x, 0)
        with pytest.raises(Exception, match=r"marked .* as dynamic but your code specialized it to be a constant"):
            torch.compile(of("l1_l2"))(x)
        torch._dynamo.reset()

    def test_a_training_step_in_one_graph(self) -> None:
        torch._dynamo.reset()
        layer = nn.Linear(4, 3)
        x = torch.randn(6, 4)

        def loss(x: Tensor) -> Tensor:
            return of("l1_l2", mean_over="batchmean")(layer(x)) + of("l2")(layer.weight)

        explained = torch._dynamo.explain(loss)(x)
        assert (explained.graph_count, explained.graph_break_count) == (1, 0)
        torch.compile(loss, fullgraph=True)(x).backward()
        compiled = layer.weight.grad.clone()
        layer.weight.grad = None
        loss(x).backward()
        torch.testing.assert_close(compiled, layer.weight.grad)
        torch._dynamo.reset()


class TestErrors:
    """What cannot be penalized says so."""

    @pytest.mark.parametrize(
        "dtype", [torch.int64, torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2]
    )
    def test_dtypes(self, dtype: torch.dtype) -> None:
        name = str(dtype).removeprefix("torch.")
        with pytest.raises(ar.SpecError) as error:
            value(ar.L1(1.0), torch.zeros(3).to(dtype))
        assert str(error.value) == (
            f"x is {name}; expected one of float16, bfloat16, float32, float64. Convert it, for example to float32."
        )

    def test_complex(self) -> None:
        with pytest.raises(ar.UnsupportedError, match="x is complex64; penalties of complex tensors are not defined"):
            value(ar.L1(1.0), torch.zeros(3, dtype=torch.complex64))

    @pytest.mark.parametrize("x", [np.ones(3), [1.0], 1.0, None])
    def test_not_a_tensor(self, x: Any) -> None:
        with pytest.raises(ar.UnsupportedError) as error:
            value(ar.L1(1.0), x)
        kind = type(x).__name__
        assert str(error.value) == f"x is a {kind}; expected a torch.Tensor. For NumPy call arspec.value."

    @pytest.mark.parametrize("mask", [np.ones(3, bool), [True] * 3])
    def test_mask_not_a_tensor(self, mask: Any) -> None:
        with pytest.raises(ar.SpecError, match=rf"mask is a {type(mask).__name__}; expected a torch.Tensor of bool"):
            value(ar.L1(1.0), torch.ones(3), mask=mask)

    def test_mask_of_another_dtype_or_shape(self) -> None:
        with pytest.raises(ar.SpecError, match="mask has dtype int64; expected bool, true where x is valid"):
            value(ar.L1(1.0), torch.ones(3), mask=torch.ones(3, dtype=torch.int64))
        with pytest.raises(ar.SpecError, match=r"mask has shape \(2,\); expected the leading axes of x, whose shape"):
            value(ar.L1(1.0), torch.ones(3), mask=torch.ones(2, dtype=torch.bool))

    def test_not_a_penalty(self) -> None:
        with pytest.raises(ar.SpecError, match="3 is not a penalty"):
            value(3, torch.ones(3))

    @pytest.mark.parametrize("layout", ["sparse_coo", "sparse_csr"])
    @pytest.mark.filterwarnings("ignore:Sparse .* support is in beta")
    def test_sparse(self, layout: str) -> None:
        x = torch.eye(3).to_sparse() if layout == "sparse_coo" else torch.eye(3).to_sparse_csr()
        with pytest.raises(ar.UnsupportedError, match=rf"x has the layout torch\.{layout}.*to_dense\(\)"):
            value(ar.L1(1.0), x)

    def test_nested(self) -> None:
        x = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
        with pytest.raises(ar.UnsupportedError, match=r"nested tensor.*mask"):
            value(ar.L1(1.0), x)

    def test_meta_tensors_have_a_shape_and_no_number(self) -> None:
        found = value(ar.L1(1.0), torch.ones(3, 4, device="meta", requires_grad=True))
        assert (found.device.type, found.shape, found.dtype) == ("meta", (), torch.float32)


@pytest.mark.parametrize("penalty", [ar.L1(1e-3), ar.KLSparsity(1e-3, target=0.05)])
def test_a_large_tensor_compiles_without_a_graph_break(penalty: ar.Penalty) -> None:
    x = torch.rand(2, (1 << 16) + 3, requires_grad=True)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return value(penalty, x, mean_over=("batch",))

    torch.compile(loss, fullgraph=True, backend="aot_eager")(x).backward()
    expected = ar.gradient(penalty, x.detach().numpy(), mean_over=("batch",))
    np.testing.assert_array_equal(x.grad, expected)
