"""What arspec can name inside an nn.Module: layers, their tensors and the names of the axes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from arspec import Layer
from arspec._axes import SPATIAL_AXES
from arspec_torch import _attention, _recurrent
from arspec_torch._activations import Activation, Unknown
from arspec_torch._native import ActivityRegularization
from arspec_torch._source import Found, Source, input_of, named_inside, output_of, parameter, transformed

_CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
_TRANSPOSED = {nn.ConvTranspose1d: 1, nn.ConvTranspose2d: 2, nn.ConvTranspose3d: 3}
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_CHANNEL_NORMS = (*_BATCH_NORMS, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm)
_POOLS = ("MaxPool", "AvgPool", "AdaptiveMaxPool", "AdaptiveAvgPool", "LPPool", "FractionalMaxPool")
_PARAMETER_PLACEMENTS = ("kernel", "recurrent_kernel", "bias", "scale", "shift", "embeddings")

Finder = Callable[[str], Activation | Unknown | None]
Roles = Mapping[type[nn.Module], Mapping[str, str]]

# Layouts a tensor may have, by whether its rank says them: see `Regularization`.
CHANNELS_FIRST = {
    2: "batch feature",
    3: "batch feature time",
    4: "batch feature height width",
    5: "batch feature depth height width",
}


@dataclass(frozen=True, slots=True)
class Context:
    """What the layers of one model have in common.

    Attributes
    ----------
    activation_of : says which activation function belongs to the affine layer of a name; None
        where nobody asks.
    roles : what the parameters of modules that arspec does not know are, by class.
    """

    activation_of: Finder | None = None
    roles: Roles = field(default_factory=dict)


def named_layers(model: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """Yield path, dotted name and module of every layer; wrappers leave no trace in the path.

    The model itself is a layer called "model" where it is known or has parameters of its own.
    """
    named = named_inside(model)
    if len(named) == 1 or any(True for _ in model.parameters(recurse=False)) or _is_known(model):
        yield _root_path(model), "", model
    for name, module in named.items():
        if name:
            yield name.replace(".", "/"), name, module


def _root_path(model: nn.Module) -> str:
    return "model" if "model" not in dict(model.named_children()) else "(model)"


def _is_known(module: nn.Module) -> bool:
    return isinstance(module, (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase, *_attention.TRANSFORMERS))


def _is_the_whole(model: nn.Module) -> bool:
    """Return whether a model is no layer, but what holds the layers: a glob must not meet its output."""
    is_layer = _is_known(model) or is_affine(model) or _known_parameters(model) is not None
    return not is_layer and any(True for _ in model.children())


def describe(model: nn.Module, context: Context) -> tuple[list[Layer], dict[tuple[str, str], Source]]:
    """List the layers of a model and, per (path, placement), the source of the tensor."""
    layers: list[Layer] = []
    sources: dict[tuple[str, str], Source] = {}
    hidden: set[str] = set()
    time_axes: dict[str, str | None] = {}
    for path, name, module in named_layers(model):
        if path in hidden:
            continue
        if isinstance(module, _attention.TRANSFORMERS):
            time_axes[name] = _attention.transformer_axes(module)
        for found in _found(path, name or "model", module, context):
            if not name and _is_the_whole(module):
                found = replace(found, sources={p: s for p, s in found.sources.items() if s.is_parameter})
            hidden.add(found.path)
            stated = _within_transformer(name, time_axes)
            sources |= {(found.path, p): _with_axes(source, stated) for p, source in found.sources.items()}
            placements = {placement: source.tensor for placement, source in found.sources.items()}
            layers.append(Layer(found.path, found.kind, placements, found.refused, found.in_globs, found.hints))
    return layers, sources


def _within_transformer(name: str, time_axes: Mapping[str, str | None]) -> str | None:
    """Return the axes of the Transformer module around a layer, or None outside of one."""
    holders = [holder for holder in time_axes if not holder or name.startswith(f"{holder}.")]
    return time_axes[max(holders, key=len)] if holders else None


def _with_axes(source: Source, stated: str | None) -> Source:
    """Give an activation whose axes go by their rank those of the Transformer around it."""
    capture = source.capture
    if stated is None or not isinstance(capture, partial):
        return source
    if capture.keywords.get("axes", stated) not in (None, "unknown"):
        return source
    return replace(source, capture=partial(capture.func, **{**capture.keywords, "axes": stated}))


def _found(path: str, name: str, module: nn.Module, context: Context) -> list[Found]:
    if isinstance(module, nn.RNNBase):
        return _recurrent.found_in(path, name, module)
    if isinstance(module, nn.RNNCellBase):
        return _recurrent.found_in_cell(path, name, module)
    if isinstance(module, nn.MultiheadAttention):
        return _attention.found_in(path, name, module)
    if isinstance(module, _attention.TRANSFORMERS):
        return _attention.found_in_transformer(path, name, module)
    kind = type(module).__name__
    if is_affine(module):
        return [_affine(path, name, kind, module, context.activation_of)]
    known = _known_parameters(module)
    if known is not None:
        flat = {p: parameter(module, name, a, axes) for p, (a, axes) in known.items() if axes is not None}
        several = "it has several axes, and arspec.layers defines it with one, that of the features."
        refused = {p: several for p in known if p not in flat}
        return [Found(path, kind, {**_ends(name, module), **flat}, refused)]
    return [_unknown(path, name, kind, module, context.roles)]


def is_affine(module: nn.Module) -> bool:
    """Return whether a module is a Linear or a convolution."""
    return isinstance(module, (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED))


def _affine(path: str, name: str, kind: str, module: Any, activation_of: Finder | None) -> Found:
    axes = channel_axes(module)
    found = {
        "input": input_of(module, name, axes),
        "pre_activation": output_of(module, name, axes),
        "kernel": _kernel(name, module),
    }
    if module.bias is not None:
        found["bias"] = parameter(module, name, "bias", "output")
    activation = None if activation_of is None else activation_of(name)
    if isinstance(activation, Unknown):
        return Found(path, kind, found, {"output": activation.reason})
    found["output"] = _activated(name, module, axes, activation)
    return Found(path, kind, found)


def channel_axes(module: nn.Module) -> str | None:
    """Return the axes of what a convolution gives; those of a Linear go by their rank."""
    rank = _spatial_rank(module, {**_CONVOLUTIONS, **_TRANSPOSED})
    return None if rank is None else f"batch feature {SPATIAL_AXES[rank]}"


def _spatial_rank(module: nn.Module, table: Mapping[type[nn.Module], int]) -> int | None:
    return next((rank for cls, rank in table.items() if isinstance(module, cls)), None)


def _kernel(name: str, module: Any) -> Source:
    if isinstance(module, nn.Linear):
        return parameter(module, name, "weight", "output input")
    transposed = _spatial_rank(module, _TRANSPOSED)
    if transposed is not None:
        return parameter(module, name, "weight", f"input output {SPATIAL_AXES[transposed]}")
    spatial = SPATIAL_AXES[_spatial_rank(module, _CONVOLUTIONS) or 1]
    if module.groups == module.in_channels > 1:
        # A depthwise convolution: per channel its own kernel, (input, output per channel).
        by_channel = partial(_by_channel, channels=module.in_channels)
        return Source(module, f"{name}.weight", f"input output {spatial}", ("weight",), by_channel)
    return parameter(module, name, "weight", f"output input {spatial}")


def _by_channel(weight: Tensor, *, channels: int) -> Tensor:
    return weight.reshape(channels, -1, *weight.shape[2:])


def _activated(name: str, module: nn.Module, axes: str | None, activation: Activation | None) -> Source:
    if activation is None:
        return output_of(module, name, axes)
    if activation.module is not None:
        return output_of(activation.module, activation.name, axes)
    if activation.function is None:
        return output_of(module, name, axes)
    return transformed(module, f"{activation.name}({name}())", axes, activation.function)


def _known_parameters(module: Any) -> dict[str, tuple[str, str | None]] | None:
    """Return attribute and axes of the parameters of an embedding or a normalization, by placement."""
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return {"embeddings": ("weight", "input output")}
    if not isinstance(module, (*_CHANNEL_NORMS, nn.LayerNorm, nn.RMSNorm)):
        return None
    pairs = (("scale", "weight"), ("shift", "bias"))
    held = {placement: attribute for placement, attribute in pairs if getattr(module, attribute, None) is not None}
    return {p: (a, "output" if getattr(module, a).dim() == 1 else None) for p, a in held.items()}


def _ends(name: str, module: nn.Module) -> dict[str, Source]:
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return {"output": output_of(module, name)}
    if isinstance(module, _CHANNEL_NORMS):
        return {"input": input_of(module, name, "channels first"), "output": output_of(module, name, "channels first")}
    return {"input": input_of(module, name), "output": output_of(module, name)}


def _unknown(path: str, name: str, kind: str, module: nn.Module, roles: Roles) -> Found:
    """Return a layer without parameters, or one of a class that arspec does not know."""
    axes = "channels first" if kind.startswith(_POOLS) else "unknown"
    if isinstance(module, ActivityRegularization):
        axes = module.axes or axes
    ends = {"input": input_of(module, name, axes), "output": output_of(module, name, axes)}
    if is_activation(module):
        ends["pre_activation"] = ends["input"]
    own = [] if is_activation(module) else [attribute for attribute, _ in module.named_parameters(recurse=False)]
    given = next((held for cls, held in roles.items() if isinstance(module, cls)), None)
    if given is None:
        refused: dict[str, str] = dict.fromkeys(_PARAMETER_PLACEMENTS, _unassigned(kind, own)) if own else {}
        return Found(path, kind, ends, refused, in_globs=bool(own))
    for attribute, role in given.items():
        placement, _, role_axes = role.partition(":")
        ends[placement.strip()] = parameter(module, name, attribute, role_axes.strip() or None)
    return Found(path, kind, ends, in_globs=bool(own))


def _unassigned(kind: str, own: list[str]) -> str:
    listed = ", ".join(own)
    return (
        f"arspec does not know what its parameters ({listed}) are; say it: "
        f'attach(..., roles={{{kind}: {{"{own[0]}": "kernel: input output"}}}}), with the axes in its order, or {{}} '
        "for parameters without a role."
    )


def is_activation(module: nn.Module) -> bool:
    """Return whether a module is one of torch's elementwise activation functions."""
    return type(module).__module__ == "torch.nn.modules.activation" and not isinstance(
        module, nn.MultiheadAttention | nn.Softmax | nn.Softmax2d | nn.LogSoftmax | nn.Softmin
    )
