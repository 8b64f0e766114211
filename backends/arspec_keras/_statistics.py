"""`statistics`: what the activations of a Keras model are like over data."""

import inspect
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np

import keras
from arspec import Rule, Spec, SpecError
from arspec._axes import resolve_axes
from arspec._placements import ACTIVATIONS
from arspec._sites import match_sites, unfired
from arspec._statistics import Accumulator, Statistics
from arspec_keras import _backend
from arspec_keras._attachment import SLOT
from arspec_keras._bound import Bound, one_tensor, recorded
from arspec_keras._layers import activation_axes, find_layers
from arspec_keras._taps import Recorder, Seen
from arspec_keras._watch import watch


def statistics(model: keras.Model, data: Any, spec: Spec | None = None) -> Statistics:
    """Run a model over data and describe the activations that a Spec names.

    Parameters
    ----------
    model : any `keras.Model`, attached or not. It runs for inference, eagerly, and is left as
        it was; one that is not built is built by the first batch.
    data : batches: a `tf.data.Dataset`, a `PyDataset`, a DataLoader, a list; or one array,
        which is one batch. Of a tuple the first entry is the input, as in `fit`.
    spec : its rules at activations say where to look, and nothing else. None: the attached
        rules.

    Returns
    -------
    A table: mean activation, fraction of exact zeros, dead units and Hoyer sparsity per
    site; `to_document()`, `plot()`. Padded positions of Keras' masks do not count.

    Raises
    ------
    SpecError: no rule is at an activation, a rule matches nothing or never fires, or there
        are no data.

    Example
    -------
    >>> import arspec, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="relu", name="hidden")])
    >>> rule = arspec.Rule(arspec.L1(1.0), layer="hidden", placement="output")
    >>> found = statistics(model, np.ones((4, 2), "float32"), arspec.Spec([rule]))
    >>> found[0].count, found[0].units
    (4, 3)
    """
    if not isinstance(model, keras.Model):
        raise SpecError(f"model is a {type(model).__name__}; expected a keras.Model.")
    attached = vars(model).get(SLOT)
    rules = _rules(spec if spec is not None else getattr(attached, "spec", None))
    seen, recorder, fired = Accumulator(), Recorder(), set()
    bound: list[Bound] = []
    options = {"training": False} if "training" in inspect.signature(model.call).parameters else {}
    with ExitStack() as stack:
        if attached is not None:
            stack.enter_context(attached.undisturbed())
        for x in _batches(data):
            if not bound:
                if not model.built:
                    model(x, **options)
                bound = _find(model, rules)
                stack.callback(watch(bound, find_layers(model), recorder).restore)
            with recorder.recording() as records:
                model(x, **options)
            for place in bound:
                for call in recorded(place, records):
                    fired.add(place.site.key)
                    _add(seen, place, call)
    if not bound:
        raise SpecError("there are no data: data gave no batch.")
    missing = [place.site for place in bound if place.site.key not in fired]
    if missing:
        raise unfired(missing)
    return seen.result()


def _rules(spec: Any) -> list[Rule]:
    if not isinstance(spec, Spec):
        raise SpecError(f"spec={spec!r}; expected a Spec, or a model with one attached.")
    rules = [rule for rule in spec.rules if rule.placement in ACTIVATIONS]
    if not rules:
        raise SpecError(
            f"no rule is at an activation; there is {', '.join(rule.key for rule in spec.rules) or 'none'}."
        )
    return rules


def _find(model: keras.Model, rules: list[Rule]) -> list[Bound]:
    """Return every place that a rule meets, once."""
    found = find_layers(model)
    layers = {entry.described.path: entry.layer for entry in found}
    sites = match_sites(Spec(rules), [entry.described for entry in found], serves=("when",))
    places = {(site.layer, site.rule.placement): Bound(site, layers[site.layer]) for site in reversed(sites)}
    return list(reversed(places.values()))


def _batches(data: Any) -> Iterator[Any]:
    if isinstance(data, np.ndarray) or keras.ops.is_tensor(data):
        yield data
        return
    if not isinstance(data, Iterable):
        raise SpecError(f"data is a {type(data).__name__}; expected batches, or one array.")
    for batch in data:
        yield keras.utils.unpack_x_y_sample_weight(batch)[0]


def _add(seen: Accumulator, place: Bound, call: Seen) -> None:
    x = keras.ops.convert_to_numpy(one_tensor(place, call))
    names = resolve_axes(x.ndim, activation_axes(place.layer, x.ndim)).names
    mask = _backend.as_mask(call.mask)
    if mask is not None:
        mask = keras.ops.convert_to_numpy(mask)
        mask = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    seen.add(place.site.layer, place.site.rule.placement, x, names, mask)
