"""The torch tensor engine: the core's namespace over torch, and its custom gradient.

`value` turns any penalty into a differentiable scalar. The forward pass is the core's
value, the backward pass is the core's gradient; autograd never differentiates a formula
except for second derivatives, where it differentiates the core's gradient.
"""

import math
from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from arspec import _evaluate
from arspec._axes import Axes
from arspec._bounded import Bounded, chosen
from arspec._namespace import Namespace
from arspec.penalties import Penalty
from arspec_torch import _plain
from arspec_torch._checks import numerics_on, refuse_kinds, refuse_nested_forward_mode


class TorchNamespace(Namespace):
    """Hardened operations on torch tensors, eager, compiled, and under torch.func."""

    lib = torch
    mutable_arrays = True

    def dtype_name(self, x: Tensor) -> str:
        return str(x.dtype).removeprefix("torch.")

    def cast(self, x: Tensor | float, dtype: str) -> Tensor:
        return torch.as_tensor(x).to(getattr(torch, dtype))

    def guard(self, product: Tensor | float) -> Tensor | float:
        # Eager kernels do one operation each, and inductor's C++ is compiled without contraction;
        # its Triton kernels may fuse. On the CPU the three uses below would only make inductor
        # inline a chain of guards three times per link, which takes minutes to compile.
        if not isinstance(product, Tensor) or not torch.compiler.is_compiling() or product.device.type == "cpu":
            return product
        return torch.where(product == product, product, torch.nan)

    def bounded(self, dtype: str) -> Namespace:
        return BoundedTorchNamespace(dtype)

    def block_size(self, x: Tensor) -> int | None:
        if torch.compiler.is_compiling() or x.device.type != "cpu" or x.numel() <= BLOCK or _plain.array_of(x) is None:
            return None
        return BLOCK if torch.get_num_threads() == 1 else THREADED_BLOCK

    def zeros(self, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        return like.new_zeros(shape)

    def empty(self, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        return like.new_empty(shape)

    def sign(self, x: Tensor) -> Tensor:
        # A comparison with NaN takes torch ten times as long as a product and a clamp, which keeps NaN.
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.dtype not in HUGE:
            return super().sign(x)
        return torch.clamp(x * HUGE[x.dtype], -1.0, 1.0)

    def halve(self, x: Tensor, axis: int) -> Tensor:
        array = _plain.array_of(x) if x.numel() <= _plain.SMALL and x.dtype is torch.float64 else None
        return super().halve(x, axis) if array is None else torch.from_numpy(_plain.NUMPY.halve(array, axis))

    def sqrt(self, x: Tensor) -> Tensor:
        # Eager CPU kernels are up to 1 ulp off; one Newton step from the exact residual mends that.
        root = torch.sqrt(x)
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return self.guard(root)
        # Away from the ends of the range, where products of the residual overflow or lose bits.
        unit = self.where(x > 2.0**900, 2.0**-200, self.where(x < 2.0**-700, 2.0**200, 1.0))
        scaled = unit * root
        mended = root + exact_residual(x * unit * unit, scaled) / (unit * (scaled + scaled))
        # Just below a power of four the step ends halfway; √x < 2ᵏ never rounds up to 2ᵏ there.
        too_large = (mended + 2.0**-53 * mended == mended) & (x < mended * mended)
        mended = torch.where(too_large, (1.0 - 2.0**-53) * mended, mended)
        return torch.where((root == 0) | (root == torch.inf), root, mended)

    def raw_max(self, x: Tensor, axis: tuple[int, ...]) -> Tensor:
        return torch.amax(x, dim=axis, keepdim=True) if axis else x

    def raw_power(self, x: Tensor, exponent: float) -> Tensor:
        return torch.pow(x, exponent)

    def broadcast_to(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return x.expand(shape)  # torch.broadcast_to is not known to is_grads_batched

    def permute(self, x: Tensor, order: tuple[int, ...]) -> Tensor:
        return torch.permute(x, order)

    def constant(self, array: np.ndarray, like: Tensor) -> Tensor:
        return torch.as_tensor(array, device=like.device)

    def pullback(self, function: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor | float) -> Tensor:
        terms, pull = torch.func.vjp(function, x)
        return pull(torch.broadcast_to(torch.as_tensor(weight, dtype=terms.dtype, device=x.device), terms.shape))[0]

    def where(self, condition: Tensor, x: Tensor | float, y: Tensor | float) -> Tensor:
        # Of two plain numbers torch would make its default dtype, not float64.
        if not isinstance(x, Tensor) and not isinstance(y, Tensor):
            x = torch.as_tensor(x, dtype=getattr(torch, self.wide), device=condition.device)
        return torch.where(condition, x, y)

    def concat(self, parts: list[Tensor], axis: int) -> Tensor:
        return torch.cat(parts, dim=axis)

    def flush(self, x: Tensor, smallest: float) -> Tensor:
        # One kernel instead of three; hardshrink keeps |x| > bound and NaN, but has derivative 0 at 0.
        if torch.is_grad_enabled():
            return super().flush(x, smallest)
        largest_subnormal = math.nextafter(smallest, 0.0) if x.dtype is torch.float64 else smallest - 2.0**-149
        return torch.nn.functional.hardshrink(x, largest_subnormal)

    def stop_gradient(self, x: Tensor) -> Tensor:
        return x.detach()


def exact_residual(x: Tensor, root: Tensor) -> Tensor:
    """Return x - root² without rounding, the square split into exact products (T. J. Dekker, 1971)."""
    carried = 134217729.0 * root  # 2²⁷ + 1
    high = carried - (carried - root)
    low = root - high
    return ((x - high * high) - 2 * high * low) - low * low


# Times this, the smallest normal number is above 1.
HUGE = {torch.float32: 2.0**127, torch.float64: 2.0**1023}

# Larger than NumPy's: the operations of torch cost more to start.
BLOCK = 1 << 16

# Threads share the work of a block: fewer and larger ones, or waiting for each other costs more than it saves.
THREADED_BLOCK = 1 << 20


class BoundedTorchNamespace(Bounded, TorchNamespace):
    """torch's own sums and products in float32."""

    def raw_sum(self, x: Tensor, axis: int) -> Tensor:
        return torch.sum(x, dim=axis, keepdim=True)

    def sqrt(self, x: Tensor) -> Tensor:
        return torch.sqrt(x)


XP = TorchNamespace()


class _WholeNamespace(TorchNamespace):
    """Without blocks, which write into a buffer: vmap over the cotangent alone forbids that."""

    def block_size(self, x: Tensor) -> int | None:
        return None


_WHOLE = _WholeNamespace()


def _value(penalty: Penalty, x: Tensor, axes: Axes) -> Tensor:
    found = _plain.small_value(penalty, x, axes)
    return _evaluate.value(penalty, x, xp=XP, axes=axes) if found is None else found


def _gradient(penalty: Penalty, x: Tensor, cotangent: Tensor, axes: Axes) -> Tensor:
    found = _plain.small_gradient(penalty, x, cotangent, axes)
    if found is not None:
        return found
    xp = XP if _plain.array_of(cotangent) is not None else _WHOLE
    return _evaluate.gradient(penalty, x, cotangent, xp=xp, axes=axes)


class _Value(torch.autograd.Function):
    """Forward: the penalty of x. Backward: its gradient, itself differentiable."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, mask: Tensor | None, penalty: Penalty, axes: Axes) -> Tensor:
        return _value(penalty, x, _evaluate.attach_mask(axes, mask))

    forward.__signature__ = signature(forward)  # pyright: ignore[reportFunctionMemberAccess]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, mask, ctx.penalty, ctx.axes = inputs
        ctx.save_for_backward(x, mask)
        ctx.save_for_forward(x, mask)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        x, mask = ctx.saved_tensors
        if _is_first_order(x, cotangent):
            return _gradient(ctx.penalty, x, cotangent, _evaluate.attach_mask(ctx.axes, mask)), None, None, None
        return _apply(_Gradient, x, mask, cotangent, ctx.penalty, ctx.axes), None, None, None


class _Gradient(torch.autograd.Function):
    """Forward: cotangent · d penalty / d x. Backward: autograd of the core's gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, mask: Tensor | None, cotangent: Tensor, penalty: Penalty, axes: Axes) -> Tensor:
        return _gradient(penalty, x, cotangent, _evaluate.attach_mask(axes, mask))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, mask, cotangent, ctx.penalty, ctx.axes = inputs
        ctx.save_for_backward(x, mask, cotangent)
        ctx.save_for_forward(x, mask, cotangent)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, mask, cotangent = ctx.saved_tensors
        _, pull_back = torch.func.vjp(_wide_gradient(ctx, mask), x, cotangent)
        of_x, of_cotangent = pull_back(upstream.to(_working_dtype(ctx.axes)))
        return of_x, None, of_cotangent, None, None


# torch.compile refuses a Function that has a `jvp`, and forward mode needs one: hence twins.


class _ForwardModeValue(_Value):
    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        refuse_nested_forward_mode()
        x, mask = ctx.saved_tensors
        axes = _evaluate.attach_mask(ctx.axes, mask)
        along = _evaluate.wide_gradient(ctx.penalty, x, xp=XP, axes=axes) * tangent.to(_working_dtype(axes))
        return along.sum().to(getattr(torch, _evaluate.value_dtype(x, XP)))


class _ForwardModeGradient(_Gradient):
    @staticmethod
    def jvp(ctx: Any, of_x: Tensor | None, _: None, of_cotangent: Tensor | None, *__: None) -> Tensor:
        refuse_nested_forward_mode()
        x, mask, cotangent = ctx.saved_tensors
        given = ((x, of_x), (cotangent, of_cotangent))
        tangents = tuple(torch.zeros_like(primal) if tangent is None else tangent for primal, tangent in given)
        return torch.func.jvp(_wide_gradient(ctx, mask), (x, cotangent), tangents)[1].to(x.dtype)


_FORWARD_MODE = {_Value: _ForwardModeValue, _Gradient: _ForwardModeGradient}


def _apply(function: type[_Value] | type[_Gradient], *arguments: Any) -> Tensor:
    chosen = function if torch.compiler.is_compiling() else _FORWARD_MODE[function]
    return chosen.apply(*arguments)  # pyright: ignore[reportReturnType]


def _working_dtype(axes: Axes) -> torch.dtype:
    return getattr(torch, chosen(XP, axes).wide)


def _is_first_order(*tensors: Tensor) -> bool:
    """Return whether nothing will differentiate the gradient, in reverse or forward mode."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return all(unpack_dual(tensor).tangent is None for tensor in tensors)


def _wide_gradient(ctx: Any, mask: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
    axes = _evaluate.attach_mask(ctx.axes, mask)
    return lambda x, cotangent: _evaluate.wide_gradient(ctx.penalty, x, cotangent, xp=XP, axes=axes)


def value(
    penalty: Penalty,
    x: Tensor,
    /,
    *,
    axes: Any = None,
    mean_over: Any = (),
    mask: Tensor | None = None,
    numerics: str = "identical",
) -> Tensor:
    """Evaluate a penalty of a tensor as a differentiable scalar.

    The arguments, the definition, the dtypes and the errors are those of `arspec.value`;
    the number and its gradient have the same bits. Works eagerly, under torch.compile
    (no graph break), torch.func, autocast and double backward.

    Parameters
    ----------
    penalty : such as `arspec.L1(1e-4)`.
    x : floating-point tensor of any shape.
    axes, mean_over : as in `arspec.value`.
    mask : boolean tensor over the leading axes of x, true where x is valid.
    numerics : "identical" (the default), or "bounded" for torch's own float32 sums and
        products: the same definition, within the rounding of float32 instead of to the bit.
        On a device without float64 (Apple's MPS) it is always bounded, with a warning.

    Returns
    -------
    A 0-d tensor on the device of x: float64 for float64, else float32.

    Raises
    ------
    SpecError: x is not floating point, or a name, a shape or the mask does not fit.
    UnsupportedError: x is complex, sparse or nested.

    Example
    -------
    >>> import arspec, torch
    >>> x = torch.tensor([-2.0, 0.0, 3.0], requires_grad=True)
    >>> value(arspec.L1(0.5), x).backward()
    >>> x.grad
    tensor([-0.5000,  0.0000,  0.5000])
    """
    refuse_kinds(x, mask)
    numerics = numerics_on(x.device.type, numerics)
    resolved = _evaluate.prepare(penalty, x, xp=XP, axes=axes, mean_over=mean_over, numerics=numerics)
    expanded = _evaluate.expand_mask(mask, x, xp=XP)
    return _apply(_Value, x, expanded, penalty, resolved)
