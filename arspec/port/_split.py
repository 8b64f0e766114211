"""A layer of a graph as the frameworks have it: some are two, and a kind may have a plainer name."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from arspec.port import _kinds as kinds
from arspec.port._bundle import Bundle
from arspec.port._kinds import Kind
from arspec.port._mapping import Entry
from arspec.port._source import Written
from arspec.port._target import require_names
from arspec.port._weighted import Layers, WeightedLayer


def written_layers(bundle: Bundle, written: Written, arrays: Mapping[str, Any], /) -> Layers:
    """List the layers of code that `write` made of a bundle, trained since, in the names of the source.

    Parameters
    ----------
    bundle, written : of the target; see `read_target`.
    arrays : of the target, by the names of the map: `module.state_dict()` in torch,
        `arspec_jax.port.arrays(model)` in NNX and Equinox.

    Returns
    -------
    A `Layers`, to be moved back into the source, or into any other model. Its paths are those of
    the source; rules keep the names that they have there.

    Raises
    ------
    SpecError: the model has other tensors than the map says.

    Notes
    -----
    Code that `write` made may have classes of its own, whose weights only the map explains.
    """
    held = {name: np.asarray(array) for name, array in arrays.items()}
    require_names(held, written.weights.shapes, "the model is not that of the map")
    entries: dict[str, list[Entry]] = {}
    for entry in written.weights.entries:
        entries.setdefault(entry.source, []).append(entry)
    found: list[WeightedLayer] = []
    for path, node in bundle.graph.walk():
        if isinstance(node.layer, Kind) and node.call == 0 and node.layer.roles():
            roles = node.layer.roles()
            shapes = {role: tuple(bundle.weights[f"{path}/{role}"].shape) for role in roles}
            own = tuple(replace(entry, source=role) for role in roles for entry in entries[f"{path}/{role}"])
            found += split(WeightedLayer(path, node.layer, shapes, own, frozen=frozenset(node.frozen)))
    return Layers(written.framework, found, held)


def split(layer: WeightedLayer) -> Iterator[WeightedLayer]:
    """Yield the layers that one is: two of a separable convolution or of two directions, else itself.

    A convolution with a group for each channel is a depthwise one.
    """
    kind = layer.kind
    if isinstance(kind, kinds.SeparableConvolution):
        yield from _separated(layer, kind)
    elif isinstance(kind, kinds.Bidirectional):
        for side in ("forward", "backward"):
            yield from split(_direction(layer, kind.layer, side))
    elif isinstance(kind, kinds.Convolution) and kind.groups > 1 and layer.shapes["kernel"][-2] == 1:
        yield _depthwise(layer, kind)
    elif isinstance(kind, kinds.Recurrent) and len(layer.shapes.get("bias", ())) == 2:
        yield replace(layer, more={"biases": "of input and state"})
    else:
        yield layer


def _part(layer: WeightedLayer, name: str, kind: Kind, roles: Mapping[str, str], **more: Any) -> WeightedLayer:
    """Return a part of a layer with some of its weights: role there -> role in the part."""
    frozen = frozenset(new for old, new in roles.items() if old in (layer.frozen or ()))
    return WeightedLayer(
        f"{layer.path}/{name}",
        kind,
        {new: layer.shapes[old] for old, new in roles.items()},
        tuple(replace(entry, source=roles[entry.source]) for entry in layer.entries if entry.source in roles),
        unseen=layer.unseen,
        frozen=frozen,
        named=layer.named,
        **more,
    )


def _direction(layer: WeightedLayer, cell: Any, side: str) -> WeightedLayer:
    roles = {f"{side}/{role}": role for role in cell.roles()}
    kind = replace(cell, reverse=side == "backward")
    return _part(layer, side, kind, roles)


def _separated(layer: WeightedLayer, kind: kinds.SeparableConvolution) -> Iterator[WeightedLayer]:
    first, second = "depthwise_kernel", "pointwise_kernel"
    ones = (1,) * len(kind.kernel_size)
    nowhere: dict[str, tuple[str, str] | None] = dict.fromkeys(("input", "output", "pre_activation"))
    at: Callable[..., dict[str, tuple[str, str] | None]] = lambda *names: {n: (layer.path, n) for n in names}  # noqa: E731
    options = (kind.multiplier, kind.kernel_size, kind.strides, kind.padding, kind.dilation)
    places = {**nowhere, "kernel": (layer.path, first), **at("input")}
    depthwise = kinds.DepthwiseConvolution(*options, use_bias=False)
    yield _part(layer, "depthwise", depthwise, {first: "kernel"}, places=places)
    options = (kind.filters, ones, ones, "valid", ones)
    places = {**nowhere, "kernel": (layer.path, second), **at("bias", "output", "pre_activation")}
    pointwise = kinds.Convolution(*options, activation=kind.activation, use_bias=kind.use_bias)
    roles = {second: "kernel", **({"bias": "bias"} if kind.use_bias else {})}
    yield _part(layer, "pointwise", pointwise, roles, places=places)


def _depthwise(layer: WeightedLayer, kind: kinds.Convolution) -> WeightedLayer:
    grouped = layer.shapes["kernel"]
    shape = (*grouped[:-2], kind.groups, grouped[-1] // kind.groups)
    options = (kind.kernel_size, kind.strides, kind.padding, kind.dilation, kind.activation, kind.use_bias)
    return replace(
        layer,
        kind=kinds.DepthwiseConvolution(shape[-1], *options),
        shapes={**layer.shapes, "kernel": shape},
        entries=tuple(
            replace(entry, steps=(("reshape", grouped), *entry.steps)) if entry.source == "kernel" else entry
            for entry in layer.entries
        ),
        reshaped=frozenset({"kernel"}),
    )
