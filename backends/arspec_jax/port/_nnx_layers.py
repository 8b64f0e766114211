"""How each kind of layer is written in Flax NNX."""

from collections.abc import Callable, Sequence
from typing import Any

from arspec.port import _kinds as kinds
from arspec.port._graph import Node
from arspec.port._kinds import Kind
from arspec.port._source import Place, Value
from arspec_jax.port._functions import called
from arspec_jax.port._nnx import NnxWriter
from arspec_jax.port._recurrent import recurrent

_INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}


def options(**given: str) -> str:
    """Return keyword arguments, without those whose text is empty."""
    return "".join(f", {name}={text}" for name, text in given.items() if text)


def channels(x: Value) -> int:
    """Return the size of the last axis."""
    return int(x.shape[-1] or 0)


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


def _rescaling(w: NnxWriter, kind: kinds.Rescaling, node: Node, path: str, arguments: list[Value]) -> Value:
    x = arguments[0]

    def numbers(given: tuple[float, ...]) -> str:
        return repr(given[0]) if len(given) == 1 else f"jnp.array({list(given)}, {x.text}.dtype)"

    text = x.text if kind.scale == (1.0,) else f"{x.text} * {numbers(kind.scale)}"
    text = text if set(kind.offset) == {0.0} else f"{text} + {numbers(kind.offset)}"
    return Value(f"({text})", x.shape)


def _embedding(w: NnxWriter, kind: kinds.Embedding, node: Node, path: str, arguments: list[Value]) -> Value:
    value = w.module(node, path, f"nnx.Embed({kind.rows}, {kind.units}, rngs=rngs)", arguments[0])
    w.parameter(node, path, "embeddings", "embedding", (kind.rows, kind.units))
    return value


def _padding_mask(w: NnxWriter, kind: kinds.PaddingMask, node: Node, path: str, arguments: list[Value]) -> Value:
    value = repr(int(kind.value) if len(arguments[0].shape) == 1 else kind.value)
    text = f"({arguments[0].text} != {value})"
    return Value(f"{text}.any(axis=-1)" if kind.feature else text, node.shapes[0])


def _masking(w: NnxWriter, kind: kinds.Masking, node: Node, path: str, arguments: list[Value]) -> Value:
    x, mask = arguments
    return Value(f"jnp.where({mask.text}[..., None], {x.text}, 0)", node.shapes[0])


def _activation(w: NnxWriter, kind: kinds.Activation, node: Node, path: str, arguments: list[Value]) -> Value:
    return Value(called(kind.function, arguments[0].text, w.helper), node.shapes[0])


def _prelu(w: NnxWriter, kind: kinds.PReLU, node: Node, path: str, arguments: list[Value]) -> Value:
    w.helper("PReLU")
    value = w.module(node, path, f"PReLU({tuple(kind.shape)})", arguments[0])
    w.parameter(node, path, "slope", "slope", tuple(kind.shape))
    return value


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


def _masked_average(w: NnxWriter, kind: kinds.MaskedAverage, node: Node, path: str, arguments: list[Value]) -> Value:
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
    kinds.Rescaling: _rescaling,
    kinds.Embedding: _embedding,
    kinds.PaddingMask: _padding_mask,
    kinds.Masking: _masking,
    kinds.Activation: _activation,
    kinds.PReLU: _prelu,
    kinds.Pooling: _pooling,
    kinds.GlobalPooling: _global_pooling,
    kinds.MaskedAverage: _masked_average,
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
    kinds.MultiHeadAttention: _attention,
    **dict.fromkeys((kinds.SimpleRNN, kinds.LSTM, kinds.GRU, kinds.Bidirectional), recurrent),
}
