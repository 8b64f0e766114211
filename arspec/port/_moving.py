"""`transfer`: the weights and the rules of one model, for another one that exists."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from arspec._errors import SpecError, UnsupportedError, unknown
from arspec._placements import ACTIVATIONS, PARAMETERS
from arspec._rule import Rule
from arspec._sites import Layer, Site, match_sites
from arspec._spec import Spec
from arspec._table import aligned
from arspec.penalties._base import components
from arspec.port._kinds import GRU
from arspec.port._matching import Matching
from arspec.port._options import HINTS, Difference, differences, options
from arspec.port._pairing import pair_layers
from arspec.port._weighted import Layers, WeightedLayer, sizes

_HEEDED = ("when", "trainable_only")


@dataclass(frozen=True, slots=True)
class Transfer:
    """What `transfer` found; prints as a table.

    Attributes
    ----------
    pairs : which layer is which, and what decided it.
    weights : for the target, canonical, by "layer/role"; `assign` takes them.
    spec : the rules in the names of the target, one for each tensor that the source penalizes.
    differences : options known to differ, which the caller accepted.
    unseen : options that one side alone says: on the other they are in the model's code.
    """

    pairs: Matching
    weights: Mapping[str, np.ndarray]
    spec: Spec
    differences: tuple[Difference, ...]
    unseen: tuple[Difference, ...]

    def __str__(self) -> str:
        return "\n".join([aligned(self.rows()), *(f"left to the code: {one}" for one in self.unseen)])

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table: source, target, what decided, weights, what differs."""
        rows = [("source", "target", "why", "weights", "differs")]
        for pair in self.pairs:
            own = [one for one in self.differences if one.source == pair.source]
            shapes = ", ".join(sizes(shape) for shape in pair.shapes)
            rows.append((pair.source, pair.target, pair.why, shapes, "; ".join(one.text for one in own) or "-"))
        return rows


def transfer(
    source: Layers,
    target: Layers,
    spec: Spec | None = None,
    *,
    names: Mapping[str, str] | None = None,
    by_order: bool = False,
    accept: Collection[str] = (),
) -> Transfer:
    """Find which layer of a model is which of another, and return weights and rules for that one.

    Nothing is changed: `assign` of the target's framework does it.

    Parameters
    ----------
    source, target : the `layers` of two models, of the same framework or of two.
    spec : rules in the names of the source, such as its `extract` gives.
    names : source path -> target path, where the two are alike and nothing tells them apart.
    by_order : pair what nothing tells apart in the order in which the two list it.
    accept : options that may differ: "epsilon", "momentum", "unbiased", "padding", "biases",
        "dtype", ... The weights move all the same, and the target computes what its own say.

    Raises
    ------
    SpecError: a layer has no counterpart, or several; or options differ that are not accepted.
        The text lists all of them.
    UnsupportedError: weights of a layer cannot be described, have no place in the target, or a
        rule names what the target has no name for.

    Notes
    -----
    Pairs are decided by kind and shapes; by options; by the order of calls where each layer
    reads the one before, which one of the two must show; by names. What contradicts itself
    or is left open is an error with the candidates.

    Example
    -------
    >>> import torch
    >>> from arspec_torch.port import layers
    >>> one, other = (torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 4)) for _ in range(2))
    >>> print(transfer(layers(one), layers(other)))
    source  target  why     weights  differs
    0       0       shapes  2×3, 3   -
    1       1       shapes  3×4, 4   -
    """
    for side, who in ((source, "source"), (target, "target")):
        if not isinstance(side, Layers):
            raise SpecError(f"{who} is a {type(side).__name__}; expected what `layers(model)` of a framework gives.")
        side.require_known()
        if not side:
            raise SpecError(f"the {who} has no layer with weights.")
    accepted = {accept} if isinstance(accept, str) else set(accept)
    for name in accepted:
        if name not in options():
            raise unknown("option", name, options())
    pairs = pair_layers(source, target, names or {}, by_order=by_order)
    left, right = ({layer.path: layer for layer in side} for side in (source, target))
    found = [d for p in pairs for d in differences(left[p.source], right[p.target], source, target)]
    _require_accepted([one for one in found if one.seen], accepted)
    held = source.weights
    weights = {f"{p.target}/{role}": held[f"{p.source}/{role}"] for p in pairs for role in left[p.source].shapes}
    target.tensors_of(weights)  # what has no place there is refused here, before anything is changed
    return Transfer(
        pairs,
        weights,
        _renamed(spec or Spec([]), source, target, {p.source: right[p.target] for p in pairs}),
        tuple(one for one in found if one.seen),
        tuple(one for one in found if not one.seen),
    )


def _require_accepted(found: list[Difference], accepted: Collection[str]) -> None:
    open_ones = [one for one in found if one.option not in accepted]
    if not open_ones:
        return
    names = list(dict.fromkeys(one.option for one in open_ones))
    listed = "\n".join(f"  {one}" for one in open_ones[:12])
    more = f"\n  and {len(open_ones) - 12} more" if len(open_ones) > 12 else ""
    hints = "".join(f"\n{HINTS[name]}" for name in names if name in HINTS)
    raise SpecError(
        f"the layers have the same weights, and compute or train differently:\n{listed}{more}{hints}\n"
        f"Set the options of the target, or move the weights all the same: accept={names}."
    )


def _renamed(spec: Spec, source: Layers, target: Layers, pairs: Mapping[str, WeightedLayer]) -> Spec:
    """Return the rules in the names of the target, one for each site."""
    if not spec.rules:
        return spec
    described = source.described or tuple(map(_described, source))
    own = {place: held for layer in source for place, held in _places(layer).items()}
    rules, met = [], set()
    for site in match_sites(spec, described, serves=_HEEDED):
        layer, placement = own.get((site.layer, site.rule.placement), (None, ""))
        if layer is None:
            raise _nameless(site, f"{site.layer!r} is no layer with weights, so nothing says what it is in the target")
        tensors = _tensors(layer, placement)
        if tensors and (id(site.rule), tensors) in met:  # a weight that several layers share counts once
            continue
        met.add((id(site.rule), tensors))
        rules.append(_moved(site, layer, placement, pairs[layer.path]))
    moved = Spec(rules)
    if target.described:
        match_sites(moved, target.described, serves=_HEEDED)
    return moved


def _moved(site: Site, one: WeightedLayer, placement: str, other: WeightedLayer) -> Rule:
    place = other.place(placement)
    if place is None:
        raise _nameless(site, f"a {type(other.kind).__name__} of the target has no {placement} of its own")
    biases = [layer.more.get("biases", "one") for layer in (one, other)]
    if placement == "bias" and isinstance(one.kind, GRU) and biases[0] != biases[1]:
        raise _nameless(site, f"the biases are {biases[0]} in the source, and {biases[1]} in the target")
    blind = site.rule.mean_over in ((), "mean") and all(c.penalty.elementwise for c in components(site.rule.penalty))
    if placement in PARAMETERS and not blind and (placement in one.reshaped) != (placement in other.reshaped):
        raise _nameless(site, "the two frameworks show a penalty this kernel in other shapes")
    return replace(site.rule, layer=place[0], placement=place[1])


def _nameless(site: Site, why: str) -> UnsupportedError:
    return UnsupportedError(f"{site.key}: {why}. Leave the rule out, and write it for the target by hand.")


def _places(layer: WeightedLayer) -> dict[tuple[str, str], tuple[WeightedLayer, str]]:
    """Return for every place that a rule names in this layer the layer and the placement in it."""
    placements = [role for role in layer.shapes if role in PARAMETERS] + list(ACTIVATIONS)
    named = {placement: layer.place(placement) for placement in placements}
    return {place: (layer, placement) for placement, place in named.items() if place is not None}


def _tensors(layer: WeightedLayer, placement: str) -> frozenset[str]:
    return frozenset(entry.target for entry in layer.entries if entry.source == placement)


def _described(layer: WeightedLayer) -> Layer:
    """Return a layer as rules meet it, where the framework's adapter lists none: every place it may have."""
    named = {place[1]: place[1] for p in (*layer.shapes, *ACTIVATIONS) if (place := layer.place(p)) is not None}
    return Layer(layer.path, type(layer.kind).__name__, {p: p for p in named if p in PARAMETERS or p in ACTIVATIONS})
