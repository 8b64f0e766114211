"""How each kind of layer with weights is written in Flax NNX; EMITTERS has all kinds."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from arspec.port import _kinds as kinds
from arspec.port._graph import Node
from arspec.port._kinds import Kind
from arspec.port._source import Place, Value
from arspec_jax.port._nnx import NnxWriter
from arspec_jax.port._nnx_shapes import SHAPES
from arspec_jax.port._recurrent import NNX, recurrent
from arspec_jax.port._writer import channels, options


def _window(sizes: Sequence[int]) -> str:
    """Return sizes unless all are 1, the default everywhere."""
    return "" if set(sizes) == {1} else repr(tuple(sizes))


def _bias(kind: Any) -> str:
    return "" if kind.use_bias else "False"


def _dense(w: NnxWriter, kind: kinds.Dense, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    text = f"nnx.Linear({channels(x)}, {kind.units}{options(use_bias=_bias(kind))}, rngs=rngs)"
    value = w.module(node, path, text, x, result="pre_activation")
    w.parameter(node, path, "kernel", "kernel", (channels(x), kind.units))
    if kind.use_bias:
        w.parameter(node, path, "bias", "bias", (kind.units,))
    return w.activated(node, path, kind.activation, value)


def _conv_text(kind: Any, inputs: int, outputs: int, groups: int, bias: str) -> str:
    given = options(
        strides=_window(kind.strides),
        padding=f'"{kind.padding.upper()}"',
        kernel_dilation=_window(kind.dilation),
        feature_group_count="" if groups == 1 else str(groups),
        use_bias=bias,
    )
    return f"nnx.Conv({inputs}, {outputs}, {tuple(kind.kernel_size)}{given}, rngs=rngs)"


def _convolution(w: NnxWriter, kind: kinds.Convolution, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    text = _conv_text(kind, channels(x), kind.filters, kind.groups, _bias(kind))
    value = w.module(node, path, text, x, result="pre_activation")
    w.parameter(node, path, "kernel", "kernel", (*kind.kernel_size, channels(x) // kind.groups, kind.filters))
    if kind.use_bias:
        w.parameter(node, path, "bias", "bias", (kind.filters,))
    return w.activated(node, path, kind.activation, value)


def _depthwise(w: NnxWriter, kind: kinds.DepthwiseConvolution, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    outputs = channels(x) * kind.multiplier
    text = _conv_text(kind, channels(x), outputs, channels(x), _bias(kind))
    value = w.module(node, path, text, x, result="pre_activation")
    shape = (*kind.kernel_size, 1, outputs)
    w.parameter(node, path, "kernel", "kernel", shape, ("reshape", shape))
    if kind.use_bias:
        w.parameter(node, path, "bias", "bias", (outputs,))
    return w.activated(node, path, kind.activation, value)


def _separable(w: NnxWriter, kind: kinds.SeparableConvolution, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    middle = channels(x) * kind.multiplier
    first = w.extra(node, "depthwise")
    w.attribute(first, _conv_text(kind, channels(x), middle, channels(x), "False"))
    ones = (1,) * len(kind.kernel_size)
    text = f"nnx.Conv({middle}, {kind.filters}, {ones}{options(use_bias=_bias(kind))}, rngs=rngs)"
    inner = Value(f"self.{first}({x.text})", (*node.shapes[0][:-1], middle))
    value = w.module(node, path, text, inner, result="pre_activation")
    if node.call == 0:
        target, shape = w.path_of(first), (*kind.kernel_size, 1, middle)
        w.weight_of(node, path, "depthwise_kernel", first, "kernel", shape, ("reshape", shape))
        w.place(path, "depthwise_kernel", target, "kernel")
        w.place(path, "input", target, "input")
    w.parameter(node, path, "pointwise_kernel", "kernel", (*ones, middle, kind.filters))
    w.place(path, "pointwise_kernel", w.layers[path].path, "kernel")
    if kind.use_bias:
        w.parameter(node, path, "bias", "bias", (kind.filters,))
    return w.activated(node, path, kind.activation, value)


def _transposed(
    w: NnxWriter, kind: kinds.TransposedConvolution, node: Node, path: str, arguments: list[Value]
) -> Value:
    x = arguments[0]
    given = options(
        strides=_window(kind.strides),
        padding=f'"{kind.padding.upper()}"',
        transpose_kernel="True",
        use_bias=_bias(kind),
    )
    text = f"nnx.ConvTranspose({channels(x)}, {kind.filters}, {tuple(kind.kernel_size)}{given}, rngs=rngs)"
    value = w.module(node, path, text, x, result="pre_activation")
    w.parameter(node, path, "kernel", "kernel", (*kind.kernel_size, kind.filters, channels(x)))
    if kind.use_bias:
        w.parameter(node, path, "bias", "bias", (kind.filters,))
    return w.activated(node, path, kind.activation, value)


def _normalization(w: NnxWriter, kind: Any, node: Node, path: str, x: Value, head: str, *, fast: bool = True) -> Value:
    """Write a normalization: its constructor begins with `head`; `fast` has the option use_fast_variance."""
    given = options(
        epsilon=repr(kind.epsilon),
        use_scale="" if getattr(kind, "use_scale", True) else "False",
        use_bias="" if getattr(kind, "use_shift", True) else "False",
        use_fast_variance="False" if fast else "",
    )
    value = w.module(node, path, f"{head}{given}, rngs=rngs)", x)
    if getattr(kind, "use_scale", True):
        w.parameter(node, path, "scale", "scale", (channels(x),))
    if getattr(kind, "use_shift", False):
        w.parameter(node, path, "shift", "bias", (channels(x),))
    return value


def _batch_normalization(
    w: NnxWriter, kind: kinds.BatchNormalization, node: Node, path: str, arguments: list[Value]
) -> Value:
    x = arguments[0]
    name = "nnx.BatchNorm"
    if kind.unbiased:
        w.helper("UnbiasedBatchNorm")
        name = "UnbiasedBatchNorm"
    value = _normalization(w, kind, node, path, x, f"{name}({channels(x)}, momentum={kind.momentum!r}")
    for role, name in {"moving_mean": "mean", "moving_variance": "var"}.items():
        w.parameter(node, path, role, name, (channels(x),))
    return value


def _layer_normalization(
    w: NnxWriter, kind: kinds.LayerNormalization, node: Node, path: str, arguments: list[Value]
) -> Value:
    return _normalization(w, kind, node, path, arguments[0], f"nnx.LayerNorm({channels(arguments[0])}")


def _group_normalization(
    w: NnxWriter, kind: kinds.GroupNormalization, node: Node, path: str, arguments: list[Value]
) -> Value:
    x = arguments[0]
    groups = channels(x) if kind.groups == -1 else kind.groups
    return _normalization(w, kind, node, path, x, f"nnx.GroupNorm({channels(x)}, num_groups={groups}")


def _rms_normalization(
    w: NnxWriter, kind: kinds.RMSNormalization, node: Node, path: str, arguments: list[Value]
) -> Value:
    return _normalization(w, kind, node, path, arguments[0], f"nnx.RMSNorm({channels(arguments[0])}", fast=False)


def _scale(w: NnxWriter, kind: kinds.Scale, node: Node, path: str, arguments: list[Value]) -> Value:
    w.helper("Scale")
    value = w.module(node, path, f"Scale({channels(arguments[0])})", arguments[0])
    w.parameter(node, path, "scale", "scale", (channels(arguments[0]),))
    return value


def _standardize(w: NnxWriter, kind: kinds.Standardize, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]
    w.helper("Constant")
    w.helper("Standardize")
    value = w.module(node, path, f"Standardize({channels(x)}, epsilon={kind.epsilon!r})", x)
    for role in ("mean", "variance"):
        w.parameter(node, path, role, role, (channels(x),))
    return value


def _embedding(w: NnxWriter, kind: kinds.Embedding, node: Node, path: str, arguments: list[Value]) -> Value:
    value = w.module(node, path, f"nnx.Embed({kind.rows}, {kind.units}, rngs=rngs)", arguments[0])
    w.parameter(node, path, "embeddings", "embedding", (kind.rows, kind.units))
    return value


def _prelu(w: NnxWriter, kind: kinds.PReLU, node: Node, path: str, arguments: list[Value]) -> Value:
    w.helper("PReLU")
    value = w.module(node, path, f"PReLU({tuple(kind.shape)})", arguments[0])
    w.parameter(node, path, "slope", "slope", tuple(kind.shape))
    return value


def _attention(w: NnxWriter, kind: kinds.MultiHeadAttention, node: Node, path: str, arguments: list[Value]) -> Value:
    count = len(arguments) - len(kind.masks)
    query, value, key = (*arguments[:count], *arguments[1:2])[:3] if count > 1 else (arguments[0],) * 3
    if kind.value_size != kind.key_size:
        what = f"an attention with keys of size {kind.key_size} and values of size {kind.value_size}"
        raise w.refuse(path, what, "nnx.MultiHeadAttention needs one size.")
    if channels(key) != channels(value):
        raise w.refuse(path, "keys and values with different numbers of features", "Project one of them first.")
    features, others, heads, size = channels(query), channels(key), kind.heads, kind.key_size
    w.helper("attention")
    given = options(
        in_kv_features="" if others == features else str(others),
        use_bias=_bias(kind),
        attention_fn="attention",
        decode="False",
        rngs="rngs",
    )
    attribute = w.name_layer(node)
    w.attribute(attribute, f"nnx.MultiHeadAttention({heads}, {features}, {heads * size}{given})")
    target = w.path_of(attribute)
    sequence = [query.text] if query == key == value else [query.text, key.text, value.text]
    masks = [f"nnx.make_causal_mask({query.text}[..., 0], dtype=bool)"] if kind.causal else []
    for role, mask in zip(kind.masks, arguments[count:], strict=True):
        masks.append(f"{mask.text}[:, None, {':, None' if role == 'query' else 'None, :'}]")
    call = f"self.{attribute}({', '.join(sequence)}{options(mask=' & '.join(masks))})"
    if node.call == 0:
        w.layers[path] = w.traced[path] = Place(target)
        w.place(path, "output", target, "output")
        shapes = {"query": (features, heads, size), "key": (others, heads, size), "value": (others, heads, size)}
        for name, shape in (shapes | {"output": (heads, size, features)}).items():
            attribute_of = f"{attribute}.{'out' if name == 'output' else name}"
            w.weight_of(node, path, f"{name}_kernel", attribute_of, "kernel", shape)
            w.place(path, f"{name}_kernel", target, f"{name}_kernel")
            if kind.use_bias:
                w.weight_of(
                    node, path, f"{name}_bias", attribute_of, "bias", shape[1:] if name != "output" else shape[2:]
                )
                w.place(path, f"{name}_bias", target, f"{name}_bias")
    return Value(call, node.shapes[0])


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
    kinds.Embedding: _embedding,
    kinds.PReLU: _prelu,
    kinds.MultiHeadAttention: _attention,
    **dict.fromkeys((kinds.SimpleRNN, kinds.LSTM, kinds.GRU, kinds.Bidirectional), partial(recurrent, idiom=NNX)),
    **SHAPES,
}
