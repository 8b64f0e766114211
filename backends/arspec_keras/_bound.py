"""A site bound to its Keras layer: which tensor that is, and its penalty."""

from dataclasses import dataclass
from typing import Any

import keras
from arspec import Site, SpecError, UnsupportedError
from arspec._placements import ACTIVATIONS
from arspec_keras import _backend
from arspec_keras._layers import activation_axes, kernel_axes
from arspec_keras._taps import Records


@dataclass(frozen=True, slots=True)
class Bound:
    """A site and the Keras layer it stands for."""

    site: Site
    layer: keras.Layer

    @property
    def is_activation(self) -> bool:
        return self.site.rule.placement in ACTIVATIONS


def weights_once(bound: list[Bound]) -> list[Bound]:
    """Drop the sites whose weight a site of the same rule has already (tied weights)."""
    kept, seen = [], set()
    for entry in bound:
        if not entry.is_activation:
            weight = getattr(entry.layer, entry.site.rule.placement)
            key = id(entry.site.rule), id(weight)
            if isinstance(weight, keras.Variable) and key in seen:
                continue
            seen.add(key)
        kept.append(entry)
    return kept


def recorded(bound: Bound, records: Records) -> list[Any]:
    """Return the tensors of the site, one for each call of its layer."""
    placement = bound.site.rule.placement
    if placement == "pre_activation" and not callable(getattr(bound.layer, "activation", None)):
        placement = "output"
    return records.get((id(bound.layer), placement), [])


def activation_value(bound: Bound, x: Any) -> Any:
    """Return the penalty of one recorded tensor."""
    if isinstance(x, tuple | list | dict):
        raise UnsupportedError(
            f"{bound.site.key}: layer {bound.site.layer!r} returns {len(x)} tensors; a placement names one tensor."
        )
    axes = activation_axes(bound.layer, len(x.shape))
    return _value(bound, x, axes=axes, mask=_backend.propagated_mask(x))


def weight_value(bound: Bound) -> tuple[Any, Any]:
    """Return the weight of the site, in the dtype it is stored in, and its penalty."""
    placement = bound.site.rule.placement
    with _backend.stored_precision():
        weight = keras.ops.convert_to_tensor(getattr(bound.layer, placement))
    axes = "output" if placement == "bias" else kernel_axes(bound.layer)
    return weight, _value(bound, weight, axes=axes)


def _value(bound: Bound, x: Any, *, axes: Any, mask: Any = None) -> Any:
    rule = bound.site.rule
    try:
        return _backend.value(rule.penalty, x, axes=axes, mean_over=rule.mean_over, mask=mask, numerics=rule.numerics)
    except SpecError as error:
        raise SpecError(f"{bound.site.key}: {error}") from None
