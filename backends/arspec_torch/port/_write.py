"""Writing PyTorch source code for a bundle: an idiomatic nn.Module, channels first."""

from collections.abc import Callable, Sequence
from typing import Any

from arspec.port import Bundle, ModuleWriter, Written
from arspec.port import _kinds as kinds
from arspec.port._graph import Node, Shape
from arspec.port._kinds import Function
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
INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}


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
        from arspec_torch.port._write_layers import EMITTERS

        kind = require_kind(node)
        emit: Callable[..., Any] = EMITTERS[type(kind)]
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
            return "", short([before for before, _ in pads]) if any(map(any, pads)) else ""
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


def short(sizes: Sequence[int]) -> str:
    """Return one number where all are the same, as torch allows."""
    return str(sizes[0]) if len(set(sizes)) == 1 else f"({', '.join(map(str, sizes))})"


def options_text(**options: str) -> str:
    return "".join(f", {name}={text}" for name, text in options.items() if text)


def unless(text: str, default: str) -> str:
    return "" if text == default else text


def channels_of(x: Value) -> int:
    return int(x.shape[-1] or 0)


def to_kernel(rank: int) -> Step:
    """(*spatial, input, output) -> (output, input, *spatial)."""
    return ("transpose", (rank + 1, rank, *range(rank)))
