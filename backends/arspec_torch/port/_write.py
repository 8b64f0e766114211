"""Writing PyTorch source code for a bundle: an idiomatic nn.Module, channels first."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from arspec.port import Bundle, ModuleWriter, Written
from arspec.port import _kinds as kinds
from arspec.port._graph import Node, Shape
from arspec.port._kinds import Function, Kind
from arspec.port._mapping import Step
from arspec.port._source import FIRST, LAST, Place, Scope, Value, formatted, require_kind, same_padding
from arspec_torch.port import _attention, _recurrent
from arspec_torch.port._helpers import HELPERS as _OWN_HELPERS

HELPERS = {**_OWN_HELPERS, **_recurrent.HELPERS, **_attention.HELPERS}

FUNCTIONS = {
    "relu": "nn.ReLU()",
    "relu6": "nn.ReLU6()",
    "leaky_relu": "nn.LeakyReLU({})",
    "elu": "nn.ELU({})",
    "celu": "nn.CELU({})",
    "selu": "nn.SELU()",
    "gelu": "nn.GELU()",
    "gelu_tanh": 'nn.GELU(approximate="tanh")',
    "silu": "nn.SiLU()",
    "hard_silu": "nn.Hardswish()",
    "hard_sigmoid": "nn.Hardsigmoid()",
    "sigmoid": "nn.Sigmoid()",
    "tanh": "nn.Tanh()",
    "softplus": "nn.Softplus(threshold=40)",
    "softsign": "nn.Softsign()",
    "softmax": "nn.Softmax(dim={axis})",
    "log_softmax": "nn.LogSoftmax(dim={axis})",
    "exponential": "Exponential()",
    "mish": "nn.Mish()",
}
_INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}


def write(bundle: Bundle, /) -> Written:
    """Return PyTorch source code for a bundle, and the map of its weights.

    Returns
    -------
    A `Written`: one file with an nn.Module per model, the layer names of the source, and
    `load`, which reads the weights that `arspec port write` puts beside it. Images are
    (batch, channel, height, width), sequences (batch, time, feature).

    Raises
    ------
    UnsupportedError: a layer or the place of a rule has no exact counterpart; it is named.
    """
    return TorchWriter(bundle).write()


class TorchWriter(ModuleWriter):
    """A `ModuleWriter` for PyTorch."""

    framework = "torch"

    def reserved(self) -> set[str]:
        """Return the names the file imports."""
        return {"torch", "nn", "F", "Tensor", "Path", "load", "load_file", *HELPERS, *_PACKING}

    def attributes(self) -> set[str]:
        """Return the names that nn.Module has."""
        from torch import nn

        return set(dir(nn.Module()))

    def boundary(self, shape: Shape) -> str:
        """Images and volumes have their channels first, sequences last."""
        return FIRST if len(shape) >= 3 else LAST

    def convert(self, value: Value, layout: str) -> Value:
        """Permute where the layouts differ."""
        rank = len(value.shape) + 1
        if value.layout == layout or rank < 3:
            return Value(value.text, value.shape, layout)
        axes = (0, rank - 1, *range(1, rank - 1)) if layout == FIRST else (0, *range(2, rank), 1)
        return Value(f"{value.text}.permute({', '.join(map(str, axes))})", value.shape, layout)

    def identity(self) -> str:
        """Return nn.Identity."""
        return "nn.Identity()"

    def layer(self, node: Node, path: str, arguments: Sequence[Value]) -> Value | tuple[Value, ...]:
        """Write one layer."""
        kind = require_kind(node)
        emit: Callable[..., Any] = _EMITTERS[type(kind)]
        return emit(self, kind, node, path, list(arguments))

    # Pieces.

    def module(
        self, node: Node, path: str, constructor: str, x: Value, layout: str, shape: Shape, *, first: str = ""
    ) -> Value:
        """Write a module with one input, and let rules and traces see it."""
        attribute = self.name_layer(node)
        self.attribute(attribute, constructor)
        target = self.path_of(attribute)
        if node.call == 0:
            self.layers[path] = Place(target, layout)
            self.traced[path] = Place(target, layout)
            self.place(path, "output", target, "output", layout)
            if not first:
                self.place(path, "input", target, "input", x.layout)
        return Value(f"self.{attribute}({first or x.text})", shape, layout)

    def activated(self, node: Node, path: str, function: Function, value: Value) -> Value:
        """Write the activation function of a layer as a module of its own."""
        target = self.layers[path].path
        self.place(path, "pre_activation", target, "pre_activation", value.layout)
        if function.name == "linear":
            # "output" would be that of an activation function that follows: a layer of its own here.
            self.place(path, "output", target, "pre_activation", value.layout)
            return value
        attribute = f"{self.name_layer(node)}_activation"
        self.attribute(attribute, self.function(function, value))
        if node.call == 0:
            self.traced[path] = Place(self.path_of(attribute), value.layout)
        return Value(f"self.{attribute}({value.text})", value.shape, value.layout)

    def function(self, function: Function, value: Value) -> str:
        """Return the constructor of an activation function."""
        if function.name == "exponential":
            self.helper("Exponential")
        axis = 1 if value.layout == FIRST else -1
        return FUNCTIONS[function.name].format(function.parameter, axis=axis)

    def parameter(self, node: Node, path: str, role: str, name: str, shape: tuple[int, ...], *steps: Step) -> None:
        """Say where a weight goes, and that it is frozen if it is."""
        if node.call:
            return
        target = f"{self.layers[path].path}.{name}"
        self.weight(path, role, target, shape, *steps)
        self.place(path, role, self.layers[path].path, role)
        if role in node.frozen:
            self.attribute_line(f"self.{self.scope.names[node.name]}.{name}.requires_grad_(False)")

    def attribute_line(self, line: str) -> None:
        """Add any line to the constructor."""
        if line not in self.scope.attributes:
            self.scope.attributes.append(line)

    def padded(self, x: Value, kind: Any, *, causal: bool = False, fill: str = "") -> tuple[str, str]:
        """Return an expression for the padded input, "" if the module pads it itself, and the `padding` it has then.

        x is channels first.
        """
        dilation = getattr(kind, "dilation", (1,) * len(kind.strides))
        size = kind.size if isinstance(kind, kinds.Pooling) else kind.kernel_size
        if kind.padding == "valid":
            return "", ""
        if kind.padding == "causal":
            return f"F.pad({x.text}, ({(size[0] - 1) * dilation[0]}, 0))", ""
        same = [same_padding(*axis) for axis in zip(x.shape[:-1], size, kind.strides, dilation, strict=True)]
        found = list(kind.pads) if kind.padding == "explicit" else same
        if any(pads is None for pads in found):
            self.helper("pad_same")
            options = f", value={fill}" if fill else ""
            return f"pad_same({x.text}, {size}, {tuple(kind.strides)}, {tuple(dilation)}{options})", ""
        pads = [pair for pair in found if pair is not None]
        fits = all(before <= extent // 2 for (before, _), extent in zip(pads, size, strict=True)) or not fill
        if all(before == after for before, after in pads) and fits:
            return "", _short([before for before, _ in pads]) if any(map(any, pads)) else ""
        flat = [number for pair in reversed(pads) for number in pair]
        options = f", value={fill}" if fill else ""
        return f"F.pad({x.text}, ({', '.join(map(str, flat))}){options})", ""

    # The file.

    def class_text(self, scope: Scope, inputs: Sequence[Value], outputs: Sequence[Value]) -> str:
        """Return an nn.Module."""
        arguments = "".join(f", {value.text}: Tensor" for value in inputs)
        results = ", ".join(value.text for value in outputs)
        annotation = "Tensor" if len(outputs) == 1 else f"tuple[{', '.join(['Tensor'] * len(outputs))}]"
        lines = [f"class {scope.class_name}(nn.Module):"]
        lines += [f'    """{_shapes_text(inputs)} -> {_shapes_text(outputs)}."""', ""]
        lines += ["    def __init__(self) -> None:", "        super().__init__()"]
        lines += [f"        {line}" for line in scope.attributes]
        lines += ["", f"    def forward(self{arguments}) -> {annotation}:"]
        lines += [f"        {line}" for line in scope.calls]
        last = scope.calls[-1].partition(" = ") if scope.calls else ("", "", "")
        if results == last[0]:
            lines[-1] = f"        return {last[2]}"
        else:
            lines.append(f"        return {results}")
        return "\n".join(lines)

    def file_text(self, classes: Sequence[str], class_name: str) -> str:
        """Return the whole file, formatted."""
        helpers = [HELPERS[name] for name in HELPERS if name in self.helpers]
        body = "\n\n\n".join([*helpers, *classes, _LOAD.format(class_name=class_name)])
        imports = ["from pathlib import Path", ""]
        imports += ["import torch"] if "torch." in body.replace("safetensors.torch", "") else []
        imports += ["from safetensors.torch import load_file", "from torch import Tensor, nn"]
        imports += ["from torch.nn import functional as F"] if "F." in body else []
        packing = ", ".join(name for name in _PACKING if name in body)
        imports += [f"from torch.nn.utils.rnn import {packing}"] if packing else []
        head = f'"""{self.bundle.graph.name}: a PyTorch module, ported layer by layer with their names."""'
        return formatted("\n".join([head, "", *imports, "", "", body, ""]))


_PACKING = ("PackedSequence", "pack_padded_sequence", "pad_packed_sequence")
_LOAD = '''def load(weights: str | Path = Path(__file__).with_suffix(".safetensors")) -> {class_name}:
    """Return the model with its weights."""
    model = {class_name}()
    model.load_state_dict(load_file(weights))
    return model'''


def _shapes_text(values: Sequence[Value]) -> str:
    def text(value: Value) -> str:
        sizes = ["?" if size is None else str(size) for size in value.shape]
        ordered = [sizes[-1], *sizes[:-1]] if value.layout == FIRST and len(sizes) > 1 else sizes
        return f"({', '.join(['batch', *ordered])})"

    return ", ".join(map(text, values))


def _short(sizes: Sequence[int]) -> str:
    """Return one number where all are the same, as torch allows."""
    return str(sizes[0]) if len(set(sizes)) == 1 else f"({', '.join(map(str, sizes))})"


def _options(**options: str) -> str:
    return "".join(f", {name}={text}" for name, text in options.items() if text)


def _unless(text: str, default: str) -> str:
    return "" if text == default else text


def _channels(x: Value) -> int:
    return int(x.shape[-1] or 0)


def _to_kernel(rank: int) -> Step:
    """(*spatial, input, output) -> (output, input, *spatial)."""
    return ("transpose", (rank + 1, rank, *range(rank)))


def _dense(w: TorchWriter, kind: kinds.Dense, node: Node, path: str, arguments: list[Value]) -> Value:
    x = w.convert(arguments[0], LAST)
    features = _channels(x)
    text = f"nn.Linear({features}, {kind.units}{_options(bias='' if kind.use_bias else 'False')})"
    value = w.module(node, path, text, x, LAST, node.shapes[0])
    w.parameter(node, path, "kernel", "weight", (kind.units, features), ("transpose", (1, 0)))
    if kind.use_bias:
        w.parameter(node, path, "bias", "bias", (kind.units,))
    return w.activated(node, path, kind.activation, value)


def _window_options(kind: Any, padding: str) -> str:
    return _options(
        stride=_unless(_short(kind.strides), "1"), padding=padding, dilation=_unless(_short(kind.dilation), "1")
    )


def _convolution(w: TorchWriter, kind: kinds.Convolution, node: Node, path: str, arguments: list[Value]) -> Value:
    rank = len(kind.kernel_size)
    x = w.convert(arguments[0], FIRST)
    padded, padding = w.padded(x, kind)
    text = f"nn.Conv{rank}d({_channels(x)}, {kind.filters}, {_short(kind.kernel_size)}{_window_options(kind, padding)}"
    text += _options(groups=_unless(str(kind.groups), "1"), bias="" if kind.use_bias else "False") + ")"
    value = w.module(node, path, text, x, FIRST, node.shapes[0], first=padded)
    shape = (kind.filters, _channels(x) // kind.groups, *kind.kernel_size)
    w.parameter(node, path, "kernel", "weight", shape, _to_kernel(rank))
    if kind.use_bias:
        w.parameter(node, path, "bias", "bias", (kind.filters,))
    return w.activated(node, path, kind.activation, value)


def _depthwise_text(x: Value, kind: Any, padding: str, *, bias: bool) -> tuple[str, tuple[int, ...], tuple[Step, ...]]:
    rank, channels = len(kind.kernel_size), _channels(x)
    outputs = channels * kind.multiplier
    text = f"nn.Conv{rank}d({channels}, {outputs}, {_short(kind.kernel_size)}{_window_options(kind, padding)}"
    text += _options(groups=str(channels), bias="" if bias else "False") + ")"
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
    bias = _options(bias="" if kind.use_bias else "False")
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
    w.parameter(node, path, "pointwise_kernel", "weight", (kind.filters, shape[0], *ones), _to_kernel(rank))
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
    options = _options(
        stride=_unless(_short(kind.strides), "1"),
        padding=_unless(_short([total // 2 for total in cut]), "0") if even else "",
        output_padding=_unless(_short(extra), "0"),
        bias="" if kind.use_bias else "False",
    )
    text = f"nn.ConvTranspose{rank}d({_channels(x)}, {kind.filters}, {_short(kind.kernel_size)}{options})"
    if not even and kind.activation.name != "linear":
        w.notes.append(f"{path}: its result is cropped before the activation function.")
    value = w.module(node, path, text, x, FIRST, node.shapes[0])
    shape = (_channels(x), kind.filters, *kind.kernel_size)
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
        options = _options(scale="" if kind.use_scale else "False", shift="" if kind.use_shift else "False")
        own = ""
    momentum = round(1 - kind.momentum, 12)
    text = f"{own}BatchNorm{rank}d({_channels(x)}, eps={kind.epsilon!r}, momentum={momentum!r}{options})"
    value = w.module(node, path, text, x, FIRST, node.shapes[0])
    _normalization(w, kind, node, path, (_channels(x),))
    names = {"moving_mean": "running_mean", "moving_variance": "running_var"}
    for role, name in names.items():
        w.parameter(node, path, role, name, (_channels(x),))
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
        return _options(**{name: "" if kind.use_scale else "False"})
    if kind.use_scale and name == "elementwise_affine":
        return _options(bias="False")
    raise w.refuse(path, "a normalization with only one of scale and shift", "Give it both.")


def _layer_normalization(
    w: TorchWriter, kind: kinds.LayerNormalization, node: Node, path: str, arguments: list[Value]
) -> Value:
    x = w.convert(arguments[0], LAST)
    options = _affine_options(w, kind, path, "elementwise_affine")
    text = f"nn.LayerNorm({_channels(x)}, eps={kind.epsilon!r}{options})"
    value = w.module(node, path, text, x, LAST, node.shapes[0])
    _normalization(w, kind, node, path, (_channels(x),))
    return value


def _group_normalization(
    w: TorchWriter, kind: kinds.GroupNormalization, node: Node, path: str, arguments: list[Value]
) -> Value:
    x = w.convert(arguments[0], FIRST)
    groups = _channels(x) if kind.groups == -1 else kind.groups
    options = _affine_options(w, kind, path, "affine")
    text = f"nn.GroupNorm({groups}, {_channels(x)}, eps={kind.epsilon!r}{options})"
    value = w.module(node, path, text, x, FIRST, node.shapes[0])
    _normalization(w, kind, node, path, (_channels(x),))
    return value


def _rms_normalization(
    w: TorchWriter, kind: kinds.RMSNormalization, node: Node, path: str, arguments: list[Value]
) -> Value:
    x = w.convert(arguments[0], LAST)
    value = w.module(node, path, f"nn.RMSNorm({_channels(x)}, eps={kind.epsilon!r})", x, LAST, node.shapes[0])
    w.parameter(node, path, "scale", "weight", (_channels(x),))
    return value


def _per_channel(x: Value) -> tuple[int, ...]:
    """Return the shape of one number per channel that broadcasts against x."""
    return (_channels(x), *(1,) * (len(x.shape) - 1)) if x.layout == FIRST else (_channels(x),)


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


def _pooling(w: TorchWriter, kind: kinds.Pooling, node: Node, path: str, arguments: list[Value]) -> Value:
    x = w.convert(arguments[0], FIRST)
    rank = len(kind.size)
    strides = _unless(_short(kind.strides), _short(kind.size))
    head = f"nn.{'Max' if kind.mode == 'max' else 'Avg'}Pool{rank}d({_short(kind.size)}{_options(stride=strides)}"
    fill = '-float("inf")' if kind.mode == "max" else ""
    padded, padding = w.padded(x, kind, fill=fill)
    if kind.mode == "average" and padded:
        if kind.padding == "explicit":
            raise w.refuse(path, "an average pooling with more padding at one end", "Pad the input instead.")
        w.helper("AveragePoolSame")
        options = f"{tuple(kind.size)}, {tuple(kind.strides)}"
        return w.module(node, path, f"AveragePoolSame({options})", x, FIRST, node.shapes[0])
    excluded = _options(padding=padding, count_include_pad="False" if padding and kind.mode == "average" else "")
    return w.module(node, path, f"{head}{excluded})", x, FIRST, node.shapes[0], first=padded)


def _global_pooling(w: TorchWriter, kind: kinds.GlobalPooling, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    rank = len(x.shape)
    axes = tuple(range(2, rank + 1)) if x.layout == FIRST else tuple(range(1, rank))
    axes_text = _short(axes) if len(axes) == 1 else str(axes)
    name = "mean" if kind.mode == "average" else "amax"
    keep = ", keepdim=True" if kind.keep else ""
    layout = x.layout if kind.keep else LAST
    return Value(f"{x.text}.{name}({axes_text}{keep})", node.shapes[0], layout)


def _flat_pairs(pairs: Sequence[tuple[int, int]]) -> str:
    return ", ".join(str(number) for pair in reversed(pairs) for number in pair)


def _zero_padding(w: TorchWriter, kind: kinds.ZeroPadding, node: Node, path: str, arguments: list[Value]) -> Value:
    x = w.convert(arguments[0], FIRST)
    text = f"nn.ZeroPad{len(kind.padding)}d(({_flat_pairs(kind.padding)}))"
    return w.module(node, path, text, x, FIRST, node.shapes[0])


def _cropping(w: TorchWriter, kind: kinds.Cropping, node: Node, path: str, arguments: list[Value]) -> Value:
    x = w.convert(arguments[0], FIRST)
    slices = [f"{before or ''}:{-after if after else ''}" for before, after in kind.cropping]
    return Value(f"{x.text}[:, :, {', '.join(slices)}]", node.shapes[0], FIRST)


def _upsampling(w: TorchWriter, kind: kinds.UpSampling, node: Node, path: str, arguments: list[Value]) -> Value:
    x = w.convert(arguments[0], FIRST)
    mode = "" if kind.interpolation == "nearest" else '"bilinear", align_corners=False'
    size = tuple(kind.size) if len(kind.size) > 1 else kind.size[0]
    text = f"nn.Upsample(scale_factor={size}{_options(mode=mode)})"
    return w.module(node, path, text, x, FIRST, node.shapes[0])


def _is_vector(shape: Shape) -> bool:
    return all(size == 1 for size in shape[:-1])


def _flatten(w: TorchWriter, kind: kinds.Flatten, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0] if _is_vector(arguments[0].shape) else w.convert(arguments[0], LAST)
    return Value(f"{x.text}.flatten(1)" if len(x.shape) > 1 else x.text, node.shapes[0], LAST)


def _reshape(w: TorchWriter, kind: kinds.Reshape, node: Node, path: str, arguments: list[Value]) -> Value:
    x, layout = arguments[0], w.boundary(kind.shape)
    if _is_vector(x.shape) and _is_vector(kind.shape):  # a vector by any other name
        sizes = (kind.shape[-1], *kind.shape[:-1]) if layout == FIRST else kind.shape
    else:
        x, layout, sizes = w.convert(x, LAST), LAST, kind.shape
    return Value(f"{x.text}.reshape(-1, {', '.join(map(str, sizes))})", node.shapes[0], layout)


def _permute(w: TorchWriter, kind: kinds.Permute, node: Node, path: str, arguments: list[Value]) -> Value:
    x, last = arguments[0], len(kind.axes)
    # Where the channels are second already, both are one permutation of what is there.
    moved = [1 if axis == last else axis + 1 for axis in kind.axes] if x.layout == FIRST else list(kind.axes)
    unmoved = moved == list(range(1, last + 1))
    return Value(x.text if unmoved else f"{x.text}.permute(0, {', '.join(map(str, moved))})", node.shapes[0], LAST)


def _repeat(w: TorchWriter, kind: kinds.Repeat, node: Node, path: str, arguments: list[Value]) -> Value:
    return Value(f"{arguments[0].text}.unsqueeze(1).repeat(1, {kind.times}, 1)", node.shapes[0], LAST)


def _alike(w: TorchWriter, path: str, arguments: list[Value]) -> list[Value]:
    """Bring tensors into the layout of the first."""
    tensors = [value for value in arguments if value.shape]
    if len({len(value.shape) for value in tensors}) > 1:
        raise w.refuse(path, "tensors of different rank that are broadcast", "Reshape them to the same rank.")
    layout = tensors[0].layout
    return [w.convert(value, layout) if value.shape else value for value in arguments]


def _merge(w: TorchWriter, kind: kinds.Merge, node: Node, path: str, arguments: list[Value]) -> Value:
    values = _alike(w, path, arguments)
    layout = next(value.layout for value in values if value.shape)
    texts = [value.text for value in values]
    if kind.operation == "average":
        text = f"(({' + '.join(texts)}) / {len(texts)})"
    elif kind.operation in _INFIX:
        text = f"({f' {_INFIX[kind.operation]} '.join(texts)})"
    else:
        text = texts[0]
        for other in texts[1:]:
            text = f"torch.{kind.operation}({text}, {other})"
    return Value(text, node.shapes[0], layout)


def _scaled_add(w: TorchWriter, kind: kinds.ScaledAdd, node: Node, path: str, arguments: list[Value]) -> Value:
    first, second = _alike(w, path, arguments)
    return Value(f"({first.text} + {kind.scale!r} * {second.text})", node.shapes[0], first.layout)


def _concatenate(w: TorchWriter, kind: kinds.Concatenate, node: Node, path: str, arguments: list[Value]) -> Value:
    values = _alike(w, path, arguments)
    layout, rank = values[0].layout, len(values[0].shape) + 1
    axis = kind.axis
    if layout == FIRST and axis:
        axis = 1 if axis == rank - 1 else axis + 1
    return Value(f"torch.cat([{', '.join(value.text for value in values)}], dim={axis})", node.shapes[0], layout)


def _dropout(w: TorchWriter, kind: kinds.Dropout, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    text = f"nn.Dropout({kind.rate!r})"
    if kind.mode == "channels":
        x = w.convert(x, FIRST)
        text = f"nn.Dropout{len(x.shape) - 1}d({kind.rate!r})"
    elif kind.mode == "examples":
        w.helper("StochasticDepth")
        text = f"StochasticDepth({kind.rate!r})"
    return w.module(node, path, text, x, x.layout, node.shapes[0])


def _identity(w: TorchWriter, kind: Kind, node: Node, path: str, arguments: list[Value]) -> Value:
    return w.module(node, path, "nn.Identity()", arguments[0], arguments[0].layout, node.shapes[0])


_EMITTERS: dict[type[Kind], Callable[..., Any]] = {
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
    kinds.Pooling: _pooling,
    kinds.GlobalPooling: _global_pooling,
    kinds.ZeroPadding: _zero_padding,
    kinds.Cropping: _cropping,
    kinds.UpSampling: _upsampling,
    kinds.Flatten: _flatten,
    kinds.Reshape: _reshape,
    kinds.Permute: _permute,
    kinds.Repeat: _repeat,
    kinds.Merge: _merge,
    kinds.ScaledAdd: _scaled_add,
    kinds.Concatenate: _concatenate,
    kinds.Dropout: _dropout,
    kinds.Identity: _identity,
    **_recurrent.EMITTERS,
    **_attention.EMITTERS,
}
