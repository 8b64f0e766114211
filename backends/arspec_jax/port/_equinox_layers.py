"""How each kind of layer with weights is written in Equinox; EMITTERS has all kinds."""

from collections.abc import Callable
from functools import partial
from typing import Any

from arspec.port import _kinds as kinds
from arspec.port._graph import Node
from arspec.port._kinds import Kind
from arspec.port._mapping import Step
from arspec.port._source import FIRST, LAST, Place, Value
from arspec_jax.port._equinox import EquinoxWriter
from arspec_jax.port._equinox_recurrent import EQUINOX
from arspec_jax.port._equinox_shapes import SHAPES, per_channel, sizes_text
from arspec_jax.port._recurrent import recurrent
from arspec_jax.port._writer import channels, options


def _bias(kind: Any) -> str:
    return "" if kind.use_bias else "False"


def _dense(w: EquinoxWriter, kind: kinds.Dense, node: Node, path: str, arguments: list[Value]) -> Value:
    x = w.convert(arguments[0], LAST)
    text = f"eqx.nn.Linear({channels(x)}, {kind.units}{options(use_bias=_bias(kind))}, key=next(keys))"
    value = w.module(node, path, text, x, result="pre_activation", mapped=len(x.shape) - 1)
    w.parameter(node, path, "kernel", "weight", (kind.units, channels(x)), ("transpose", (1, 0)))
    if kind.use_bias:
        w.parameter(node, path, "bias", "bias", (kind.units,))
    return w.activated(node, path, kind.activation, value)


def _conv_text(kind: Any, inputs: int, outputs: int, groups: int, bias: str) -> str:
    rank = len(kind.kernel_size)
    causal = f"(({(kind.kernel_size[0] - 1) * kind.dilation[0]}, 0),)"
    given = options(
        stride=sizes_text(kind.strides, 1),
        padding={"valid": "", "same": '"SAME"', "causal": causal}[kind.padding],
        dilation=sizes_text(kind.dilation, 1),
        groups="" if groups == 1 else str(groups),
        use_bias=bias,
    )
    return f"eqx.nn.Conv{rank}d({inputs}, {outputs}, {sizes_text(kind.kernel_size)}{given}, key=next(keys))"


def _to_kernel(rank: int) -> Step:
    """(*spatial, input, output) -> (output, input, *spatial)."""
    return ("transpose", (rank + 1, rank, *range(rank)))


def _conv_bias(w: EquinoxWriter, kind: Any, node: Node, path: str, outputs: int) -> None:
    if kind.use_bias:
        shape = (outputs, *(1,) * len(kind.kernel_size))
        w.parameter(node, path, "bias", "bias", shape, ("reshape", shape))


def _convolution(w: EquinoxWriter, kind: kinds.Convolution, node: Node, path: str, arguments: list[Value]) -> Value:
    x = w.convert(arguments[0], FIRST)
    text = _conv_text(kind, channels(x), kind.filters, kind.groups, _bias(kind))
    value = w.module(node, path, text, x, result="pre_activation")
    shape = (kind.filters, channels(x) // kind.groups, *kind.kernel_size)
    w.parameter(node, path, "kernel", "weight", shape, _to_kernel(len(kind.kernel_size)))
    _conv_bias(w, kind, node, path, kind.filters)
    return w.activated(node, path, kind.activation, value)


def _to_depthwise(kind: Any, outputs: int) -> tuple[tuple[int, ...], tuple[Step, ...]]:
    rank, shape = len(kind.kernel_size), (outputs, 1, *kind.kernel_size)
    return shape, (("transpose", (rank, rank + 1, *range(rank))), ("reshape", shape))


def _depthwise(
    w: EquinoxWriter, kind: kinds.DepthwiseConvolution, node: Node, path: str, arguments: list[Value]
) -> Value:
    x = w.convert(arguments[0], FIRST)
    outputs = channels(x) * kind.multiplier
    text = _conv_text(kind, channels(x), outputs, channels(x), _bias(kind))
    value = w.module(node, path, text, x, result="pre_activation")
    shape, steps = _to_depthwise(kind, outputs)
    w.parameter(node, path, "kernel", "weight", shape, *steps)
    _conv_bias(w, kind, node, path, outputs)
    return w.activated(node, path, kind.activation, value)


def _separable(
    w: EquinoxWriter, kind: kinds.SeparableConvolution, node: Node, path: str, arguments: list[Value]
) -> Value:
    x, rank = w.convert(arguments[0], FIRST), len(kind.kernel_size)
    middle, first = channels(x) * kind.multiplier, w.extra(node, "depthwise")
    w.attribute(first, _conv_text(kind, channels(x), middle, channels(x), "False"))
    inner = Value(f"self.{first}({x.text})", (*node.shapes[0][:-1], middle), FIRST)
    text = f"eqx.nn.Conv{rank}d({middle}, {kind.filters}, 1{options(use_bias=_bias(kind))}, key=next(keys))"
    value = w.module(node, path, text, inner, result="pre_activation")
    if node.call == 0:
        target, (shape, steps) = w.path_of(first), _to_depthwise(kind, middle)
        w.weight(path, "depthwise_kernel", f"{target}.weight", shape, *steps)
        w.place(path, "depthwise_kernel", target, "kernel")
        w.place(path, "input", target, "input", FIRST)
    w.parameter(node, path, "pointwise_kernel", "weight", (kind.filters, middle, *(1,) * rank), _to_kernel(rank))
    w.place(path, "pointwise_kernel", w.layers[path].path, "kernel")
    _conv_bias(w, kind, node, path, kind.filters)
    return w.activated(node, path, kind.activation, value)


def _transposed(
    w: EquinoxWriter, kind: kinds.TransposedConvolution, node: Node, path: str, arguments: list[Value]
) -> Value:
    x, rank = w.convert(arguments[0], FIRST), len(kind.kernel_size)
    more = [max(s - k, 0) for k, s in zip(kind.kernel_size, kind.strides, strict=True)]
    given = options(
        stride=sizes_text(kind.strides, 1),
        padding='"SAME"' if kind.padding == "same" else "",
        output_padding=sizes_text(more, 0) if kind.padding == "valid" else "",
        use_bias=_bias(kind),
    )
    head = f"eqx.nn.ConvTranspose{rank}d({channels(x)}, {kind.filters}, {sizes_text(kind.kernel_size)}"
    value = w.module(node, path, f"{head}{given}, key=next(keys))", x, result="pre_activation")
    shape = (kind.filters, channels(x), *kind.kernel_size)
    steps: tuple[Step, ...] = (
        ("flip", tuple(range(rank))),
        ("transpose", (rank, rank + 1, *range(rank))),
    )
    w.parameter(node, path, "kernel", "weight", shape, *steps)
    _conv_bias(w, kind, node, path, kind.filters)
    return w.activated(node, path, kind.activation, value)


def _batch_normalization(
    w: EquinoxWriter, kind: kinds.BatchNormalization, node: Node, path: str, arguments: list[Value]
) -> Value:
    x = w.convert(arguments[0], FIRST)
    given = options(
        use_scale="" if kind.use_scale else "False",
        use_shift="" if kind.use_shift else "False",
        unbiased="True" if kind.unbiased else "",
    )
    w.helper("BatchNorm")
    text = f"BatchNorm({channels(x)}, momentum={kind.momentum!r}, epsilon={kind.epsilon!r}{given})"
    value = w.stateful(node, path, text, x)
    names = {"moving_mean": "mean.init", "moving_variance": "variance.init"}
    names |= {role: role for role in ("scale", "shift") if getattr(kind, f"use_{role}")}
    if node.call == 0:
        for role, name in names.items():
            w.weight(path, role, f"{w.layers[path].path}.{name}", (channels(x),))
    return value


def _norm(w: EquinoxWriter, kind: Any, node: Node, path: str, arguments: list[Value]) -> Value:
    x = w.convert(arguments[0], LAST)
    root = isinstance(kind, kinds.RMSNormalization)
    scale, shift = getattr(kind, "use_scale", True), getattr(kind, "use_shift", False)
    given = options(eps=repr(kind.epsilon), use_weight="" if scale else "False", use_bias="" if shift else "False")
    text = f"eqx.nn.{'RMSNorm' if root else 'LayerNorm'}({channels(x)}{given})"
    value = w.module(node, path, text, x, mapped=len(x.shape) - 1)
    if scale:
        w.parameter(node, path, "scale", "weight", (channels(x),))
    if shift:
        w.parameter(node, path, "shift", "bias", (channels(x),))
    return value


def _group_normalization(
    w: EquinoxWriter, kind: kinds.GroupNormalization, node: Node, path: str, arguments: list[Value]
) -> Value:
    x = w.convert(arguments[0], FIRST)
    if kind.use_scale != kind.use_shift:
        raise w.refuse(path, "a normalization with only one of scale and shift", "Give it both.")
    groups = channels(x) if kind.groups == -1 else kind.groups
    given = options(eps=repr(kind.epsilon), channelwise_affine="" if kind.use_scale else "False")
    value = w.module(node, path, f"eqx.nn.GroupNorm({groups}, {channels(x)}{given})", x)
    if kind.use_scale:
        w.parameter(node, path, "scale", "weight", (channels(x),))
        w.parameter(node, path, "shift", "bias", (channels(x),))
    return value


def _scale(w: EquinoxWriter, kind: kinds.Scale, node: Node, path: str, arguments: list[Value]) -> Value:
    x, shape = arguments[0], per_channel(arguments[0])
    w.helper("Scale")
    value = w.module(node, path, f"Scale({', '.join(map(str, shape))})", x)
    w.parameter(node, path, "scale", "scale", shape, ("reshape", shape))
    return value


def _standardize(w: EquinoxWriter, kind: kinds.Standardize, node: Node, path: str, arguments: list[Value]) -> Value:
    x, shape = arguments[0], per_channel(arguments[0])
    w.helper("Standardize")
    value = w.module(node, path, f"Standardize({', '.join(map(str, shape))}, epsilon={kind.epsilon!r})", x)
    for role in ("mean", "variance"):
        w.parameter(node, path, role, role, shape, ("reshape", shape))
    return value


def _embedding(w: EquinoxWriter, kind: kinds.Embedding, node: Node, path: str, arguments: list[Value]) -> Value:
    text = f"eqx.nn.Embedding({kind.rows}, {kind.units}, key=next(keys))"
    value = w.module(node, path, text, arguments[0], mapped=len(arguments[0].shape))
    w.parameter(node, path, "embeddings", "weight", (kind.rows, kind.units))
    return value


def _prelu(w: EquinoxWriter, kind: kinds.PReLU, node: Node, path: str, arguments: list[Value]) -> Value:
    x = w.convert(arguments[0], LAST)
    w.helper("PReLU")
    value = w.module(node, path, f"PReLU({', '.join(map(str, kind.shape))})", x)
    w.parameter(node, path, "slope", "slope", tuple(kind.shape))
    return value


def _attention(
    w: EquinoxWriter, kind: kinds.MultiHeadAttention, node: Node, path: str, arguments: list[Value]
) -> Value:
    if kind.masks or kind.causal:
        raise w.refuse(path, "an attention with masks", "Port the model to nnx instead.")
    given = [w.convert(x, LAST) for x in arguments]
    query, value, key = (given + given[1:2])[:3] if len(given) > 1 else (given[0],) * 3
    heads, sizes = kind.heads, {"query": kind.key_size, "key": kind.key_size, "value": kind.value_size}
    held = {"query": query, "key": key, "value": value}
    flag = "" if not kind.use_bias else "True"
    sized = options(
        **{f"{name}_size": str(channels(x)) for name, x in held.items() if name != "query"},
        output_size=str(channels(query)),
        qk_size=str(kind.key_size),
        vo_size=str(kind.value_size),
        **{f"use_{name}_bias": flag for name in (*held, "output")},
    )
    attribute = w.name_layer(node)
    w.attribute(attribute, f"eqx.nn.MultiheadAttention({heads}, {channels(query)}{sized}, key=next(keys))")
    target = w.path_of(attribute)
    if node.call == 0:
        w.layers[path] = w.traced[path] = Place(target)
        w.place(path, "output", target, "output")
        for name, x in held.items():
            whole = heads * sizes[name]
            steps: tuple[Step, ...] = (("reshape", (channels(x), whole)), ("transpose", (1, 0)))
            w.weight(path, f"{name}_kernel", f"{target}.{name}_proj.weight", (whole, channels(x)), *steps)
            if kind.use_bias:
                w.weight(path, f"{name}_bias", f"{target}.{name}_proj.bias", (whole,), ("reshape", (whole,)))
        shape = (heads * kind.value_size, channels(query))
        steps = (("reshape", shape), ("transpose", (1, 0)))
        w.weight(path, "output_kernel", f"{target}.output_proj.weight", shape[::-1], *steps)
        if kind.use_bias:
            w.weight(path, "output_bias", f"{target}.output_proj.bias", shape[1:])
        for role in kind.roles():
            w.place(path, role, target, role)
    texts = ", ".join(x.text for x in held.values())
    return Value(f"self.{attribute}({texts})", node.shapes[0])


EMITTERS: dict[type[Kind], Callable[..., Any]] = {
    kinds.Dense: _dense,
    kinds.Convolution: _convolution,
    kinds.DepthwiseConvolution: _depthwise,
    kinds.SeparableConvolution: _separable,
    kinds.TransposedConvolution: _transposed,
    kinds.BatchNormalization: _batch_normalization,
    kinds.LayerNormalization: _norm,
    kinds.RMSNormalization: _norm,
    kinds.GroupNormalization: _group_normalization,
    kinds.Scale: _scale,
    kinds.Standardize: _standardize,
    kinds.Embedding: _embedding,
    kinds.PReLU: _prelu,
    kinds.MultiHeadAttention: _attention,
    **dict.fromkeys((kinds.SimpleRNN, kinds.LSTM, kinds.GRU, kinds.Bidirectional), partial(recurrent, idiom=EQUINOX)),
    **SHAPES,
}
