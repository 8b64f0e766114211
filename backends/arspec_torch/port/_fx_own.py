"""Reading the helper classes that `write` puts into a file, so that what it wrote can be read again."""

from collections.abc import Callable

from arspec.port import _kinds as kinds
from arspec.port._kinds import Function
from arspec_torch.port._builder import Seen, Weight, first
from arspec_torch.port._fx_call import Call, same_axes
from arspec_torch.port._fx_modules import batch_norm


def _per_channel(call: Call, x: Seen) -> Seen:
    """Bring the features to where a tensor with one entry per channel has them."""
    rank = call.module.weight.dim() if hasattr(call.module, "weight") else call.module.mean.dim()
    if rank == 1:
        return call.builder.feature_at(x, -1, call.name)
    return call.builder.arrange(x, first(x.rank), call.name)


def _weights(call: Call, **roles: str) -> list[Weight]:
    found = []
    for role, attribute in roles.items():
        shape = tuple(getattr(call.module, attribute).shape)
        found.append(Weight(role, f"{call.path}.{attribute}", (shape[0],), (("reshape", shape),)))
    return found


def _scale(call: Call, x: Seen) -> Seen:
    return same_axes(call, kinds.Scale(), _per_channel(call, x), _weights(call, scale="weight"))


def _standardize(call: Call, x: Seen) -> Seen:
    weights = _weights(call, mean="mean", variance="variance")
    return same_axes(call, kinds.Standardize(call.module.eps), _per_channel(call, x), weights)


def _exponential(call: Call, x: Seen) -> Seen:
    return same_axes(call, kinds.Activation(Function("exponential")), x)


def _stochastic_depth(call: Call, x: Seen) -> Seen:
    return same_axes(call, kinds.Dropout(call.module.p, "examples"), x)


def _average_same(call: Call, x: Seen) -> Seen:
    x = call.builder.arrange(x, first(x.rank), call.name)
    kind = kinds.Pooling("average", tuple(call.module.size), tuple(call.module.stride), "same")
    return call.give(kind, x, x.axes)


READERS: dict[str, Callable[..., Seen]] = {
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"), batch_norm),
    "Scale": _scale,
    "Standardize": _standardize,
    "Exponential": _exponential,
    "StochasticDepth": _stochastic_depth,
    "AveragePoolSame": _average_same,
}
