"""What each kind looks like in Keras source code, and where its weights are."""

from collections.abc import Callable
from typing import Any

from arspec.port import _kinds as kinds
from arspec.port._graph import Node
from arspec.port._kinds import Kind
from arspec.port._source import Value
from arspec_keras.port._pieces import affine, function_head, layer, options, short, unless
from arspec_keras.port._write import KerasWriter

_STATISTICS = {"moving_mean": "moving_mean", "moving_variance": "moving_variance"}
_INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}


def _dense(w: KerasWriter, kind: kinds.Dense, node: Node, path: str, arguments: list[Value]) -> Value:
    return affine(w, kind, node, path, f"layers.Dense({kind.units}", arguments[0], ("kernel", "bias"))


def _window(kind: Any) -> str:
    return f"{short(kind.kernel_size)}" + options(
        strides=unless(short(kind.strides), 1),
        padding=unless(kind.padding, "valid"),
        dilation_rate=unless(short(getattr(kind, "dilation", (1,))), 1),
    )


def _convolution(w: KerasWriter, kind: kinds.Convolution, node: Node, path: str, arguments: list[Value]) -> Value:
    head = f"layers.Conv{len(kind.kernel_size)}D({kind.filters}, {_window(kind)}"
    head += options(groups=unless(kind.groups, 1))
    return affine(w, kind, node, path, head, arguments[0], ("kernel", "bias"))


def _depthwise(
    w: KerasWriter, kind: kinds.DepthwiseConvolution, node: Node, path: str, arguments: list[Value]
) -> Value:
    head = f"layers.DepthwiseConv{len(kind.kernel_size)}D({_window(kind)}"
    head += options(depth_multiplier=unless(kind.multiplier, 1))
    return affine(w, kind, node, path, head, arguments[0], ("kernel", "bias"))


def _separable(
    w: KerasWriter, kind: kinds.SeparableConvolution, node: Node, path: str, arguments: list[Value]
) -> Value:
    head = f"layers.SeparableConv{len(kind.kernel_size)}D({kind.filters}, {_window(kind)}"
    head += options(depth_multiplier=unless(kind.multiplier, 1))
    return affine(w, kind, node, path, head, arguments[0], ("depthwise_kernel", "pointwise_kernel", "bias"))


def _transposed(
    w: KerasWriter, kind: kinds.TransposedConvolution, node: Node, path: str, arguments: list[Value]
) -> Value:
    head = f"layers.Conv{len(kind.kernel_size)}DTranspose({kind.filters}, {_window(kind)}"
    return affine(w, kind, node, path, head, arguments[0], ("kernel", "bias"))


def _normalization(kind: Any) -> dict[str, str]:
    return {role: name for role, name in (("scale", "gamma"), ("shift", "beta")) if role in kind.roles()}


def _centered(kind: Any) -> str:
    return options(
        epsilon=kind.epsilon, center=unless(kind.use_shift, True), scale=unless(kind.use_scale, True)
    ).removeprefix(", ")


def _batch_normalization(
    w: KerasWriter, kind: kinds.BatchNormalization, node: Node, path: str, arguments: list[Value]
) -> Value:
    cls = "layers.BatchNormalization"
    if kind.unbiased:
        w.helper("UnbiasedBatchNormalization")
        cls = "UnbiasedBatchNormalization"
    head = f"{cls}(momentum={kind.momentum!r}, {_centered(kind)}"
    return layer(w, node, path, head, arguments[0], {**_normalization(kind), **_STATISTICS})


def _layer_normalization(
    w: KerasWriter, kind: kinds.LayerNormalization, node: Node, path: str, arguments: list[Value]
) -> Value:
    head = f"layers.LayerNormalization({_centered(kind)}"
    return layer(w, node, path, head, arguments[0], _normalization(kind))


def _group_normalization(
    w: KerasWriter, kind: kinds.GroupNormalization, node: Node, path: str, arguments: list[Value]
) -> Value:
    head = f"layers.GroupNormalization(groups={kind.groups}, {_centered(kind)}"
    return layer(w, node, path, head, arguments[0], _normalization(kind))


def _rms_normalization(
    w: KerasWriter, kind: kinds.RMSNormalization, node: Node, path: str, arguments: list[Value]
) -> Value:
    head = f"layers.RMSNormalization(epsilon={kind.epsilon!r}"
    return layer(w, node, path, head, arguments[0], {"scale": "scale"})


def _scale(w: KerasWriter, kind: kinds.Scale, node: Node, path: str, arguments: list[Value]) -> Value:
    w.helper("Scale")
    return layer(w, node, path, "Scale(", arguments[0], {"scale": "scale"})


def _rescaling(w: KerasWriter, kind: kinds.Rescaling, node: Node, path: str, arguments: list[Value]) -> Value:
    scale, offset = (each[0] if len(each) == 1 else list(each) for each in (kind.scale, kind.offset))
    return layer(w, node, path, f"layers.Rescaling({scale!r}{options(offset=unless(offset, 0.0))}", arguments[0])


def _embedding(w: KerasWriter, kind: kinds.Embedding, node: Node, path: str, arguments: list[Value]) -> Value:
    if kind.mask_zero:
        raise w.refuse(path, "mask_zero", "Masks are not written for Keras.")
    return layer(
        w, node, path, f"layers.Embedding({kind.rows}, {kind.units}", arguments[0], {"embeddings": "embeddings"}
    )


def _activation(w: KerasWriter, kind: kinds.Activation, node: Node, path: str, arguments: list[Value]) -> Value:
    return layer(w, node, path, function_head(w, kind.function, path).removesuffix(", "), arguments[0])


def _prelu(w: KerasWriter, kind: kinds.PReLU, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    shared = [axis for axis, size in enumerate(kind.shape, 1) if size == 1 and x.shape[axis - 1] != 1]
    return layer(w, node, path, f"layers.PReLU({f'shared_axes={shared}' if shared else ''}", x, {"slope": "alpha"})


def _pooling(w: KerasWriter, kind: kinds.Pooling, node: Node, path: str, arguments: list[Value]) -> Value:
    rank, mode = len(kind.size), "Max" if kind.mode == "max" else "Average"
    if kind.padding == "explicit":
        if kind.mode != "max":
            raise w.refuse(path, "an average pooling that does not count its padding", "Use padding 'same' or none.")
        w.helper(f"PaddedMaxPooling{rank}D")
        head = f"PaddedMaxPooling{rank}D({tuple(kind.size)}, {tuple(kind.strides)}, {kind.pads}"
        return layer(w, node, path, head, arguments[0])
    head = f"layers.{mode}Pooling{rank}D({short(kind.size)}"
    head += options(strides=unless(short(kind.strides), short(kind.size)), padding=unless(kind.padding, "valid"))
    return layer(w, node, path, head, arguments[0])


def _global_pooling(w: KerasWriter, kind: kinds.GlobalPooling, node: Node, path: str, arguments: list[Value]) -> Value:
    mode, rank = "Max" if kind.mode == "max" else "Average", len(arguments[0].shape) - 1
    keep = "keepdims=True" if kind.keep else ""
    return layer(w, node, path, f"layers.Global{mode}Pooling{rank}D({keep}", arguments[0])


def _around(name: str, field: str) -> Callable[..., Value]:
    def emit(w: KerasWriter, kind: Any, node: Node, path: str, arguments: list[Value]) -> Value:
        pairs = getattr(kind, field)
        given = pairs[0] if len(pairs) == 1 else pairs
        return layer(w, node, path, f"layers.{name}{len(pairs)}D({given!r}", arguments[0])

    return emit


def _upsampling(w: KerasWriter, kind: kinds.UpSampling, node: Node, path: str, arguments: list[Value]) -> Value:
    rank = len(kind.size)
    if kind.interpolation != "nearest" and rank != 2:
        raise w.refuse(path, f"{kind.interpolation} along {rank} axes", "Use 'nearest'.")
    size = kind.size[0] if rank == 1 else tuple(kind.size)
    mode = options(interpolation=unless(kind.interpolation, "nearest"))
    return layer(w, node, path, f"layers.UpSampling{rank}D({size}{mode}", arguments[0])


def _shaped(text: Callable[[Any], str]) -> Callable[..., Value]:
    """Return an emitter of a layer whose constructor is all that there is to say."""

    def emit(w: KerasWriter, kind: Any, node: Node, path: str, arguments: list[Value]) -> Value:
        return layer(w, node, path, f"layers.{text(kind)}", arguments[0])

    return emit


def _merge(w: KerasWriter, kind: kinds.Merge, node: Node, path: str, arguments: list[Value]) -> Value:
    if all(value.shape for value in arguments) and kind.operation != "divide":
        cls = kind.operation.capitalize()
        return Value(w.keras_layer(node, path, f"layers.{cls}(", arguments), node.shapes[0])
    texts = [value.text for value in arguments]
    if kind.operation in _INFIX:
        return Value(f"({f' {_INFIX[kind.operation]} '.join(texts)})", node.shapes[0])
    if kind.operation == "average":
        return Value(f"(({' + '.join(texts)}) / {len(texts)})", node.shapes[0])
    text = texts[0]
    for other in texts[1:]:
        text = f"keras.ops.{kind.operation}({text}, {other})"
    return Value(text, node.shapes[0])


def _scaled_add(w: KerasWriter, kind: kinds.ScaledAdd, node: Node, path: str, arguments: list[Value]) -> Value:
    one, other = arguments
    return Value(f"({one.text} + {kind.scale!r} * {other.text})", node.shapes[0])


def _concatenate(w: KerasWriter, kind: kinds.Concatenate, node: Node, path: str, arguments: list[Value]) -> Value:
    axis = unless(kind.axis, len(node.shapes[0]))
    head = "layers.Concatenate(" + ("" if axis is None else f"axis={axis}")
    return Value(w.keras_layer(node, path, head, arguments), node.shapes[0])


def _dropout(w: KerasWriter, kind: kinds.Dropout, node: Node, path: str, arguments: list[Value]) -> Value:
    rank = len(arguments[0].shape)
    head = f"layers.Dropout({kind.rate!r}"
    if kind.mode == "channels":
        head = f"layers.SpatialDropout{rank - 1}D({kind.rate!r}"
    elif kind.mode == "examples":
        head += options(noise_shape=(None, *(1,) * rank))
    return layer(w, node, path, head, arguments[0])


def _attention(w: KerasWriter, kind: kinds.MultiHeadAttention, node: Node, path: str, arguments: list[Value]) -> Value:
    if kind.masks:
        raise w.refuse(path, "an attention with padding masks", "Masks are not written for Keras.")
    query, value, key = (arguments + arguments[1:2])[:3] if len(arguments) > 1 else (arguments[0],) * 3
    head = f"layers.MultiHeadAttention({kind.heads}, {kind.key_size}"
    head += options(value_dim=unless(kind.value_size, kind.key_size), use_bias=unless(kind.use_bias, True))
    names = {"query": "query", "key": "key", "value": "value", "output": "attention_output"}
    weights = {role: f"{names[role.partition('_')[0]]}/{role.partition('_')[2]}" for role in kind.roles()}
    text = w.keras_layer(node, path, head, [query, value, key], weights)
    constructor = text.removesuffix(f"([{query.text}, {value.text}, {key.text}])")
    causal = ", use_causal_mask=True" if kind.causal else ""
    return Value(f"{constructor}({query.text}, {value.text}, {key.text}{causal})", node.shapes[0])


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
    kinds.Rescaling: _rescaling,
    kinds.Embedding: _embedding,
    kinds.Activation: _activation,
    kinds.PReLU: _prelu,
    kinds.Pooling: _pooling,
    kinds.GlobalPooling: _global_pooling,
    kinds.ZeroPadding: _around("ZeroPadding", "padding"),
    kinds.Cropping: _around("Cropping", "cropping"),
    kinds.UpSampling: _upsampling,
    kinds.Flatten: _shaped(lambda kind: "Flatten("),
    kinds.Reshape: _shaped(lambda kind: f"Reshape({kind.shape!r}"),
    kinds.Permute: _shaped(lambda kind: f"Permute({kind.axes!r}"),
    kinds.Repeat: _shaped(lambda kind: f"RepeatVector({kind.times}"),
    kinds.Identity: _shaped(lambda kind: "Identity("),
    kinds.Merge: _merge,
    kinds.ScaledAdd: _scaled_add,
    kinds.Concatenate: _concatenate,
    kinds.Dropout: _dropout,
    kinds.MultiHeadAttention: _attention,
}
