"""Which kind each module of torch is, with everything it leaves to defaults written out."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from arspec.port import _kinds as kinds
from arspec.port._kinds import Function, Kind, refuse
from arspec.port._mapping import Step
from arspec_torch.port._builder import Builder, Seen, Weight, first, last, order
from arspec_torch.port._fx_windows import average_pooling, max_pooling, same_or_padded


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a module: what it is, where it stands, and the node that calls it."""

    builder: Builder
    module: Any
    path: str
    node: fx.Node

    @property
    def name(self) -> str:
        """Return the name of the layer in the graph."""
        return self.path.replace(".", "/")

    def refuse(self, what: str, cure: str) -> Exception:
        """Return the error for what cannot be ported."""
        return refuse(self.name, what, cure)

    def weights(self, **found: tuple[str, tuple[int, ...], tuple[Step, ...]]) -> list[Weight]:
        """Return weights from attribute, canonical shape and steps by role, without those that are None."""
        return [
            Weight(role, f"{self.path}.{attribute}", shape, steps)
            for role, (attribute, shape, steps) in found.items()
            if getattr(self.module, attribute) is not None
        ]

    def give(self, kind: Kind, x: Seen, axes: tuple[int, ...], weights: Sequence[Weight] = ()) -> Seen:
        """Add the node of the module."""
        sizes = self.builder.sizes(self.node, axes)
        return self.builder.emit(self.name, kind, [x], sizes, axes, weights, self.path)


def same_axes(call: Call, kind: Kind, x: Seen, weights: Sequence[Weight] = ()) -> Seen:
    """Add a node whose result has the sizes and axes of what it is given."""
    return call.builder.emit(call.name, kind, [x], x.sizes, x.axes, weights, call.path)


def _linear(call: Call, x: Seen) -> Seen:
    m, b = call.module, call.builder
    x = b.feature_at(x, -1, call.name)
    kind = kinds.Dense(m.out_features, use_bias=m.bias is not None)
    weights = call.weights(
        kernel=("weight", (m.in_features, m.out_features), (("transpose", (1, 0)),)),
        bias=("bias", (m.out_features,), ()),
    )
    return call.give(kind, x, x.axes, weights)


def _convolution(call: Call, x: Seen) -> Seen:
    m, b = call.module, call.builder
    rank = len(m.kernel_size)
    if m.padding_mode != "zeros":
        raise call.refuse(f"padding_mode={m.padding_mode!r}", "Use 'zeros'.")
    x = _batched(call, x, rank + 2)
    x, padding = same_or_padded(b, x, m, call.name)
    options = {
        "kernel_size": tuple(m.kernel_size),
        "strides": tuple(m.stride),
        "padding": padding,
        "dilation": tuple(m.dilation),
        "use_bias": m.bias is not None,
    }
    inside = m.in_channels // m.groups
    if m.groups == m.in_channels > 1 and rank < 3:
        multiplier = m.out_channels // m.in_channels
        kind: Kind = kinds.DepthwiseConvolution(multiplier, **options)
        shape = (*m.kernel_size, m.in_channels, multiplier)
        steps: tuple[Step, ...] = (
            ("transpose", (rank, rank + 1, *range(rank))),
            ("reshape", (m.out_channels, 1, *m.kernel_size)),
        )
    else:
        kind = kinds.Convolution(m.out_channels, groups=m.groups, **options)
        shape, steps = (*m.kernel_size, inside, m.out_channels), (("transpose", (rank + 1, rank, *range(rank))),)
    weights = call.weights(kernel=("weight", shape, steps), bias=("bias", (m.out_channels,), ()))
    return call.give(kind, x, first(rank + 2), weights)


def _batched(call: Call, x: Seen, rank: int) -> Seen:
    if x.rank != rank:
        raise call.refuse(f"an input of {x.rank} axes", f"Give it {rank}, the batch first.")
    return call.builder.arrange(x, first(rank), call.name)


def _transposed(call: Call, x: Seen) -> Seen:
    m, b = call.module, call.builder
    rank = len(m.kernel_size)
    if m.groups != 1 or set(m.dilation) != {1}:
        raise call.refuse("a transposed convolution with groups or dilation", "Leave them out.")
    x = _batched(call, x, rank + 2)
    axes = list(zip(m.kernel_size, m.stride, m.padding, m.output_padding, strict=True))
    extra = [max(k - s, 0) for k, s, _, _ in axes]
    is_same = all(2 * p == cut and o == max(s - k, 0) for (k, s, p, o), cut in zip(axes, extra, strict=True))
    crop = tuple((p, p - o + max(s - k, 0)) for k, s, p, o in axes)
    if not is_same and any(after < 0 for _, after in crop):
        raise call.refuse(
            f"output_padding={tuple(m.output_padding)} with padding={tuple(m.padding)}", "Pad the result instead."
        )
    kind = kinds.TransposedConvolution(
        m.out_channels,
        tuple(m.kernel_size),
        tuple(m.stride),
        "same" if is_same else "valid",
        use_bias=m.bias is not None,
    )
    steps = (("transpose", (rank + 1, rank, *range(rank))),)
    shape = (*m.kernel_size, m.out_channels, m.in_channels)
    weights = call.weights(kernel=("weight", shape, steps), bias=("bias", (m.out_channels,), ()))
    if is_same or not any(map(any, crop)):
        return call.give(kind, x, x.axes, weights)
    sizes = b.sizes(call.node, x.axes)
    whole = (*(size + sum(cut) for size, cut in zip(sizes[:-1], crop, strict=True)), sizes[-1])
    full = b.emit(call.name, kind, [x], whole, x.axes, weights)
    return b.emit(b.fresh(f"{call.name}_crop"), kinds.Cropping(crop), [full], sizes, x.axes)


def batch_norm(call: Call, x: Seen) -> Seen:
    """Add a batch normalization: torch's own, or the one with a biased running variance."""
    m = call.module
    if not m.track_running_stats or m.momentum is None:
        raise call.refuse("a batch normalization without running statistics or momentum", "Give it both.")
    x = call.builder.arrange(x, first(x.rank), call.name)
    kind = kinds.BatchNormalization(
        m.eps,
        1.0 - m.momentum,
        use_scale=m.weight is not None,
        use_shift=m.bias is not None,
        unbiased=type(m).__module__.startswith("torch.nn."),
    )
    features = (m.num_features,)
    roles = {"scale": "weight", "shift": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    weights = call.weights(**{role: (attribute, features, ()) for role, attribute in roles.items()})
    counter = f"{call.path}.num_batches_tracked"
    call.builder.derived[counter] = float(m.num_batches_tracked)
    return same_axes(call, kind, x, weights)


def _affine(call: Call, features: int) -> list[Weight]:
    return call.weights(scale=("weight", (features,), ()), shift=("bias", (features,), ()))


def _layer_norm(call: Call, x: Seen) -> Seen:
    m = call.module
    if len(m.normalized_shape) != 1:
        raise call.refuse(f"LayerNorm over {len(m.normalized_shape)} axes", "Normalize over the last one.")
    x = call.builder.feature_at(x, -1, call.name)
    kind = kinds.LayerNormalization(m.eps, use_scale=m.weight is not None, use_shift=m.bias is not None)
    return same_axes(call, kind, x, _affine(call, m.normalized_shape[0]))


def _group_norm(call: Call, x: Seen) -> Seen:
    m = call.module
    x = call.builder.arrange(x, first(x.rank), call.name)
    affine = m.weight is not None
    kind = kinds.GroupNormalization(m.num_groups, m.eps, use_scale=affine, use_shift=affine)
    return same_axes(call, kind, x, _affine(call, m.num_channels))


def _instance_norm(call: Call, x: Seen) -> Seen:
    m = call.module
    if m.track_running_stats:
        raise call.refuse("InstanceNorm with running statistics", "Use track_running_stats=False.")
    x = call.builder.arrange(x, first(x.rank), call.name)
    kind = kinds.GroupNormalization(m.num_features, m.eps, use_scale=m.affine, use_shift=m.affine)
    return same_axes(call, kind, x, _affine(call, m.num_features))


def _rms_norm(call: Call, x: Seen) -> Seen:
    m = call.module
    if m.eps is None or m.weight is None or len(m.normalized_shape) != 1:
        raise call.refuse(
            "an RMSNorm without eps (which then depends on the dtype), without weights or over several axes",
            "Say eps=..., and normalize over the last axis.",
        )
    x = call.builder.feature_at(x, -1, call.name)
    weights = call.weights(scale=("weight", tuple(m.normalized_shape), ()))
    return same_axes(call, kinds.RMSNormalization(m.eps), x, weights)


def _embedding(call: Call, x: Seen) -> Seen:
    m = call.module
    if m.padding_idx is not None or m.max_norm is not None or m.scale_grad_by_freq or m.sparse:
        raise call.refuse(
            "an Embedding with padding_idx (whose row does not train), max_norm, scale_grad_by_freq or sparse",
            "Leave them out.",
        )
    kind = kinds.Embedding(m.num_embeddings, m.embedding_dim)
    weights = call.weights(embeddings=("weight", (m.num_embeddings, m.embedding_dim), ()))
    return call.give(kind, x, (*x.axes, x.rank), weights)


def activation_of(m: Any) -> Function | None:
    """Return the activation function a module is, None where it is none that can be ported."""
    if isinstance(m, nn.Hardtanh) and not isinstance(m, nn.ReLU6):
        return Function("relu6") if (m.min_val, m.max_val) == (0.0, 6.0) else None
    if isinstance(m, nn.Softplus):
        return Function("softplus") if m.beta == 1.0 and m.threshold >= 20.0 else None
    if isinstance(m, nn.GELU):
        return Function("gelu" if m.approximate == "none" else "gelu_tanh")
    if isinstance(m, nn.LeakyReLU):
        return Function("leaky_relu", float(m.negative_slope))
    if isinstance(m, nn.ELU | nn.CELU):
        return Function("elu" if isinstance(m, nn.ELU) else "celu", float(m.alpha))
    return Function(_ACTIVATIONS[type(m)]) if type(m) in _ACTIVATIONS else None


def _activation(call: Call, x: Seen) -> Seen:
    function = activation_of(call.module)
    if function is None:
        raise call.refuse(str(call.module), f"Use one of {', '.join(kinds.FUNCTIONS)}.")
    return same_axes(call, kinds.Activation(function), x)


def _softmax(call: Call, x: Seen) -> Seen:
    m = call.module
    if m.dim is None:
        raise call.refuse("a softmax without dim", "Say dim=....")
    x = call.builder.feature_at(x, m.dim, call.name)
    return same_axes(call, kinds.Activation(Function("softmax" if isinstance(m, nn.Softmax) else "log_softmax")), x)


def _prelu(call: Call, x: Seen) -> Seen:
    count = call.module.num_parameters
    x = call.builder.arrange(x, first(x.rank), call.name)
    shape = (*(1,) * (x.rank - 2), count)
    weights = call.weights(slope=("weight", shape, (("reshape", (count,)),)))
    return same_axes(call, kinds.PReLU(shape), x, weights)


def _pool(call: Call, x: Seen) -> Seen:
    m = call.module
    rank = int(type(m).__name__[-2])
    options = {name: getattr(m, name) for name in ("kernel_size", "stride", "padding", "ceil_mode")}
    x = _batched(call, x, rank + 2)
    if "Max" in type(m).__name__:
        return max_pooling(
            call.builder, x, call.node, call.name, call.path, dilation=m.dilation, indices=m.return_indices, **options
        )
    count, divisor = m.count_include_pad, getattr(m, "divisor_override", None)
    return average_pooling(
        call.builder, x, call.node, call.name, call.path, count_include_pad=count, divisor=divisor, **options
    )


def _adaptive(call: Call, x: Seen) -> Seen:
    from arspec_torch.port._fx_windows import adaptive_pooling

    rank = int(type(call.module).__name__[-2])
    mode = "max" if "Max" in type(call.module).__name__ else "average"
    x = _batched(call, x, rank + 2)
    return adaptive_pooling(call.builder, x, call.node, call.name, call.path, mode=mode)


def _dropout(call: Call, x: Seen) -> Seen:
    by_rank = {nn.Dropout1d: 3, nn.Dropout2d: 4, nn.Dropout3d: 5}
    rank = by_rank.get(type(call.module))
    if rank is None:
        return same_axes(call, kinds.Dropout(float(call.module.p)), x)
    x = _batched(call, x, rank)
    return same_axes(call, kinds.Dropout(float(call.module.p), "channels"), x)


def _identity(call: Call, x: Seen) -> Seen:
    return same_axes(call, kinds.Identity(), x)


def _flatten(call: Call, x: Seen) -> Seen:
    return reshaped(call.builder, x, call.node, call.name)


def reshaped(b: Builder, x: Seen, node: fx.Node, name: str) -> Seen:
    """Add a change of shape: the axes in torch's order, the last one fastest."""
    sizes = b.sizes(node, last(len(b.trace.sizes(node))))
    if math.prod(sizes) != math.prod(x.sizes):
        raise refuse(name, f"a change of shape from {x.sizes} to {sizes}, batch apart", "Keep the batch apart.")
    x = b.arrange(x, last(x.rank), name)
    if sizes == x.sizes:
        return Seen(x.reference, sizes, last(len(sizes) + 1))
    kind: Kind = kinds.Flatten() if len(sizes) == 1 else kinds.Reshape(sizes)
    return b.emit(name, kind, [x], sizes, last(len(sizes) + 1))


def _zero_pad(call: Call, x: Seen) -> Seen:
    m = call.module
    if getattr(m, "value", 0.0) != 0.0:
        raise call.refuse(f"padding with {m.value}", "Pad with zeros.")
    return zero_padding(call.builder, x, m.padding, call.name, call.path)


def zero_padding(b: Builder, x: Seen, flat: Sequence[int], name: str, module: str = "") -> Seen:
    """Add zeros, `flat` as torch has it: (before, after) of the last axis first."""
    pairs = [(int(flat[i]), int(flat[i + 1])) for i in range(0, len(flat), 2)][::-1]
    pads = [(0, 0)] * (x.rank - len(pairs)) + pairs
    x = b.arrange(x, first(x.rank), name)
    if any(map(any, pads[:2])) or any(n < 0 for pair in pads for n in pair):
        raise refuse(name, f"padding {tuple(flat)}", "Pad spatial axes only, by numbers >= 0.")
    spatial = tuple(pads[2:])
    sizes = (*(n + p + q for n, (p, q) in zip(x.sizes[:-1], spatial, strict=True)), x.sizes[-1])
    return b.emit(name, kinds.ZeroPadding(spatial), [x], sizes, x.axes, module=module)


def _upsample(call: Call, x: Seen) -> Seen:
    m = call.module
    x = call.builder.arrange(x, first(x.rank), call.name)
    return upsampling(call, x, m.mode, bool(m.align_corners))


def upsampling(call: Call, x: Seen, mode: str, align_corners: bool) -> Seen:
    """Add an enlargement by whole factors."""
    sizes = call.builder.sizes(call.node, x.axes)
    factors = tuple(n // m for n, m in zip(sizes[:-1], x.sizes[:-1], strict=True))
    exact = all(n == m * f for n, m, f in zip(sizes[:-1], x.sizes[:-1], factors, strict=True))
    if not exact or mode not in ("nearest", "bilinear") or align_corners:
        raise call.refuse(
            f"an enlargement from {x.sizes[:-1]} to {sizes[:-1]} (mode={mode!r}, align_corners={align_corners})",
            "Use whole factors, 'nearest' or 'bilinear', and align_corners=False.",
        )
    return call.give(kinds.UpSampling(factors, mode), x, x.axes)


def _attention(call: Call, *given: Any) -> Seen:
    b, m = call.builder, call.module
    query, key, value = (*given, *given[-1:] * 2)[:3]
    _require_plain_attention(call)
    axes = order(3, batch=0 if m.batch_first else 1)
    if query.rank != 3:
        raise call.refuse(f"an input of {query.rank} axes", "Give it (batch, time, feature).")
    query, key, value = (b.arrange(x, axes, call.name) for x in (query, key, value))
    return attention(call, query, key, value)


def attention(call: Call, query: Seen, key: Seen, value: Seen) -> Seen:
    """Add an attention, whose tensors have their axes in the order of the module already."""
    m = call.module
    size = m.embed_dim // m.num_heads
    kind = kinds.MultiHeadAttention(m.num_heads, size, size, use_bias=m.in_proj_bias is not None)
    return call.builder.emit(
        call.name, kind, [query, value, key], query.sizes, query.axes, attention_weights(m, call.path), call.path
    )


def attention_weights(m: nn.MultiheadAttention, path: str) -> list[Weight]:
    """Return where the weights of an attention are."""
    features, heads = m.embed_dim, m.num_heads
    size = features // heads
    found = []
    steps: tuple[Step, ...] = (("reshape", (features, features)), ("transpose", (1, 0)))
    for index, role in enumerate(("query", "key", "value")):
        put = ((0, index * features, (index + 1) * features),)
        found.append(Weight(f"{role}_kernel", f"{path}.in_proj_weight", (features, heads, size), steps, put))
        flat: tuple[Step, ...] = (("reshape", (features,)),)
        found.append(Weight(f"{role}_bias", f"{path}.in_proj_bias", (heads, size), flat, put))
    found.append(Weight("output_kernel", f"{path}.out_proj.weight", (heads, size, features), steps))
    found.append(Weight("output_bias", f"{path}.out_proj.bias", (features,)))
    return [each for each in found if m.in_proj_bias is not None or not each.role.endswith("_bias")]


def _require_plain_attention(call: Call) -> None:
    m = call.module
    if not m._qkv_same_embed_dim or m.bias_k is not None or m.add_zero_attn or m.dropout:
        raise call.refuse(
            "an attention with kdim, vdim, add_bias_kv, add_zero_attn or dropout", "Leave them out (dropout=0.0)."
        )
    b, options = call.builder, dict(call.node.kwargs)
    masks = {name: options.get(name) for name in ("key_padding_mask", "attn_mask", "is_causal")}
    given = [name for name, value in masks.items() if b.trace.static(value)]
    if given or len(call.node.args) > 3 + ("query" not in options):
        raise call.refuse(f"an attention with {', '.join(given) or 'masks'}", "Masks are not ported.")


_ACTIVATIONS: dict[type[nn.Module], str] = {
    **{nn.ReLU: "relu", nn.ReLU6: "relu6", nn.SELU: "selu", nn.SiLU: "silu", nn.Hardswish: "hard_silu"},
    **{nn.Hardsigmoid: "hard_sigmoid", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh", nn.Softsign: "softsign"},
    nn.Mish: "mish",
}

READERS: dict[type[nn.Module], Callable[..., Seen]] = {
    nn.Linear: _linear,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), batch_norm),
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _instance_norm),
    nn.RMSNorm: _rms_norm,
    nn.Embedding: _embedding,
    **dict.fromkeys((*_ACTIVATIONS, nn.Hardtanh, nn.Softplus, nn.GELU, nn.LeakyReLU, nn.ELU, nn.CELU), _activation),
    **dict.fromkeys((nn.Softmax, nn.LogSoftmax), _softmax),
    nn.PReLU: _prelu,
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), _pool),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), _adaptive),
    **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), _adaptive),
    **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), _dropout),
    nn.Identity: _identity,
    **dict.fromkeys((nn.Flatten, nn.Unflatten), _flatten),
    **dict.fromkeys((nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d), _zero_pad),
    **dict.fromkeys((nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d), _zero_pad),
    nn.Upsample: _upsample,
    nn.MultiheadAttention: _attention,
}
