"""Which kinds attention and the encoder of a Transformer are made of."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import fx, nn
from torch.nn import functional as F

from arspec.port import _kinds as kinds
from arspec.port._kinds import Function
from arspec.port._mapping import Step
from arspec_torch.port._builder import Seen, Weight, order
from arspec_torch.port._fx_call import Call
from arspec_torch.port._fx_modules import activation_of, dropout, layer_norm, linear


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
    read = [query, value] if key == value else [query, value, key]
    weights = attention_weights(m, call.path)
    return call.builder.emit(call.name, kind, read, query.sizes, query.axes, weights, call.path)


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
    _require_same_features(call)
    if len(call.node.args) > 3:
        raise call.refuse("an attention with masks", "Masks are not ported from torch.")
    b, options = call.builder, dict(call.node.kwargs)
    masks = {name: options.get(name) for name in ("key_padding_mask", "attn_mask", "is_causal")}
    given = [name for name, value in masks.items() if b.trace.static(value)]
    if given:
        raise call.refuse(f"an attention with {', '.join(given)}", "Masks are not ported from torch.")


def _require_same_features(call: Call) -> None:
    m = call.module
    if not m._qkv_same_embed_dim or m.bias_k is not None or m.add_zero_attn or m.dropout:
        raise call.refuse(
            "an attention with kdim, vdim, add_bias_kv, add_zero_attn or dropout", "Leave them out (dropout=0.0)."
        )


def _encoder_layer(call: Call, x: Seen) -> Seen:
    """Add a TransformerEncoderLayer: its modules at their own paths, and the two sums."""
    m = call.module
    _require_unmasked(call, 1)
    x = call.builder.arrange(x, order(3, batch=0 if m.self_attn.batch_first else 1), call.name)
    if m.norm_first:
        x = _sum(call, "sum1", x, _attended(call, layer_norm(_part(call, "norm1"), x)))
        return _sum(call, "sum2", x, _fed(call, layer_norm(_part(call, "norm2"), x)))
    x = layer_norm(_part(call, "norm1"), _sum(call, "sum1", x, _attended(call, x)))
    return layer_norm(_part(call, "norm2"), _sum(call, "sum2", x, _fed(call, x)))


def _encoder(call: Call, x: Seen) -> Seen:
    _require_unmasked(call, 1)
    for index in range(len(call.module.layers)):
        part = _part(call, f"layers.{index}")
        x = _encoder_layer(part, x)
    return x if call.module.norm is None else layer_norm(_part(call, "norm"), x)


def _part(call: Call, name: str) -> Call:
    return replace(call, module=call.module.get_submodule(name), path=f"{call.path}.{name}")


def _attended(call: Call, x: Seen) -> Seen:
    part = _part(call, "self_attn")
    _require_same_features(part)
    return dropout(_part(call, "dropout1"), attention(part, x, x, x))


def _fed(call: Call, x: Seen) -> Seen:
    hidden = linear(_part(call, "linear1"), x)
    given = call.module.activation
    function = activation_of(given) if isinstance(given, nn.Module) else _FUNCTIONS.get(given)
    if function is None:
        raise call.refuse(f"the activation {given!r}", "Use F.relu, F.gelu or a module.")
    kind = kinds.Activation(function)
    active = call.builder.emit(f"{call.name}/activation", kind, [hidden], hidden.sizes, hidden.axes)
    return dropout(_part(call, "dropout2"), linear(_part(call, "linear2"), dropout(_part(call, "dropout"), active)))


def _sum(call: Call, name: str, one: Seen, other: Seen) -> Seen:
    return call.builder.emit(f"{call.name}/{name}", kinds.Merge("add"), [one, other], one.sizes, one.axes)


def _require_unmasked(call: Call, arguments: int) -> None:
    given = [*call.node.args[arguments:], *(v for k, v in call.node.kwargs.items() if k not in ("src", "query"))]
    if any(isinstance(each, fx.Node) or each for each in given):
        raise call.refuse("an encoder with a mask", "Masks are not ported from torch.")


_FUNCTIONS: dict[Any, Function] = {F.relu: Function("relu"), F.gelu: Function("gelu")}

READERS: dict[type[nn.Module], Callable[..., Seen]] = {
    nn.MultiheadAttention: _attention,
    nn.TransformerEncoderLayer: _encoder_layer,
    nn.TransformerEncoder: _encoder,
}
