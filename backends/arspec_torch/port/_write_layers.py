"""How each kind of layer with weights is written in PyTorch; EMITTERS has all kinds."""

import math
from collections.abc import Callable
from typing import Any

from arspec.port import _kinds as kinds
from arspec.port._graph import Node
from arspec.port._kinds import Kind
from arspec.port._mapping import Step
from arspec.port._source import FIRST, LAST, Value
from arspec_torch.port import _attention, _recurrent
from arspec_torch.port._write import TorchWriter, channels_of, options_text, short, to_kernel, unless
from arspec_torch.port._write_shapes import SHAPES


def _dense(w: TorchWriter, kind: kinds.Dense, node: Node, path: str, arguments: list[Value]) -> Value:
    x = w.convert(arguments[0], LAST)
    features = channels_of(x)
    text = f"nn.Linear({features}, {kind.units}{options_text(bias='' if kind.use_bias else 'False')})"
    value = w.module(node, path, text, x, LAST, node.shapes[0])
    w.parameter(node, path, "kernel", "weight", (kind.units, features), ("transpose", (1, 0)))
    if kind.use_bias:
        w.parameter(node, path, "bias", "bias", (kind.units,))
    return w.activated(node, path, kind.activation, value)


def _window_options(kind: Any, padding: str) -> str:
    return options_text(
        stride=unless(short(kind.strides), "1"), padding=padding, dilation=unless(short(kind.dilation), "1")
    )


def _convolution(w: TorchWriter, kind: kinds.Convolution, node: Node, path: str, arguments: list[Value]) -> Value:
    rank = len(kind.kernel_size)
    x = w.convert(arguments[0], FIRST)
    padded, padding = w.padded(x, kind)
    text = f"nn.Conv{rank}d({channels_of(x)}, {kind.filters}, {short(kind.kernel_size)}{_window_options(kind, padding)}"
    text += options_text(groups=unless(str(kind.groups), "1"), bias="" if kind.use_bias else "False") + ")"
    value = w.module(node, path, text, x, FIRST, node.shapes[0], first=padded)
    shape = (kind.filters, channels_of(x) // kind.groups, *kind.kernel_size)
    w.parameter(node, path, "kernel", "weight", shape, to_kernel(rank))
    if kind.use_bias:
        w.parameter(node, path, "bias", "bias", (kind.filters,))
    return w.activated(node, path, kind.activation, value)


def _depthwise_text(x: Value, kind: Any, padding: str, *, bias: bool) -> tuple[str, tuple[int, ...], tuple[Step, ...]]:
    rank, channels = len(kind.kernel_size), channels_of(x)
    outputs = channels * kind.multiplier
    text = f"nn.Conv{rank}d({channels}, {outputs}, {short(kind.kernel_size)}{_window_options(kind, padding)}"
    text += options_text(groups=str(channels), bias="" if bias else "False") + ")"
    shape = (outputs, 1, *kind.kernel_size)
    return text, shape, (("transpose", (rank, rank + 1, *range(rank))), ("reshape", shape))


def _depthwise(
    w: TorchWriter, kind: kinds.DepthwiseConvolution, node: Node, path: str, arguments: list[Value]
) -> Value:
    x = w.convert(arguments[0], FIRST)
    padded, padding = w.padded(x, kind)
    text, shape, steps = _depthwise_text(x, kind, padding, bias=kind.use_bias)
    value = w.module(node, path, text, x, FIRST, node.shapes[0], first=padded)
    w.parameter(node, path, "kernel", "weight", shape, *steps)
    if kind.use_bias:
        w.parameter(node, path, "bias", "bias", shape[:1])
    return w.activated(node, path, kind.activation, value)


def _separable(
    w: TorchWriter, kind: kinds.SeparableConvolution, node: Node, path: str, arguments: list[Value]
) -> Value:
    rank = len(kind.kernel_size)
    x = w.convert(arguments[0], FIRST)
    padded, padding = w.padded(x, kind)
    text, shape, steps = _depthwise_text(x, kind, padding, bias=False)
    attribute = w.name_layer(node)
    middle = f"{attribute}_depthwise"
    w.attribute(middle, text)
    inner = Value(f"self.{middle}({padded or x.text})", (*node.shapes[0][:-1], shape[0]), FIRST)
    bias = options_text(bias="" if kind.use_bias else "False")
    value = w.module(
        node,
        path,
        f"nn.Conv{rank}d({shape[0]}, {kind.filters}, 1{bias})",
        inner,
        FIRST,
        node.shapes[0],
        first=inner.text,
    )
    if node.call == 0:
        target = w.path_of(middle)
        w.weight(path, "depthwise_kernel", f"{target}.weight", shape, *steps)
        w.place(path, "depthwise_kernel", target, "kernel")
        if not padded:
            w.place(path, "input", target, "input", FIRST)
        if "depthwise_kernel" in node.frozen:
            w.attribute_line(f"self.{middle}.weight.requires_grad_(False)")
    ones = (1,) * rank
    w.parameter(node, path, "pointwise_kernel", "weight", (kind.filters, shape[0], *ones), to_kernel(rank))
    w.place(path, "pointwise_kernel", w.layers[path].path, "kernel")
    if kind.use_bias:
        w.parameter(node, path, "bias", "bias", (kind.filters,))
    return w.activated(node, path, kind.activation, value)


def _transposed(
    w: TorchWriter, kind: kinds.TransposedConvolution, node: Node, path: str, arguments: list[Value]
) -> Value:
    rank = len(kind.kernel_size)
    x = w.convert(arguments[0], FIRST)
    axes = list(zip(kind.kernel_size, kind.strides, strict=True))
    cut = [max(k - s, 0) if kind.padding == "same" else 0 for k, s in axes]
    extra = [max(s - k, 0) for k, s in axes]
    even = all(total % 2 == 0 for total in cut)
    options = options_text(
        stride=unless(short(kind.strides), "1"),
        padding=unless(short([total // 2 for total in cut]), "0") if even else "",
        output_padding=unless(short(extra), "0"),
        bias="" if kind.use_bias else "False",
    )
    text = f"nn.ConvTranspose{rank}d({channels_of(x)}, {kind.filters}, {short(kind.kernel_size)}{options})"
    if not even and kind.activation.name != "linear":
        w.notes.append(f"{path}: its result is cropped before the activation function.")
    value = w.module(node, path, text, x, FIRST, node.shapes[0])
    shape = (channels_of(x), kind.filters, *kind.kernel_size)
    w.parameter(node, path, "kernel", "weight", shape, ("transpose", (rank + 1, rank, *range(rank))))
    if kind.use_bias:
        w.parameter(node, path, "bias", "bias", (kind.filters,))
    if even:
        return w.activated(node, path, kind.activation, value)
    for name in ("output", "pre_activation"):
        w.placed.pop((path, name), None)
    w.traced.pop(path, None)
    slices = ", ".join(f"{total // 2}:-{total - total // 2}" if total else ":" for total in cut)
    cropped = Value(f"{value.text}[:, :, {slices}]", value.shape, FIRST)
    if kind.activation.name == "linear":
        return cropped
    attribute = f"{w.name_layer(node)}_activation"
    w.attribute(attribute, w.function(kind.activation, cropped))
    return Value(f"self.{attribute}({cropped.text})", value.shape, FIRST)


def _batch_normalization(
    w: TorchWriter, kind: kinds.BatchNormalization, node: Node, path: str, arguments: list[Value]
) -> Value:
    x = w.convert(arguments[0], FIRST)
    rank = max(len(x.shape) - 1, 1)
    if kind.unbiased:
        options, own = _affine_options(w, kind, path, "affine"), "nn."
    else:
        w.helper(f"BatchNorm{rank}d")
        options = options_text(scale="" if kind.use_scale else "False", shift="" if kind.use_shift else "False")
        own = ""
    momentum = round(1 - kind.momentum, 12)
    text = f"{own}BatchNorm{rank}d({channels_of(x)}, eps={kind.epsilon!r}, momentum={momentum!r}{options})"
    value = w.module(node, path, text, x, FIRST, node.shapes[0])
    _normalization(w, kind, node, path, (channels_of(x),))
    names = {"moving_mean": "running_mean", "moving_variance": "running_var"}
    for role, name in names.items():
        w.parameter(node, path, role, name, (channels_of(x),))
    if node.call == 0:
        counter = f"{w.layers[path].path}.num_batches_tracked"
        w.target_shapes[counter] = ()
        w.derived[counter] = 0.0
    return value


def _normalization(w: TorchWriter, kind: Any, node: Node, path: str, shape: tuple[int, ...]) -> None:
    if kind.use_scale:
        w.parameter(node, path, "scale", "weight", shape)
    if kind.use_shift:
        w.parameter(node, path, "shift", "bias", shape)


def _affine_options(w: TorchWriter, kind: Any, path: str, name: str) -> str:
    if kind.use_scale == kind.use_shift:
        return options_text(**{name: "" if kind.use_scale else "False"})
    if kind.use_scale and name == "elementwise_affine":
        return options_text(bias="False")
    raise w.refuse(path, "a normalization with only one of scale and shift", "Give it both.")


def _layer_normalization(
    w: TorchWriter, kind: kinds.LayerNormalization, node: Node, path: str, arguments: list[Value]
) -> Value:
    x = w.convert(arguments[0], LAST)
    options = _affine_options(w, kind, path, "elementwise_affine")
    text = f"nn.LayerNorm({channels_of(x)}, eps={kind.epsilon!r}{options})"
    value = w.module(node, path, text, x, LAST, node.shapes[0])
    _normalization(w, kind, node, path, (channels_of(x),))
    return value


def _group_normalization(
    w: TorchWriter, kind: kinds.GroupNormalization, node: Node, path: str, arguments: list[Value]
) -> Value:
    x = w.convert(arguments[0], FIRST)
    groups = channels_of(x) if kind.groups == -1 else kind.groups
    options = _affine_options(w, kind, path, "affine")
    text = f"nn.GroupNorm({groups}, {channels_of(x)}, eps={kind.epsilon!r}{options})"
    value = w.module(node, path, text, x, FIRST, node.shapes[0])
    _normalization(w, kind, node, path, (channels_of(x),))
    return value


def _rms_normalization(
    w: TorchWriter, kind: kinds.RMSNormalization, node: Node, path: str, arguments: list[Value]
) -> Value:
    x = w.convert(arguments[0], LAST)
    value = w.module(node, path, f"nn.RMSNorm({channels_of(x)}, eps={kind.epsilon!r})", x, LAST, node.shapes[0])
    w.parameter(node, path, "scale", "weight", (channels_of(x),))
    return value


def _per_channel(x: Value) -> tuple[int, ...]:
    """Return the shape of one number per channel that broadcasts against x."""
    return (channels_of(x), *(1,) * (len(x.shape) - 1)) if x.layout == FIRST else (channels_of(x),)


def _scale(w: TorchWriter, kind: kinds.Scale, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    w.helper("Scale")
    shape = _per_channel(x)
    value = w.module(node, path, f"Scale({', '.join(map(str, shape))})", x, x.layout, node.shapes[0])
    w.parameter(node, path, "scale", "weight", shape, ("reshape", shape))
    return value


def _standardize(w: TorchWriter, kind: kinds.Standardize, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    w.helper("Standardize")
    shape = _per_channel(x)
    options = f"{', '.join(map(str, shape))}, eps={kind.epsilon!r}"
    value = w.module(node, path, f"Standardize({options})", x, x.layout, node.shapes[0])
    for role in ("mean", "variance"):
        w.parameter(node, path, role, role, shape, ("reshape", shape))
    return value


def _rescaling(w: TorchWriter, kind: kinds.Rescaling, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]

    def numbers(given: tuple[float, ...]) -> str:
        if len(given) == 1:
            return repr(given[0])
        view = f".view({', '.join(map(str, _per_channel(x)))})" if x.layout == FIRST else ""
        return f"{x.text}.new_tensor({list(given)}){view}"

    text = x.text if kind.scale == (1.0,) else f"{x.text} * {numbers(kind.scale)}"
    text = text if set(kind.offset) == {0.0} else f"{text} + {numbers(kind.offset)}"
    return Value(f"({text})", x.shape, x.layout)


def _embedding(w: TorchWriter, kind: kinds.Embedding, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    value = w.module(node, path, f"nn.Embedding({kind.rows}, {kind.units})", x, LAST, node.shapes[0])
    w.parameter(node, path, "embeddings", "weight", (kind.rows, kind.units))
    return value


def _activation(w: TorchWriter, kind: kinds.Activation, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    text = "nn.Identity()" if kind.function.name == "linear" else w.function(kind.function, x)
    return w.module(node, path, text, x, x.layout, node.shapes[0])


def _prelu(w: TorchWriter, kind: kinds.PReLU, node: Node, path: str, arguments: list[Value]) -> Value:
    x = w.convert(arguments[0], FIRST)
    if math.prod(kind.shape) != kind.shape[-1]:
        raise w.refuse(path, f"PReLU with slopes of shape {kind.shape}", "Use shared_axes for all axes but the last.")
    value = w.module(node, path, f"nn.PReLU({kind.shape[-1]})", x, FIRST, node.shapes[0])
    w.parameter(node, path, "slope", "weight", kind.shape[-1:], ("reshape", kind.shape[-1:]))
    return value


EMITTERS: dict[type[Kind], Callable[..., Any]] = {
    kinds.Dense: _dense,
    kinds.Convolution: _convolution,
    kinds.DepthwiseConvolution: _depthwise,
    kinds.SeparableConvolution: _separable,
    kinds.TransposedConvolution: _transposed,
    kinds.BatchNormalization: _batch_normalization,
    kinds.LayerNormalization: _layer_normalization,
    kinds.GroupNormalization: _group_normalization,
    kinds.RMSNormalization: _rms_normalization,
    kinds.Scale: _scale,
    kinds.Standardize: _standardize,
    kinds.Rescaling: _rescaling,
    kinds.Embedding: _embedding,
    kinds.Activation: _activation,
    kinds.PReLU: _prelu,
    **SHAPES,
    **_recurrent.EMITTERS,
    **_attention.EMITTERS,
}
