"""Which kind each module of torch without spatial axes of its own is, everything it leaves to defaults written out."""

from collections.abc import Callable
from typing import Any

from torch import nn

from arspec.port import _kinds as kinds
from arspec.port._kinds import Function
from arspec_torch.port._builder import Seen, Weight, first
from arspec_torch.port._fx_call import Call, batched, reshaped, same_axes


def linear(call: Call, x: Seen) -> Seen:
    """Add a Linear."""
    m = call.module
    x = call.builder.feature_at(x, -1, call.name)
    kind = kinds.Dense(m.out_features, use_bias=m.bias is not None)
    weights = call.weights(
        kernel=("weight", (m.in_features, m.out_features), (("transpose", (1, 0)),)),
        bias=("bias", (m.out_features,), ()),
    )
    sizes = (*x.sizes[:-1], m.out_features)
    return call.builder.emit(call.name, kind, [x], sizes, x.axes, weights, call.path)


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


def layer_norm(call: Call, x: Seen) -> Seen:
    """Add a LayerNorm."""
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


def dropout(call: Call, x: Seen) -> Seen:
    """Add a dropout, of elements or of channels."""
    by_rank = {nn.Dropout1d: 3, nn.Dropout2d: 4, nn.Dropout3d: 5}
    rank = by_rank.get(type(call.module))
    if rank is None:
        return same_axes(call, kinds.Dropout(float(call.module.p)), x)
    x = batched(call, x, rank)
    return same_axes(call, kinds.Dropout(float(call.module.p), "channels"), x)


def _identity(call: Call, x: Seen) -> Seen:
    return same_axes(call, kinds.Identity(), x)


def _flatten(call: Call, x: Seen) -> Seen:
    return reshaped(call.builder, x, call.node, call.name)


_ACTIVATIONS: dict[type[nn.Module], str] = {
    **{nn.ReLU: "relu", nn.ReLU6: "relu6", nn.SELU: "selu", nn.SiLU: "silu", nn.Hardswish: "hard_silu"},
    **{nn.Hardsigmoid: "hard_sigmoid", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh", nn.Softsign: "softsign"},
    nn.Mish: "mish",
}

READERS: dict[type[nn.Module], Callable[..., Seen]] = {
    nn.Linear: linear,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), batch_norm),
    nn.LayerNorm: layer_norm,
    nn.GroupNorm: _group_norm,
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _instance_norm),
    nn.RMSNorm: _rms_norm,
    nn.Embedding: _embedding,
    **dict.fromkeys((*_ACTIVATIONS, nn.Hardtanh, nn.Softplus, nn.GELU, nn.LeakyReLU, nn.ELU, nn.CELU), _activation),
    **dict.fromkeys((nn.Softmax, nn.LogSoftmax), _softmax),
    nn.PReLU: _prelu,
    **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), dropout),
    nn.Identity: _identity,
    **dict.fromkeys((nn.Flatten, nn.Unflatten), _flatten),
}
