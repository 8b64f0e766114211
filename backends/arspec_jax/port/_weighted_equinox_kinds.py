"""Which kind each layer of Equinox is that has weights, and where it keeps them; names are the layer's own.

The statistics of a batch normalization are in a state beside the model: "state/mean" and
"state/var" stand for them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx

from arspec.port import _kinds as kinds
from arspec.port import _layouts as layouts
from arspec.port._kinds import Function, Kind
from arspec.port._mapping import Entry
from arspec.port._options import kind_options
from arspec.port._weighted import WeightedLayer
from arspec_jax._equinox_kinds import class_of
from arspec_jax.port._weighted_flax import SEVERAL

Shape = tuple[int, ...]
Described = tuple[Kind, dict[str, Shape], tuple[Entry, ...]]

_AFFINE = (kinds.Dense, kinds.Convolution, kinds.DepthwiseConvolution, kinds.TransposedConvolution)


def read_equinox(layer: Any, path: str) -> WeightedLayer:
    """Describe a layer of Equinox.

    Raises
    ------
    LookupError: what the weights of the layer are is not known; the text says why.
    """
    if isinstance(layer, eqx.nn.LSTMCell | eqx.nn.GRUCell):
        return _cell(layer, path)
    reader = next((reader for cls, reader in _READERS.items() if isinstance(layer, cls)), None)
    if reader is None:
        raise LookupError(f"what the weights of a {class_of(layer).__name__} are is not known.")
    kind, shapes, entries = reader(layer)
    unseen = {"activation"} if isinstance(kind, _AFFINE) else set()
    unseen |= {"mask_zero"} if isinstance(kind, kinds.Embedding) else set()
    owner = next((cls for cls in class_of(layer).__mro__ if "__call__" in vars(cls)), object)
    if not owner.__module__.startswith("equinox."):
        unseen |= set(kind_options(type(kind)))
    more = (
        {"statistics": "running" if layer.mode == "ema" else "of the batch"}
        if isinstance(layer, eqx.nn.BatchNorm)
        else {}
    )
    return WeightedLayer(path, kind, shapes, entries, unseen=frozenset(unseen), frozen=None, more=more)


def _require_rank(layer: Any, rank: int) -> None:
    if layer.weight.ndim != rank:
        raise LookupError(SEVERAL)


def _linear(m: Any) -> Described:
    if "scalar" in (m.in_features, m.out_features):
        raise LookupError("a Linear of scalars has no counterpart.")
    _require_rank(m, 2)
    shapes: dict[str, Shape] = {"kernel": (m.in_features, m.out_features)}
    entries = (layouts.output_first("kernel", "weight", 2),)
    if m.use_bias:
        shapes["bias"], entries = (m.out_features,), (*entries, Entry("bias", "bias"))
    return kinds.Dense(m.out_features, use_bias=m.use_bias), shapes, entries


def _padding(m: Any) -> str:
    if m.padding_mode != "ZEROS":
        return m.padding_mode.lower()
    if isinstance(m.padding, str):
        return m.padding.lower()
    reach = [(k - 1) * d for k, d in zip(m.kernel_size, m.dilation, strict=True)]
    if not any(n for pair in m.padding for n in pair):
        return "valid"
    same = all(p == r // 2 and q == r - r // 2 for (p, q), r in zip(m.padding, reach, strict=True))
    if set(m.stride) == {1} and same:
        return "same"
    if len(reach) == 1 and m.padding == ((reach[0], 0),):
        return "causal"
    return str(m.padding)


def _with_bias(m: Any, kernel: Entry, canonical: Shape) -> tuple[dict[str, Shape], tuple[Entry, ...]]:
    if not m.use_bias:
        return {"kernel": canonical}, (kernel,)
    ones = (1,) * m.num_spatial_dims
    bias = layouts.reshaped("bias", "bias", m.out_channels, *ones)
    return {"kernel": canonical, "bias": (m.out_channels,)}, (kernel, bias)


def _convolution(m: Any) -> Described:
    _require_rank(m, m.num_spatial_dims + 2)
    options = (tuple(m.kernel_size), tuple(m.stride), _padding(m), tuple(m.dilation))
    if m.groups == m.in_channels > 1:
        shape = (*m.kernel_size, m.in_channels, m.out_channels // m.in_channels)
        kind: Kind = kinds.DepthwiseConvolution(shape[-1], *options, use_bias=m.use_bias)
        return kind, *_with_bias(m, layouts.output_first_depthwise("weight", shape), shape)
    shape = (*m.kernel_size, m.in_channels // m.groups, m.out_channels)
    kind = kinds.Convolution(m.out_channels, *options, groups=m.groups, use_bias=m.use_bias)
    return kind, *_with_bias(m, layouts.output_first("kernel", "weight", len(shape)), shape)


def _transposed(m: Any) -> Described:
    _require_rank(m, m.num_spatial_dims + 2)
    if m.groups != 1 or set(m.dilation) != {1} or m.padding_mode != "ZEROS":
        raise LookupError("a transposed convolution with groups, dilation or a padding mode has no counterpart.")
    shape = (*m.kernel_size, m.out_channels, m.in_channels)
    kind = kinds.TransposedConvolution(
        m.out_channels, tuple(m.kernel_size), tuple(m.stride), _transposed_padding(m), use_bias=m.use_bias
    )
    return kind, *_with_bias(m, layouts.flipped("kernel", "weight", len(shape), first=True), shape)


def _transposed_padding(m: Any) -> str:
    """Return "same" or "valid" where the size of the result is that of Keras, else the numbers."""
    extra = tuple(max(s - k, 0) for k, s in zip(m.kernel_size, m.stride, strict=True))
    is_valid = m.padding == "VALID" or (
        not isinstance(m.padding, str) and not any(n for pair in m.padding for n in pair)
    )
    if is_valid and tuple(m.output_padding) == extra:
        return "valid"
    if m.padding == "SAME" and not any(m.output_padding):
        return "same"
    return f"{m.padding}+{m.output_padding}"


def _embedding(m: Any) -> Described:
    _require_rank(m, 2)
    return kinds.Embedding(*m.weight.shape), {"embeddings": m.weight.shape}, layouts.same(embeddings="weight")


def _affine(m: Any, features: int, **more: str) -> tuple[dict[str, Shape], tuple[Entry, ...]]:
    held = {role: name for role, name in (("scale", "weight"), ("shift", "bias")) if getattr(m, name) is not None}
    if any(getattr(m, name).ndim != 1 for name in held.values()):
        raise LookupError(SEVERAL)
    return dict.fromkeys((*held, *more), (features,)), layouts.same(**held, **more)


def _batch_norm(m: Any) -> Described:
    used = {"use_scale": m.channelwise_affine, "use_shift": m.channelwise_affine}
    kind = kinds.BatchNormalization(m.eps, m.momentum, **used)
    return kind, *_affine(m, m.input_size, moving_mean="state/mean", moving_variance="state/var")


def _layer_norm(m: Any) -> Described:
    kind = kinds.LayerNormalization(m.eps, use_scale=m.use_weight, use_shift=m.use_bias)
    return kind, *_affine(m, _one_axis(m))


def _rms_norm(m: Any) -> Described:
    if m.use_bias:
        raise LookupError("an RMSNorm with a bias has no counterpart; say use_bias=False.")
    return kinds.RMSNormalization(m.eps), *_affine(m, _one_axis(m))


def _one_axis(m: Any) -> int:
    if len(m.shape) != 1:
        raise LookupError(f"a {class_of(m).__name__} over {len(m.shape)} axes has no counterpart.")
    return m.shape[0]


def _group_norm(m: Any) -> Described:
    if not m.channelwise_affine:
        raise LookupError("a GroupNorm without weights has none to move.")
    return kinds.GroupNormalization(m.groups, m.eps), *_affine(m, m.channels)


def _attention(m: Any) -> Described:
    heads = m.num_heads
    ends = {"query": (m.query_size, m.qk_size), "key": (m.key_size, m.qk_size), "value": (m.value_size, m.vo_size)}
    shapes: dict[str, Shape] = {}
    entries = []
    for role, (features, size) in ends.items():
        shape = shapes[f"{role}_kernel"] = (features, heads, size)
        entries.append(Entry(f"{role}_kernel", f"{role}_proj/weight", layouts.heads_apart(shape)))
        if getattr(m, f"use_{role}_bias"):
            shapes[f"{role}_bias"] = (heads, size)
            entries.append(layouts.reshaped(f"{role}_bias", f"{role}_proj/bias", heads * size))
    shape = shapes["output_kernel"] = (heads, m.vo_size, m.output_size)
    entries.append(Entry("output_kernel", "output_proj/weight", layouts.heads_joined(shape)))
    if m.use_output_bias:
        shapes["output_bias"] = (m.output_size,)
        entries.append(Entry("output_bias", "output_proj/bias"))
    kind = kinds.MultiHeadAttention(heads, m.qk_size, m.vo_size, "output_bias" in shapes)
    return kind, shapes, tuple(entries)


def _cell(m: Any, path: str) -> WeightedLayer:
    is_gru, units, names = isinstance(m, eqx.nn.GRUCell), m.hidden_size, ("weight_ih", "weight_hh")
    if m.weight_ih.ndim != 2:
        raise LookupError(SEVERAL)
    wide = (3 if is_gru else 4) * units
    entries = layouts.output_first_gru(*names) if is_gru else layouts.output_first_lstm(*names)
    shapes: dict[str, Shape] = {"kernel": (m.input_size, wide), "recurrent_kernel": (units, wide)}
    if m.use_bias and is_gru:
        shapes["bias"] = (2, wide)
        starts = (units, 0, 2 * units)  # of update, reset and hidden
        entries += tuple(layouts.gru_gate(0, gate, "bias", units, start) for gate, start in enumerate(starts))
        entries += tuple(layouts.gru_gate(1, gate, "bias", units, starts[gate]) for gate in (0, 1))
        entries += (layouts.gru_gate(1, 2, "bias_n", units),)
    elif m.use_bias:
        shapes["bias"] = (wide,)
        entries += (Entry("bias", "bias"),)
    cls: Any = kinds.GRU if is_gru else kinds.LSTM
    kind = cls(units=units, activation=Function("tanh"), use_bias=m.use_bias)
    more = {"biases": "one, and one more of the hidden gate"} if is_gru and m.use_bias else {}
    return WeightedLayer(path, kind, shapes, entries, unseen=frozenset({"reverse"}), frozen=None, more=more)


_READERS: Mapping[Any, Callable[[Any], Described]] = {
    eqx.nn.Linear: _linear,
    eqx.nn.Conv: _convolution,
    eqx.nn.ConvTranspose: _transposed,
    eqx.nn.Embedding: _embedding,
    eqx.nn.BatchNorm: _batch_norm,
    eqx.nn.LayerNorm: _layer_norm,
    eqx.nn.RMSNorm: _rms_norm,
    eqx.nn.GroupNorm: _group_norm,
    eqx.nn.MultiheadAttention: _attention,
}
