"""A site bound to its Keras layer: which tensor that is, and its penalty."""

from dataclasses import dataclass
from typing import Any

import keras
from arspec import Site, SpecError, UnsupportedError
from arspec._placements import ACTIVATIONS
from arspec_keras import _backend
from arspec_keras._layers import activation_axes
from arspec_keras._taps import Records, Seen
from arspec_keras._weights import Weight, weights_of


@dataclass(frozen=True, slots=True)
class Bound:
    """A site and the Keras layer it stands for."""

    site: Site
    layer: keras.Layer

    @property
    def is_activation(self) -> bool:
        return self.site.rule.placement in ACTIVATIONS

    @property
    def weight(self) -> Weight:
        """The weight of the site, which is none of an activation."""
        return weights_of(self.layer)[0][self.site.rule.placement]

    def counts(self, training: bool) -> bool:
        """Return whether the rule counts in this pass, or is 0."""
        rule = self.site.rule
        frozen = rule.trainable_only and not self.weight.trainable
        return (training or rule.when == "always") and not frozen


def weights_once(bound: list[Bound]) -> list[Bound]:
    """Drop the sites whose weight a site of the same rule has already (tied weights)."""
    kept, seen = [], set()
    for entry in bound:
        if not entry.is_activation:
            held = entry.weight.held
            key = id(entry.site.rule), id(held)
            if isinstance(held, keras.Variable) and key in seen:
                continue
            seen.add(key)
        kept.append(entry)
    return kept


def recorded(bound: Bound, records: Records) -> list[Seen]:
    """Return the tensors of the site, one for each call of its layer."""
    placement = bound.site.rule.placement
    if bound.site.tensor == "output (there is no activation)":
        placement = "output"
    return records.get((id(bound.layer), placement), [])


def one_tensor(bound: Bound, seen: Seen) -> Any:
    """Return the tensor that a layer was given or gave, if it is one."""
    x = seen.tensor
    if isinstance(x, tuple | list | dict):
        what = "is given" if bound.site.rule.placement == "input" else "returns"
        raise UnsupportedError(
            f"{bound.site.key}: layer {bound.site.layer!r} {what} {len(x)} tensors; a placement names one tensor."
        )
    return x


def has_time(bound: Bound, seen: Seen) -> bool:
    """Return whether what was seen has an axis called time."""
    rank = len(getattr(seen.tensor, "shape", ()))
    axes = activation_axes(bound.layer, rank)
    return "time" in axes.split() if axes else rank == 3


def activation_value(bound: Bound, seen: Seen) -> Any:
    """Return the penalty of one recorded tensor, over the positions that its mask calls valid."""
    x = one_tensor(bound, seen)
    axes = activation_axes(bound.layer, len(x.shape))
    mask = _backend.as_mask(seen.mask)
    if mask is not None and len(mask.shape) > len(x.shape):
        raise UnsupportedError(
            f"{bound.site.key}: a mask of shape {tuple(mask.shape)} has no meaning for a tensor of shape "
            f"{tuple(x.shape)}; name a placement of the layer before."
        )
    return _value(bound, x, axes=axes, mask=mask)


def weight_value(bound: Bound) -> tuple[Any, Any]:
    """Return the weight of the site, in the dtype it is stored in, and its penalty."""
    weight = bound.weight
    with _backend.stored_precision():
        tensor = weight.read()
    return tensor, _value(bound, tensor, axes=weight.axes)


def _value(bound: Bound, x: Any, *, axes: Any, mask: Any = None) -> Any:
    rule = bound.site.rule
    try:
        return _backend.value(rule.penalty, x, axes=axes, mean_over=rule.mean_over, mask=mask, numerics=rule.numerics)
    except SpecError as error:
        raise SpecError(f"{bound.site.key}: {error}") from None
