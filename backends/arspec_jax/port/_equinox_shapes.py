"""How pooling, shapes, merges and activation functions are written in Equinox."""

from collections.abc import Callable, Sequence
from typing import Any

from arspec.port import _kinds as kinds
from arspec.port._graph import Node
from arspec.port._kinds import Kind
from arspec.port._source import FIRST, LAST, Value, same_padding
from arspec_jax.port._equinox import EquinoxWriter
from arspec_jax.port._functions import called
from arspec_jax.port._nnx_shapes import masked_average, masking, merged, padding_mask
from arspec_jax.port._writer import channels, options


def _rescaling(w: EquinoxWriter, kind: kinds.Rescaling, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]

    def numbers(given: tuple[float, ...]) -> str:
        if len(given) == 1:
            return repr(given[0])
        shape = f".reshape{per_channel(x)}" if x.layout == FIRST else ""
        return f"jnp.array({list(given)}, {x.text}.dtype){shape}"

    text = x.text if kind.scale == (1.0,) else f"{x.text} * {numbers(kind.scale)}"
    text = text if set(kind.offset) == {0.0} else f"{text} + {numbers(kind.offset)}"
    return Value(f"({text})", x.shape, x.layout)


def _activation(w: EquinoxWriter, kind: kinds.Activation, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    if kind.function.name in ("softmax", "log_softmax"):
        x = w.convert(x, LAST)
    return Value(called(kind.function, x.text, w.helper, "jax.nn"), node.shapes[0], x.layout)


def _pooling(w: EquinoxWriter, kind: kinds.Pooling, node: Node, path: str, arguments: list[Value]) -> Value:
    x, rank = w.convert(arguments[0], FIRST), len(kind.size)
    pads = tuple(kind.pads) if kind.padding == "explicit" else ((0, 0),) * rank
    if kind.padding == "same":
        found = [same_padding(*axis) for axis in zip(x.shape[:-1], kind.size, kind.strides, strict=True)]
        if any(pair is None for pair in found):
            raise w.refuse(path, 'pooling with padding="same" of an unknown size', "Fix the sizes of the input.")
        pads = tuple(pair for pair in found if pair is not None)
    padding = repr(pads) if any(map(any, pads)) else ""
    if kind.mode == "average" and padding:
        w.helper("average_pool")
        text = f"average_pool({x.text}, {tuple(kind.size)}, {tuple(kind.strides)}, {padding})"
        return Value(text, node.shapes[0], FIRST)
    name = "Max" if kind.mode == "max" else "Avg"
    given = options(stride=sizes_text(kind.strides, 1), padding=padding)
    return w.module(node, path, f"eqx.nn.{name}Pool{rank}d({sizes_text(kind.size)}{given})", x)


def _global_pooling(
    w: EquinoxWriter, kind: kinds.GlobalPooling, node: Node, path: str, arguments: list[Value]
) -> Value:
    x = arguments[0]
    axes = tuple(range(1, len(x.shape))) if x.layout == FIRST else tuple(range(len(x.shape) - 1))
    given = options(axis=str(axes[0] if len(axes) == 1 else axes), keepdims="True" if kind.keep else "")
    name = "mean" if kind.mode == "average" else "max"
    return Value(f"{x.text}.{name}({given.removeprefix(', ')})", node.shapes[0], x.layout if kind.keep else LAST)


def _zero_padding(w: EquinoxWriter, kind: kinds.ZeroPadding, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    pairs = ((0, 0), *kind.padding) if x.layout == FIRST else (*kind.padding, (0, 0))
    return Value(f"jnp.pad({x.text}, {pairs})", node.shapes[0], x.layout)


def _cropping(w: EquinoxWriter, kind: kinds.Cropping, node: Node, path: str, arguments: list[Value]) -> Value:
    x = w.convert(arguments[0], LAST)
    cuts = ", ".join(f"{before or ''}:{-after if after else ''}" for before, after in kind.cropping)
    return Value(f"{x.text}[{cuts}]", node.shapes[0], LAST)


def _upsampling(w: EquinoxWriter, kind: kinds.UpSampling, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    if kind.interpolation != "nearest":
        x = w.convert(x, LAST)
        if None in node.shapes[0]:
            raise w.refuse(path, "bilinear upsampling of an image of unknown size", "Fix the sizes of the input.")
        return Value(f'jax.image.resize({x.text}, {tuple(node.shapes[0])}, "bilinear")', node.shapes[0], LAST)
    first = 1 if x.layout == FIRST else 0
    repeats = "".join(f".repeat({size}, axis={axis})" for axis, size in enumerate(kind.size, first) if size != 1)
    return Value(f"{x.text}{repeats}", node.shapes[0], x.layout)


def _flatten(w: EquinoxWriter, kind: kinds.Flatten, node: Node, path: str, arguments: list[Value]) -> Value:
    x = w.convert(arguments[0], LAST)
    return Value(f"{x.text}.reshape(-1)" if len(x.shape) > 1 else x.text, node.shapes[0])


def _reshape(w: EquinoxWriter, kind: kinds.Reshape, node: Node, path: str, arguments: list[Value]) -> Value:
    return Value(f"{w.convert(arguments[0], LAST).text}.reshape({', '.join(map(str, kind.shape))})", node.shapes[0])


def _permute(w: EquinoxWriter, kind: kinds.Permute, node: Node, path: str, arguments: list[Value]) -> Value:
    axes = ", ".join(str(axis - 1) for axis in kind.axes)
    return Value(f"{w.convert(arguments[0], LAST).text}.transpose({axes})", node.shapes[0])


def _repeat(w: EquinoxWriter, kind: kinds.Repeat, node: Node, path: str, arguments: list[Value]) -> Value:
    return Value(f"{arguments[0].text}[None].repeat({kind.times}, axis=0)", node.shapes[0])


def _alike(w: EquinoxWriter, path: str, arguments: list[Value]) -> list[Value]:
    """Bring tensors into the layout of the first."""
    tensors = [value for value in arguments if value.shape]
    if len({len(value.shape) for value in tensors}) > 1:
        raise w.refuse(path, "tensors of different rank that are broadcast", "Reshape them to the same rank.")
    layout = tensors[0].layout
    return [w.convert(value, layout) if value.shape else value for value in arguments]


def _merge(w: EquinoxWriter, kind: kinds.Merge, node: Node, path: str, arguments: list[Value]) -> Value:
    values = _alike(w, path, arguments)
    layout = next(value.layout for value in values if value.shape)
    return Value(merged(kind, [value.text for value in values]), node.shapes[0], layout)


def _scaled_add(w: EquinoxWriter, kind: kinds.ScaledAdd, node: Node, path: str, arguments: list[Value]) -> Value:
    first, second = _alike(w, path, arguments)
    return Value(f"({first.text} + {kind.scale!r} * {second.text})", node.shapes[0], first.layout)


def _concatenate(w: EquinoxWriter, kind: kinds.Concatenate, node: Node, path: str, arguments: list[Value]) -> Value:
    if kind.axis == 0:
        raise w.refuse(path, "joining examples", "A model of one example has no batch axis.")
    values = _alike(w, path, arguments)
    layout, axis, last = values[0].layout, kind.axis - 1, len(values[0].shape) - 1
    if layout == FIRST:
        axis = 0 if axis == last else axis + 1
    text = f"jnp.concatenate([{', '.join(value.text for value in values)}], axis={axis})"
    return Value(text, node.shapes[0], layout)


def _dropout(w: EquinoxWriter, kind: kinds.Dropout, node: Node, path: str, arguments: list[Value]) -> Value:
    if kind.mode != "elements":
        raise w.refuse(path, f"dropout of whole {kind.mode}", "Use a plain Dropout.")
    value = w.module(node, path, f"eqx.nn.Dropout({kind.rate!r})", arguments[0])
    return Value(f"{value.text.removesuffix(')')}, {w.key()})", value.shape, value.layout)


def _identity(w: EquinoxWriter, kind: Kind, node: Node, path: str, arguments: list[Value]) -> Value:
    return w.module(node, path, w.identity(), arguments[0])


def sizes_text(sizes: Sequence[int], default: int | None = None) -> str:
    """Return one number where all are the same, nothing if it is the default."""
    if len(set(sizes)) > 1:
        return repr(tuple(sizes))
    return "" if sizes[0] == default else str(sizes[0])


def per_channel(x: Value) -> tuple[int, ...]:
    """Return the shape of one number per channel that broadcasts against an example."""
    return (channels(x), *(1,) * (len(x.shape) - 1)) if x.layout == FIRST else (channels(x),)


SHAPES: dict[type[Kind], Callable[..., Any]] = {
    kinds.Rescaling: _rescaling,
    kinds.PaddingMask: padding_mask,
    kinds.Masking: masking,
    kinds.MaskedAverage: masked_average,
    kinds.Activation: _activation,
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
