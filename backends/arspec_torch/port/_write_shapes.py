"""How layers without weights are written in PyTorch: pooling, padding, shapes, merges."""

from collections.abc import Callable, Sequence
from typing import Any

from arspec.port import _kinds as kinds
from arspec.port._graph import Node, Shape
from arspec.port._kinds import Kind
from arspec.port._source import FIRST, LAST, Value
from arspec_torch.port._write import INFIX, TorchWriter, options_text, short, unless


def _pooling(w: TorchWriter, kind: kinds.Pooling, node: Node, path: str, arguments: list[Value]) -> Value:
    x = w.convert(arguments[0], FIRST)
    rank = len(kind.size)
    strides = unless(short(kind.strides), short(kind.size))
    head = f"nn.{'Max' if kind.mode == 'max' else 'Avg'}Pool{rank}d({short(kind.size)}{options_text(stride=strides)}"
    fill = '-float("inf")' if kind.mode == "max" else ""
    padded, padding = w.padded(x, kind, fill=fill)
    if kind.mode == "average" and padded:
        if kind.padding == "explicit":
            raise w.refuse(path, "an average pooling with more padding at one end", "Pad the input instead.")
        w.helper("AveragePoolSame")
        options = f"{tuple(kind.size)}, {tuple(kind.strides)}"
        return w.module(node, path, f"AveragePoolSame({options})", x, FIRST, node.shapes[0])
    excluded = options_text(padding=padding, count_include_pad="False" if padding and kind.mode == "average" else "")
    return w.module(node, path, f"{head}{excluded})", x, FIRST, node.shapes[0], first=padded)


def _global_pooling(w: TorchWriter, kind: kinds.GlobalPooling, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    rank = len(x.shape)
    axes = tuple(range(2, rank + 1)) if x.layout == FIRST else tuple(range(1, rank))
    axes_text = short(axes) if len(axes) == 1 else str(axes)
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
    text = f"nn.Upsample(scale_factor={size}{options_text(mode=mode)})"
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
    elif kind.operation in INFIX:
        text = f"({f' {INFIX[kind.operation]} '.join(texts)})"
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


SHAPES: dict[type[Kind], Callable[..., Any]] = {
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
}
