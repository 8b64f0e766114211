"""From a rule and a trace to a penalty: which variables, how they become tensors, what they cost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from arspec import Site, UnsupportedError
from arspec._axes import resolve_axes
from arspec._masks import require_mask
from arspec._placements import ACTIVATIONS
from arspec._sites import unfired
from arspec._spec import at
from arspec.penalties._base import components
from arspec_jax._activations import Unknown, find_output
from arspec_jax._engine import value
from arspec_jax._parts import Part
from arspec_jax._scope import Name, Place, Scope, hoisted
from arspec_jax._sequences import Seen, Spot, check_steps, is_loose_step, looped
from arspec_jax._trace import Trace

Array = Any
Activation = Callable[[Array], Array] | None


@dataclass(frozen=True)
class Reading:
    """Where the tensors of a site stand: groups of one spot each, or of the steps of a loop."""

    groups: Sequence[Sequence[Spot]]
    function: Activation = None

    @property
    def requests(self) -> list[tuple[Scope, Any]]:
        return [request for group in self.groups for spot in group for request in spot.requests]

    def seen(self, arrays: Sequence[Array]) -> list[Seen]:
        """Return the tensors, one per call, given what `requests` asks for."""
        source, found = iter(arrays), []
        for group in self.groups:
            given = [[next(source) for _ in spot.requests] for spot in group]
            seen = looped(group, given) if is_loose_step(group[0].place) else group[0].seen(given[0])
            found.append(seen if self.function is None else replace(seen, array=self.function(seen.array)))
        return found


def read(site: Site, part: Part, traced: Trace, activations: Mapping[str, Activation]) -> Reading:
    """Say where the tensors of a site stand in a trace.

    Raises
    ------
    SpecError: the layer did not run.
    UnsupportedError: the tensor is out of reach, or which one it is cannot be told.
    """
    places, is_result = _places(site, part, traced)
    _check_names(site, part, places)
    if site.rule.placement != "output" or not is_result:
        is_weight = site.rule.placement not in ACTIVATIONS
        return Reading(_weights(site, part, places) if is_weight else _groups(site, places, traced))
    if site.layer in activations:
        return Reading([[_same(place)] for place in places], activations[site.layer])
    spots = [Spot(place, _known(find_output(place.scope, place.variable), site)) for place in places]
    if part.is_custom and any(spot.source[1] is not spot.place.variable for spot in spots):
        raise _doubtful(site, f"a {part.kind} is not a layer of the framework, and an elementwise function follows it")
    return Reading([[spot] for spot in spots])


def _places(site: Site, part: Part, traced: Trace) -> tuple[list[Place], bool]:
    """Return where the tensor of a site is named, and whether an activation function may follow it."""
    own = Name(site.layer, site.rule.placement)
    is_named = own in traced.named or own in traced.hidden or not part.is_affine
    name = own if is_named else Name(site.layer, "pre_activation")
    if name in traced.hidden:
        raise UnsupportedError(
            f"{site.key}: the layer runs inside {traced.hidden[name]}, where its result cannot be read. "
            "Apply such a transformation around forward(...), not inside the model, or drop the rule."
        )
    if name not in traced.named:
        raise unfired([site])
    return traced.named[name], not is_named or part.is_custom


def _same(place: Place) -> Spot:
    return Spot(place, (place.scope, place.variable))


def _groups(site: Site, places: Sequence[Place], traced: Trace) -> list[list[Spot]]:
    """Put the steps of a Python loop together; every other place is a call of its own."""
    loop = [place for place in places if is_loose_step(place)]
    if any(place.label.walk for place in places):
        check_steps(site.key, traced.named.get(Name(site.layer, "hidden_state"), []))
    groups = [[_same(place)] for place in places if not is_loose_step(place)]
    return [*groups, [_same(place) for place in loop]] if loop else groups


def _weights(site: Site, part: Part, places: Sequence[Place]) -> list[list[Spot]]:
    """Return a weight that stands for one per iteration once, however often it is used."""
    sources = {id(place.variable): (place, hoisted(place.scope, place.variable)) for place in places}
    stacked = part.parameters[site.rule.placement].stacked
    for place, (scope, _) in sources.values():
        if scope.depth + place.label.mapped != stacked:
            raise UnsupportedError(
                f"{site.key}: the weight has {stacked} more axes than a {part.kind} has, and the layer runs inside "
                f"{scope.depth + place.label.mapped} loops or maps. Scan over the layers alone, or name a plain layer."
            )
    return [[Spot(place, source)] for place, source in {id(s[1]): (p, s) for p, s in sources.values()}.values()]


def _check_names(site: Site, part: Part, places: Sequence[Place]) -> None:
    """Refuse a rule to which names of axes matter where they cannot be told."""
    rule = site.rule
    if rule.placement not in ACTIVATIONS:
        return
    blind = (), "mean", *([("batch",)] if part.mapped else [])
    if rule.mean_over in blind and all(c.penalty.elementwise for c in components(rule.penalty)):
        return
    for place in places:
        own = len(place.variable.aval.shape) - place.label.mapped
        is_batch = place.label.mapped <= max(part.mapped, 1 if own == 1 else 0)
        if not is_batch and (own > 1 or place.label.walk):
            raise UnsupportedError(
                f"{site.key}: the layer runs inside vmap, and which axis of its {own + place.label.mapped} the mapped "
                "one is cannot be told. Apply vmap around forward(...), give the layer the whole array, or take "
                "mean_over='sum' or 'mean' of a penalty that does not look at axes."
            )
        if own > 1 and part.is_unnamed and not place.label.walk:
            raise UnsupportedError(
                f"{site.key}: which axis is which in what a {part.kind} is given or gives cannot be told: an array of "
                f"{own} axes per example. Take mean_over='sum' or 'batchmean' of a penalty that does not look at axes, "
                "or name a convolution or an attention."
            )


def penalty(site: Site, tensors: Sequence[Seen], axes: str | None, mask: Array | None = None) -> Array:
    """Return the sum over the calls of a layer.

    `axes` are the names where a tensor brings none, `mask` what a person gave for the layer.
    """
    total = None
    for seen in tensors:
        with at(site.key):
            named = seen if seen.axes else replace(seen, axes=axes)
            masked = named if mask is None else _masked(named, mask)
            one = _mapped(_value(site, masked), masked.calls, masked.mask_calls)(masked.array, masked.mask)
        one = jnp.sum(one) if seen.calls else one
        total = one if total is None else total + one
    return total


def _value(site: Site, seen: Seen) -> Callable[..., Array]:
    rule = site.rule
    options = {"axes": seen.axes, "mean_over": rule.mean_over, "numerics": rule.numerics}
    return lambda array, mask: value(rule.penalty, array, mask=mask, **options)


def _masked(seen: Seen, mask: Array) -> Seen:
    """Return the tensor with one more mask: what counts must be valid in both."""
    shape = tuple(seen.array.shape)[seen.calls :]
    require_mask(mask.shape, mask.dtype.name, shape, resolve_axes(len(shape), seen.axes).names)
    if seen.mask is None:
        return replace(seen, mask=mask)
    rank = max(mask.ndim, seen.mask.ndim - seen.mask_calls)
    own = seen.mask.reshape(seen.mask.shape + (1,) * (rank + seen.mask_calls - seen.mask.ndim))
    return replace(seen, mask=own & mask.reshape(mask.shape + (1,) * (rank - mask.ndim)))


def _mapped(function: Callable[..., Array], calls: int, mask_calls: int) -> Callable[..., Array]:
    """Map over the axes in front that count calls."""
    for level in reversed(range(calls)):
        function = jax.vmap(function, in_axes=(0, 0 if level < mask_calls else None))
    return function


def _known(found: Any, site: Site) -> Any:
    if isinstance(found, Unknown):
        raise _doubtful(site, found.reason)
    return found


def _doubtful(site: Site, reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"{site.key}: which activation function belongs to the layer cannot be told: {reason}. Say it: "
        f"attach(model, spec, activations={{{site.layer!r}: jax.nn.relu}}), or None for no activation."
    )
