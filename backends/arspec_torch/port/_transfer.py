"""`transfer`: the weights of a bundle into a module that exists already."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from arspec import UnsupportedError
from arspec.port import Bundle, PortedSite, Written
from arspec.port._graph import Graph
from arspec.port._kinds import Activation
from arspec.port._matching import Matching, match
from arspec_torch.port._read import Reading, example_tensors, read_module


def transfer(
    bundle: Bundle,
    module: nn.Module,
    /,
    example_inputs: Tensor | Sequence[Tensor],
    *,
    names: Mapping[str, str] | None = None,
) -> tuple[Written, Matching]:
    """Give a module the weights of a bundle, layer by layer.

    Parameters
    ----------
    bundle : of the source.
    module : the same model, written by somebody; torch.fx traces its forward. Its weights change.
    example_inputs : one tensor per argument of forward, as for `export`.
    names : source layer -> module path, where the two are alike and nothing tells them apart.

    Returns
    -------
    The map of the target, for `check`, and the pairs of layers with what decided each; print
    them.

    Raises
    ------
    SpecError: a layer has no counterpart, or several; nothing was changed.
    UnsupportedError: the module cannot be traced, or the place of a rule cannot be named in it.
    """
    reading = read_module(module, example_tensors(example_inputs))
    paths = {path.replace(".", "/"): path for path, _ in module.named_modules()}
    given = {source: _slashed(target) for source, target in (names or {}).items()}
    pairs = match(bundle.graph, reading.graph, bundle.shapes, reading.shapes, given)
    own = {pair.target: pair.source for pair in pairs}
    entries = tuple(replace(entry, source=_renamed(entry.source, own)) for entry in reading.map.entries)
    layers = {pair.source: paths.get(pair.target, pair.target) for pair in pairs}
    weights = replace(reading.map, entries=entries, layers=layers)
    weights.require_bijective(bundle.shapes)
    places = [_with_weights(site, bundle.graph, layers) for site in bundle.sites]
    own_places = reading.written([])
    written = replace(
        own_places,
        weights=weights,
        sites=tuple((layers[site.layer], site.placement) for site in places),
        site_layouts=tuple(_layout(reading, site, own) for site in places),
        traced={own[path]: place for path, place in own_places.traced.items() if path in own},
    )
    module.load_state_dict({name: torch.from_numpy(array) for name, array in weights.to_target(bundle.weights).items()})
    return written, pairs


def _slashed(path: str) -> str:
    return path.replace(".", "/")


def _renamed(weight: str, own: Mapping[str, str]) -> str:
    layer, _, role = weight.rpartition("/")
    while layer not in own and "/" in layer:  # a direction of a bidirectional layer
        layer, _, before = layer.rpartition("/")
        role = f"{before}/{role}"
    return f"{own[layer]}/{role}"


def _with_weights(site: PortedSite, graph: Graph, layers: Mapping[str, str]) -> PortedSite:
    """Return the site at a layer that has weights: a function after it makes its output."""
    if site.layer in layers:
        return site
    nodes = dict(graph.walk())
    node = nodes[site.layer]
    before = str(node.inputs[0])
    reads = [other for other in graph.nodes if before in other.inputs]
    follows = isinstance(node.layer, Activation) and hasattr(getattr(nodes.get(before), "layer", None), "activation")
    if follows and site.placement == "output" and before in layers and reads == [node]:
        return replace(site, layer=before)
    raise UnsupportedError(
        f"{site.key}: {site.layer!r} has no weights, so nothing says which module it is. Leave the rule out of the "
        "bundle, and attach it by hand."
    )


def _layout(reading: Reading, site: PortedSite, own: Mapping[str, str]) -> str:
    target = next(target for target, source in own.items() if source == site.layer)
    return reading.layout_of(replace(site, layer=target))
