"""Which kind each module of torch is that has weights, and where it keeps them; names are the module's own."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from arspec.port import _kinds as kinds
from arspec.port import _layouts as layouts
from arspec.port._kinds import Function, Kind
from arspec.port._mapping import Entry, Step
from arspec.port._options import kind_options
from arspec.port._weighted import WeightedLayer
from arspec_torch._recurrent import all_directions, subpath
from arspec_torch.port._fx_windows import each
from arspec_torch.port._own import helper_of

Shapes = dict[str, tuple[int, ...]]
Described = tuple[Kind, Shapes, tuple[Entry, ...]]


def read_module(module: nn.Module, path: str) -> list[WeightedLayer]:
    """Return the layers that a module is: one, or one for each layer and direction.

    Raises
    ------
    LookupError: the module has weights that nobody here knows; the text says why.
    """
    if is_parametrized(module):
        raise LookupError("it is parametrized, so that its weights are computed of others.")
    if isinstance(module, nn.RNNBase):
        found = list(_rnn(module, path))
    elif isinstance(module, nn.RNNCellBase):
        found = [_cell(module, path)]
    else:
        reader = next((reader for cls, reader in _READERS.items() if isinstance(module, cls)), None)
        if reader is None:
            kind = f"{type(module).__module__}.{type(module).__name__}"
            raise LookupError(f"what the weights of a {kind} are is not known.")
        kind, shapes, entries = reader(module)
        found = [WeightedLayer(path, kind, shapes, entries)]
    return [_completed(module, layer) for layer in found]


def held(module: Any, name: str) -> Tensor:
    """Return a tensor of a module by its name there, such as "weight" or "out_proj.bias"."""
    for part in name.split("."):
        module = getattr(module, part)
    return module


def _completed(module: nn.Module, layer: WeightedLayer) -> WeightedLayer:
    """Add what the code of the module leaves open, and which weights do not train."""
    own = type(module).forward.__module__.startswith("torch.nn.") or helper_of(module)
    unseen = layer.unseen | ({"activation"} if own and not _is_recurrent(module) else set())
    if isinstance(layer.kind, kinds.Embedding):
        unseen |= {"mask_zero"}
    if isinstance(module, nn.RNNCellBase):
        unseen |= {"reverse"}
    open_options = unseen if own else {*unseen, *kind_options(type(layer.kind))}
    frozen = {entry.source for entry in layer.entries if not held(module, entry.target).requires_grad}
    return replace(layer, unseen=frozenset(open_options), frozen=frozenset(frozen))


def _is_recurrent(module: nn.Module) -> bool:
    return isinstance(module, nn.RNNBase | nn.RNNCellBase)


def _with_bias(module: Any, kernel: Entry, shape: tuple[int, ...], features: int) -> tuple[Shapes, tuple[Entry, ...]]:
    if module.bias is None:
        return {"kernel": shape}, (kernel,)
    return {"kernel": shape, "bias": (features,)}, (kernel, Entry("bias", "bias"))


def _linear(m: Any) -> Described:
    kernel = layouts.output_first("kernel", "weight", 2)
    shapes, entries = _with_bias(m, kernel, (m.in_features, m.out_features), m.out_features)
    return kinds.Dense(m.out_features, use_bias=m.bias is not None), shapes, entries


def _padding(m: Any) -> str:
    """Return "valid", "same", or the numbers: torch's are symmetric."""
    rank = len(m.kernel_size)
    if isinstance(m.padding, str):
        return m.padding
    pads = each(m.padding, rank)
    reach = [(k - 1) * d for k, d in zip(m.kernel_size, m.dilation, strict=True)]
    if not any(pads):
        return "valid"
    if set(m.stride) == {1} and all(2 * p == r for p, r in zip(pads, reach, strict=True)):
        return "same"
    return ", ".join(map(str, pads))


def _convolution(m: Any) -> Described:
    rank = len(m.kernel_size) + 2
    padding = _padding(m) if m.padding_mode == "zeros" else m.padding_mode
    options = (tuple(m.kernel_size), tuple(m.stride), padding, tuple(m.dilation))
    if m.groups == m.in_channels > 1:
        multiplier = m.out_channels // m.in_channels
        shape = (*m.kernel_size, m.in_channels, multiplier)
        kind: Kind = kinds.DepthwiseConvolution(multiplier, *options, use_bias=m.bias is not None)
        return kind, *_with_bias(m, layouts.output_first_depthwise("weight", shape), shape, m.out_channels)
    shape = (*m.kernel_size, m.in_channels // m.groups, m.out_channels)
    kind = kinds.Convolution(m.out_channels, *options, groups=m.groups, use_bias=m.bias is not None)
    return kind, *_with_bias(m, layouts.output_first("kernel", "weight", rank), shape, m.out_channels)


def _transposed(m: Any) -> Described:
    if m.groups != 1 or set(m.dilation) != {1}:
        raise LookupError("a transposed convolution with groups or dilation has no counterpart.")
    shape = (*m.kernel_size, m.out_channels, m.in_channels)
    kind = kinds.TransposedConvolution(
        m.out_channels, tuple(m.kernel_size), tuple(m.stride), _transposed_padding(m), use_bias=m.bias is not None
    )
    return kind, *_with_bias(m, layouts.output_first("kernel", "weight", len(shape)), shape, m.out_channels)


def _transposed_padding(m: Any) -> str:
    axes = list(zip(m.kernel_size, m.stride, m.padding, m.output_padding, strict=True))
    if all(p == 0 and o == max(s - k, 0) for k, s, p, o in axes):
        return "valid"
    if all(2 * p == max(k - s, 0) and o == max(s - k, 0) for k, s, p, o in axes):
        return "same"
    return ", ".join(f"{p}+{o}" for _, _, p, o in axes)


def _affine(m: Any, features: int, **more: str) -> tuple[Shapes, tuple[Entry, ...]]:
    attributes = {"scale": "weight", "shift": "bias", **more}
    entries = tuple(Entry(role, name) for role, name in attributes.items() if getattr(m, name, None) is not None)
    return {entry.source: (features,) for entry in entries}, entries


def _batch_norm(m: Any) -> Described:
    if not m.track_running_stats or m.momentum is None:
        raise LookupError("a batch normalization without running statistics or momentum has no counterpart.")
    kind = kinds.BatchNormalization(
        m.eps,
        1.0 - m.momentum,
        use_scale=m.weight is not None,
        use_shift=m.bias is not None,
        unbiased=not helper_of(m),
    )
    return kind, *_affine(m, m.num_features, moving_mean="running_mean", moving_variance="running_var")


def _layer_norm(m: Any) -> Described:
    features = _one_axis(m)
    kind = kinds.LayerNormalization(m.eps, use_scale=m.weight is not None, use_shift=m.bias is not None)
    return kind, *_affine(m, features)


def _group_norm(m: Any) -> Described:
    affine = m.weight is not None
    kind = kinds.GroupNormalization(m.num_groups, m.eps, use_scale=affine, use_shift=affine)
    return kind, *_affine(m, m.num_channels)


def _rms_norm(m: Any) -> Described:
    features = _one_axis(m)
    if m.eps is None:
        raise LookupError("an RMSNorm without eps takes one that depends on the dtype; say eps=....")
    return kinds.RMSNormalization(m.eps), *_affine(m, features)


def _one_axis(m: Any) -> int:
    if len(m.normalized_shape) != 1:
        raise LookupError(f"a {type(m).__name__} over {len(m.normalized_shape)} axes has no counterpart.")
    return m.normalized_shape[0]


def _embedding(m: Any) -> Described:
    shape = (m.num_embeddings, m.embedding_dim)
    return kinds.Embedding(*shape), {"embeddings": shape}, layouts.same(embeddings="weight")


def _attention(m: Any) -> Described:
    if m.bias_k is not None or m.add_zero_attn:
        raise LookupError("an attention with add_bias_kv or add_zero_attn has no counterpart.")
    features, heads = m.embed_dim, m.num_heads
    size = features // heads
    wide: tuple[Step, ...] = (("reshape", (features,)),)
    shapes: Shapes = {}
    entries = []
    for index, role in enumerate(("query", "key", "value")):
        put = ((0, index * features, (index + 1) * features),)
        inputs = {"query": features, "key": m.kdim, "value": m.vdim}[role]
        shape = shapes[f"{role}_kernel"] = (inputs, heads, size)
        joined, steps = m.in_proj_weight is not None, layouts.heads_apart(shape)
        name = "in_proj_weight" if joined else f"{role[0]}_proj_weight"
        entries.append(Entry(f"{role}_kernel", name, steps, put=put if joined else ()))
        if m.in_proj_bias is not None:
            shapes[f"{role}_bias"] = (heads, size)
            entries.append(Entry(f"{role}_bias", "in_proj_bias", wide, put=put))
    shapes["output_kernel"] = (heads, size, features)
    entries.append(Entry("output_kernel", "out_proj.weight", layouts.heads_joined(shapes["output_kernel"])))
    if m.out_proj.bias is not None:
        shapes["output_bias"] = (features,)
        entries.append(Entry("output_bias", "out_proj.bias"))
    return kinds.MultiHeadAttention(heads, size, size, m.in_proj_bias is not None), shapes, tuple(entries)


def _rnn(m: Any, path: str) -> Iterator[WeightedLayer]:
    if m.proj_size:
        raise LookupError("an LSTM with proj_size has no counterpart.")
    for one in all_directions(m):
        sub = subpath(m, one)
        features = m.input_size if one.layer == 0 else m.hidden_size * (1 + m.bidirectional)
        yield _gates(m, f"{path}/{sub}" if sub else path, m.mode.partition("_")[0], features, one.suffix, one.reverse)


def _cell(m: Any, path: str) -> WeightedLayer:
    mode = {nn.LSTMCell: "LSTM", nn.GRUCell: "GRU"}
    return _gates(m, path, next((name for cls, name in mode.items() if isinstance(m, cls)), "RNN"), m.input_size)


_CELLS: Mapping[str, tuple[type[kinds.Recurrent], int]] = {
    "RNN": (kinds.SimpleRNN, 1),
    "LSTM": (kinds.LSTM, 4),
    "GRU": (kinds.GRU, 3),
}


def _gates(m: Any, path: str, mode: str, features: int, suffix: str = "", reverse: bool = False) -> WeightedLayer:
    cls, gates = _CELLS[mode]
    units = m.hidden_size
    weights = f"weight_ih{suffix}", f"weight_hh{suffix}"
    is_gru = mode == "GRU"
    entries = layouts.output_first_gru(*weights) if is_gru else layouts.output_first_lstm(*weights)
    shapes: Shapes = {"kernel": (features, gates * units), "recurrent_kernel": (units, gates * units)}
    sums: dict[str, str] = {}
    biases = "one"
    first, second = f"bias_ih{suffix}", f"bias_hh{suffix}"
    if m.bias and is_gru:
        shapes["bias"] = (2, gates * units)
        entries += (layouts.gru_row(0, first, units), layouts.gru_row(1, second, units))
        biases = "of input and state"
    elif m.bias:
        shapes["bias"] = (gates * units,)
        entries += (Entry("bias", first),)
        sums = {first: second}
        biases = "two that add up" if _counts(getattr(m, second)) else biases
    name = getattr(m, "nonlinearity", "tanh")
    kind = cls(units=units, activation=Function(name), use_bias=m.bias, reverse=reverse)
    return WeightedLayer(path, kind, shapes, entries, more={"biases": biases} if m.bias else {}, sums=sums)


def _counts(bias: Tensor) -> bool:
    return bias.requires_grad or bool(bias.detach().count_nonzero())


_READERS: Mapping[Any, Callable[[Any], Described]] = {
    nn.Linear: _linear,
    (nn.Conv1d, nn.Conv2d, nn.Conv3d): _convolution,
    (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d): _transposed,
    (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm): _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.RMSNorm: _rms_norm,
    nn.Embedding: _embedding,
    nn.MultiheadAttention: _attention,
}
