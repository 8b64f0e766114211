"""How pooling, shapes, merges and activation functions are written in Flax NNX."""

from collections.abc import Callable, Sequence
from typing import Any

from arspec.port import _kinds as kinds
from arspec.port._graph import Node
from arspec.port._kinds import Kind
from arspec.port._source import Value
from arspec_jax.port._functions import called
from arspec_jax.port._nnx import NnxWriter
from arspec_jax.port._writer import options

_INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}


def _rescaling(w: NnxWriter, kind: kinds.Rescaling, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]

    def numbers(given: tuple[float, ...]) -> str:
        return repr(given[0]) if len(given) == 1 else f"jnp.array({list(given)}, {x.text}.dtype)"

    text = x.text if kind.scale == (1.0,) else f"{x.text} * {numbers(kind.scale)}"
    text = text if set(kind.offset) == {0.0} else f"{text} + {numbers(kind.offset)}"
    return Value(f"({text})", x.shape)


def padding_mask(w: Any, kind: kinds.PaddingMask, node: Node, path: str, arguments: list[Value]) -> Value:
    """Write the comparison that says which steps count."""
    value = repr(int(kind.value) if len(arguments[0].shape) == 1 else kind.value)
    text = f"({arguments[0].text} != {value})"
    return Value(f"{text}.any(axis=-1)" if kind.feature else text, node.shapes[0])


def masking(w: Any, kind: kinds.Masking, node: Node, path: str, arguments: list[Value]) -> Value:
    """Write zeros where steps do not count."""
    x, mask = arguments
    return Value(f"jnp.where({mask.text}[..., None], {x.text}, 0)", node.shapes[0])


def _activation(w: NnxWriter, kind: kinds.Activation, node: Node, path: str, arguments: list[Value]) -> Value:
    return Value(called(kind.function, arguments[0].text, w.helper), node.shapes[0])


def _pooling(w: NnxWriter, kind: kinds.Pooling, node: Node, path: str, arguments: list[Value]) -> Value:
    padding = {"valid": "", "same": '"SAME"', "explicit": repr(tuple(kind.pads))}[kind.padding]
    given = options(
        strides=repr(tuple(kind.strides)),
        padding=padding,
        count_include_pad="False" if kind.mode == "average" and padding else "",
    )
    name = "max_pool" if kind.mode == "max" else "avg_pool"
    return Value(f"nnx.{name}({arguments[0].text}, {tuple(kind.size)}{given})", node.shapes[0])


def _global_pooling(w: NnxWriter, kind: kinds.GlobalPooling, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    axes = tuple(range(1, len(x.shape)))
    given = options(axis=str(axes[0] if len(axes) == 1 else axes), keepdims="True" if kind.keep else "")
    name = "mean" if kind.mode == "average" else "max"
    return Value(f"{x.text}.{name}({given.removeprefix(', ')})", node.shapes[0])


def masked_average(w: Any, kind: kinds.MaskedAverage, node: Node, path: str, arguments: list[Value]) -> Value:
    """Write the mean over the steps that count."""
    x, mask = arguments
    w.helper("masked_mean")
    keep = options(keepdims="True" if kind.keep else "")
    return Value(f"masked_mean({x.text}, {mask.text}{keep})", node.shapes[0])


def _zero_padding(w: NnxWriter, kind: kinds.ZeroPadding, node: Node, path: str, arguments: list[Value]) -> Value:
    pairs = ((0, 0), *kind.padding, (0, 0))
    return Value(f"jnp.pad({arguments[0].text}, {pairs})", node.shapes[0])


def _cropping(w: NnxWriter, kind: kinds.Cropping, node: Node, path: str, arguments: list[Value]) -> Value:
    cuts = ", ".join(f"{before or ''}:{-after if after else ''}" for before, after in kind.cropping)
    return Value(f"{arguments[0].text}[:, {cuts}]", node.shapes[0])


def _upsampling(w: NnxWriter, kind: kinds.UpSampling, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    if kind.interpolation == "nearest":
        repeats = "".join(f".repeat({size}, axis={axis})" for axis, size in enumerate(kind.size, 1) if size != 1)
        return Value(f"{x.text}{repeats}", node.shapes[0])
    sizes = [f"{x.text}.shape[{i}]" if n is None else str(n) for i, n in enumerate((None, *node.shapes[0]))]
    if None in node.shapes[0]:
        raise w.refuse(path, "bilinear upsampling of an image of unknown size", "Fix the sizes of the input.")
    return Value(f'jax.image.resize({x.text}, ({", ".join(sizes)}), "bilinear")', node.shapes[0])


def _flatten(w: NnxWriter, kind: kinds.Flatten, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    return Value(f"{x.text}.reshape({x.text}.shape[0], -1)" if len(x.shape) > 1 else x.text, node.shapes[0])


def _reshape(w: NnxWriter, kind: kinds.Reshape, node: Node, path: str, arguments: list[Value]) -> Value:
    return Value(f"{arguments[0].text}.reshape(-1, {', '.join(map(str, kind.shape))})", node.shapes[0])


def _permute(w: NnxWriter, kind: kinds.Permute, node: Node, path: str, arguments: list[Value]) -> Value:
    return Value(f"{arguments[0].text}.transpose(0, {', '.join(map(str, kind.axes))})", node.shapes[0])


def _repeat(w: NnxWriter, kind: kinds.Repeat, node: Node, path: str, arguments: list[Value]) -> Value:
    return Value(f"{arguments[0].text}[:, None].repeat({kind.times}, axis=1)", node.shapes[0])


def _merge(w: NnxWriter, kind: kinds.Merge, node: Node, path: str, arguments: list[Value]) -> Value:
    return Value(merged(kind, [value.text for value in arguments]), node.shapes[0])


def merged(kind: kinds.Merge, texts: Sequence[str]) -> str:
    """Return the expression of an elementwise operation."""
    if kind.operation == "average":
        return f"(({' + '.join(texts)}) / {len(texts)})"
    if kind.operation in _INFIX:
        return f"({f' {_INFIX[kind.operation]} '.join(texts)})"
    found = texts[0]
    for other in texts[1:]:
        found = f"jnp.{kind.operation}({found}, {other})"
    return found


def _scaled_add(w: NnxWriter, kind: kinds.ScaledAdd, node: Node, path: str, arguments: list[Value]) -> Value:
    first, second = arguments
    return Value(f"({first.text} + {kind.scale!r} * {second.text})", node.shapes[0])


def _concatenate(w: NnxWriter, kind: kinds.Concatenate, node: Node, path: str, arguments: list[Value]) -> Value:
    texts = ", ".join(value.text for value in arguments)
    return Value(f"jnp.concatenate([{texts}], axis={kind.axis})", node.shapes[0])


def _dropout(w: NnxWriter, kind: kinds.Dropout, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    w.is_random = True
    rank = len(x.shape)
    axes = {"elements": "", "channels": repr(tuple(range(1, rank))), "examples": repr(tuple(range(1, rank + 1)))}
    text = f"nnx.Dropout({kind.rate!r}{options(broadcast_dims=axes[kind.mode])}, rngs=rngs)"
    return w.module(node, path, text, x)


def _identity(w: NnxWriter, kind: Kind, node: Node, path: str, arguments: list[Value]) -> Value:
    return w.module(node, path, w.identity(), arguments[0])


SHAPES: dict[type[Kind], Callable[..., Any]] = {
    kinds.Rescaling: _rescaling,
    kinds.PaddingMask: padding_mask,
    kinds.Masking: masking,
    kinds.Activation: _activation,
    kinds.Pooling: _pooling,
    kinds.GlobalPooling: _global_pooling,
    kinds.MaskedAverage: masked_average,
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
