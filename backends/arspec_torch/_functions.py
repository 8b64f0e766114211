"""The custom gradient: autograd functions whose backward pass is the core's gradient.

Autograd never differentiates a formula, except for second derivatives, where it
differentiates the core's gradient.
"""

from collections.abc import Callable
from contextlib import suppress
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from arspec import _evaluate
from arspec._axes import Axes
from arspec._bounded import chosen
from arspec.penalties import Penalty
from arspec_torch import _eager, _plain
from arspec_torch._checks import refuse_nested_forward_mode
from arspec_torch._namespace import WHOLE, XP


def _value(penalty: Penalty, x: Tensor, axes: Axes) -> Tensor:
    found = _plain.small_value(penalty, x, axes)
    return _evaluate.value(penalty, x, xp=XP, axes=axes) if found is None else found


def _gradient(penalty: Penalty, x: Tensor, cotangent: Tensor, axes: Axes) -> Tensor:
    found = _plain.small_gradient(penalty, x, cotangent, axes)
    if found is not None:
        return found
    xp = XP if _plain.is_readable(cotangent) else WHOLE
    return _evaluate.gradient(penalty, x, cotangent, xp=xp, axes=axes)


def evaluate(penalty: Penalty, x: Tensor, mask: Tensor | None, axes: Axes) -> Tensor:
    """Return the penalty of x, which autograd can differentiate."""
    if _plain.is_plain(x) and unpack_dual(x).tangent is None and (mask is None or _plain.is_shared(mask)):
        # Under torch.func torch refuses this form, even of a constant, and tracers refuse to name the value.
        # What else goes wrong does so below, too.
        with suppress(RuntimeError):
            return _EagerValue.apply(x, mask, penalty, axes)  # pyright: ignore[reportReturnType]
    return _apply(_Value, x, mask, penalty, axes)


class _EagerValue(torch.autograd.Function):
    """`_Value` outside of every transformation, where torch can be asked for less."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor | None, penalty: Penalty, axes: Axes) -> Tensor:
        ctx.save_for_backward(x, mask)
        ctx.penalty, ctx.axes, ctx.known = penalty, axes, {}
        return _eager.value(penalty, x, _evaluate.attach_mask(axes, mask), ctx.known)

    @staticmethod
    @torch.compiler.disable  # or a compiled function that calls backward() compiles this anew for every penalty
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        x, mask = ctx.saved_tensors
        cotangent, penalty, axes = cotangents[0], ctx.penalty, ctx.axes
        if not _is_first_order(x, cotangent):
            return _apply(_Gradient, x, mask, cotangent, penalty, axes), None, None, None
        found = _eager.gradient(penalty, x, cotangent, _evaluate.attach_mask(axes, mask), ctx.known)
        if found is None:
            found = _gradient(penalty, x, cotangent, _evaluate.attach_mask(axes, mask))
        return found, None, None, None


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
            axes = _evaluate.attach_mask(ctx.axes, mask)
            return _gradient(ctx.penalty, x, cotangent, axes), None, None, None
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
