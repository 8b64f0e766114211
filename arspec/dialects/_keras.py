"""Keras: what a version's regularizers mean, from the version that wrote the model.

Weight penalties are sums in every version. Activity penalties changed four times:

========================  =================  ==============================================
version                   activity penalty   source
========================  =================  ==============================================
Keras 2.0-2.3             Σ                  `keras/engine/base_layer.py`, `Layer.__call__`
tf.keras, tf-keras        Σ / batch          `base_layer.py`, `_handle_activity_regularization`
Keras 3.0-3.13            Σ                  `keras/src/layers/layer.py`, `Layer.__call__`
Keras >= 3.14             Σ / batch          the same; keras-team/keras#22021
========================  =================  ==============================================

Keras 2.4 and later are tf.keras under another name; "2.2.4-tf" is what tf.keras called
itself. Time and space are summed in all of them, padded steps included. Keras penalizes
what a layer *returns*: in `Dense(activation="relu")` that is after the ReLU.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from arspec._errors import SpecError, UnsupportedError, shown, unknown
from arspec._rule import Rule
from arspec._spec import Spec, at
from arspec.dialects._dialect import (
    Conversion,
    Dialect,
    collect,
    may_overlap,
    named_rules,
    refuse_schedule,
    require_keys,
    same_mean,
    simple_parts,
)
from arspec.dialects._keras_models import ACTIVITY, SLOTS, Found, layers_of_model, notes_of_model, rules_of_slot
from arspec.dialects._keras_regularizers import Generation, refuse_of_activity
from arspec.penalties import Penalty

_TENTHS = {"l1": {"l1": 0.01}, "l2": {"l2": 0.01}}
_NAMED = {**_TENTHS, "L1": {"l1": 0.01}, "L2": {"l2": 0.01}}
_BOTH = {"l1_l2": {"l1": 0.01, "l2": 0.01}}
_ORTHOGONAL = {key: {"factor": 0.01} for key in ("orthogonal_regularizer", "OrthogonalRegularizer")}
_CLASSES = ("L1", "L2", "L1L2", "OrthogonalRegularizer")
_KERAS_2 = Generation("Keras 2.0-2.3", (), {**_TENTHS, **_BOTH}, ("L1L2",), frozen_counts=True)
_TF_KERAS = Generation("tf.keras", ("batch",), {**_NAMED, **_BOTH, **_ORTHOGONAL}, _CLASSES, frozen_counts=True)
_KERAS_3 = Generation(
    "Keras 3.0-3.13", (), {**_NAMED, **_ORTHOGONAL}, _CLASSES, frozen_counts=False, module="keras.regularizers"
)
_KERAS_3_14 = replace(_KERAS_3, name="Keras >= 3.14", activity_mean=("batch",))
_PLACED = {placements[0]: slot for slot, placements in SLOTS.items()}


@dataclass(frozen=True, slots=True)
class Keras(Dialect):
    """The regularizers of one version of Keras. Made by `keras(version=...)` and `tf_keras`.

    A document is `model.to_json()`, or the regularizers by layer, in Keras' own arguments:
    `{"dialect": "keras==3.15.1", "layers": {"hidden": {"kernel_regularizer": {...}}}}`.
    """

    name: str
    about: str
    generation: Generation

    def activity(self, regularizer: Any, *coefficients: float, layer: str) -> Rule:
        """Return the rule that `activity_regularizer` of a layer means.

        Parameters
        ----------
        regularizer : a string such as "l1", a config `{"class_name": ..., "config": ...}`, or
            a regularizer of Keras itself.
        coefficients : the numbers of a string: one for "l1" and "l2", two for "l1_l2". None
            at all stands for this version's defaults.
        layer : path of a layer or a glob.

        Raises
        ------
        SpecError: this version has no such string.
        UnsupportedError: a coefficient of 0, or a regularizer that is not Keras' own.

        Example
        -------
        >>> from arspec import dialects
        >>> dialects.keras(version="3.15.1").activity("l1", 1e-4, layer="hidden").mean_over
        ('batch',)
        >>> dialects.keras(version="2.3.1").activity("l1", 1e-4, layer="hidden").mean_over
        ()
        """
        return self.rule(ACTIVITY, regularizer, *coefficients, layer=layer)

    def kernel(self, regularizer: Any, *coefficients: float, layer: str) -> Rule:
        """Return the rule that `kernel_regularizer` of a layer means; see `activity`."""
        return self.rule("kernel_regularizer", regularizer, *coefficients, layer=layer)

    def bias(self, regularizer: Any, *coefficients: float, layer: str) -> Rule:
        """Return the rule that `bias_regularizer` of a layer means; see `activity`."""
        return self.rule("bias_regularizer", regularizer, *coefficients, layer=layer)

    def rule(self, slot: str, regularizer: Any, *coefficients: float, layer: str) -> Rule:
        """Return the rule that any argument of a layer means, such as "recurrent_regularizer"; see `activity`."""
        if slot not in SLOTS:
            raise unknown("regularizer argument of a layer", slot, SLOTS)
        penalty = self.generation.penalty(regularizer, *coefficients)
        mean = ()
        if slot == ACTIVITY:
            refuse_of_activity([penalty])
            mean = self.generation.activity_mean
        return Rule(penalty, layer=layer, placement=SLOTS[slot][0], mean_over=mean)

    def reading(self, document: Any) -> Conversion:
        found = self._found(document)
        notes = notes_of_model(document)

        def convert(item: tuple[Found, str, Any]) -> list[Rule]:
            layer, slot, regularizer = item
            with at(f"{layer.path}.{slot}"):
                rules, note = rules_of_slot(layer, slot, regularizer, self.generation)
            notes.extend([] if note is None else [note])
            return rules

        items = [(f"{layer.path}.{slot}", (layer, slot, value)) for layer in found for slot, value in layer.slots()]
        rules, refused = collect(items, convert)
        return Conversion(Spec(rules), refused, tuple(notes))

    def writing(self, rules: Rule | Iterable[Rule]) -> Conversion:
        named = named_rules(rules)
        placed: dict[tuple[str, str], list[tuple[str, Rule]]] = {}
        for what, rule in named:
            placed.setdefault((rule.layer, rule.placement), []).append((what, rule))

        def convert(group: list[tuple[str, Rule]]) -> list[tuple[str, str, dict[str, Any]]]:
            first = group[0][1]
            if any(may_overlap(first, other) for _, other in named):
                raise UnsupportedError("a rule for other layers may meet the same one, which has one regularizer only.")
            parts = [part for _, rule in group for part in self._parts(rule)]
            return [(first.layer, _PLACED[first.placement], self.generation.config(parts))]

        items = [(", ".join(what for what, _ in group), group) for group in placed.values()]
        entries, refused = collect(items, convert)
        layers: dict[str, dict[str, Any]] = {}
        for layer, slot, config in entries:
            layers.setdefault(layer, {})[slot] = config
        return Conversion({"dialect": self.name, "layers": layers}, refused)

    def _parts(self, rule: Rule) -> list[Penalty]:
        """Return what a rule adds to a regularizer, or raise where the slot means something else."""
        refuse_schedule(rule)
        if rule.placement not in _PLACED:
            raise UnsupportedError(_unplaced(rule.placement))
        mean = self.generation.activity_mean if rule.placement == "output" else ()
        if not same_mean(rule.mean_over, mean):
            does = f"averages over {', '.join(mean)}" if mean else "takes the sum"
            raise UnsupportedError(
                f"{self.generation.name} {does} in {_PLACED[rule.placement]}; "
                f"this rule has mean_over={rule.mean_over_document()!r}."
            )
        parts = simple_parts(rule.penalty)
        if rule.placement == "output":
            refuse_of_activity(parts)
        return parts

    def _found(self, document: Any) -> list[Found]:
        """Return the layers that a document describes, in either of its two forms."""
        if isinstance(document, Mapping) and isinstance(document.get("layers"), Mapping) and "config" not in document:
            require_keys(document, "dialect", "layers")
            said = document.get("dialect", self.name)
            if _generation(said) != self.generation:
                raise SpecError(f"the document says that its dialect is {said!r}, which differs from {self.name!r}.")
            return [Found(path, "", _arguments(path, given)) for path, given in document["layers"].items()]
        if not isinstance(document, Mapping) or "config" not in document:
            raise SpecError(f'got {shown(document)}; expected model.to_json(), or {{"layers": {{"hidden": {{...}}}}}}.')
        written = document.get("keras_version")
        if written is not None and _generation(written) != self.generation:
            raise SpecError(f"the model was written by Keras {written}, which differs from {self.name!r}; say that.")
        return list(layers_of_model(document))


def keras(*, version: str) -> Keras:
    """Return the dialect of a version of Keras, such as "3.15.1", "2.3.1" or "2.2.4-tf".

    Raises
    ------
    SpecError: no version, or one before 2.0.

    Example
    -------
    >>> from arspec import dialects
    >>> dialects.keras(version="3.15.1").kernel("l2", layer="hidden").penalty
    L2(coefficient=0.01)
    """
    generation = _of_version(version)
    return Keras(f"keras=={version}", _about(generation), generation)


def _of_version(version: Any) -> Generation:
    parts = re.match(r"(\d+)\.(\d+)", version) if isinstance(version, str) else None
    if parts is None or int(parts[1]) not in (2, 3):
        raise SpecError(f"version={version!r}; expected one of Keras 2 or 3, such as '3.15.1'.")
    release = (int(parts[1]), int(parts[2]))
    if release >= (3, 0):
        return _KERAS_3_14 if release >= (3, 14) else _KERAS_3
    return _TF_KERAS if release >= (2, 4) or version.endswith("-tf") else _KERAS_2


def _generation(name: Any) -> Generation:
    """Return the generation that a document names, as "tf-keras", "keras==3.15.1" or "3.15.1"."""
    return _TF_KERAS if name == "tf-keras" else _of_version(str(name).removeprefix("keras=="))


def _about(generation: Generation) -> str:
    activity = "Σ / batch" if generation.activity_mean else "Σ"
    return f"{generation.name}: l1·Σ|x| + l2·Σx² for weights, {activity} for activities"


tf_keras = Keras("tf-keras", _about(_TF_KERAS), _TF_KERAS)


def _arguments(path: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise SpecError(
            f"layers[{path!r}]: got {shown(given)}; expected an object such as {{'kernel_regularizer': ...}}."
        )
    for key in given:
        if not str(key).endswith("_regularizer"):
            raise SpecError(f"layers[{path!r}]: unknown key {key!r}; expected regularizers: {', '.join(SLOTS)}.")
    return given


def _unplaced(placement: str) -> str:
    if placement == "pre_activation":
        return (
            "Keras penalizes what a layer returns, after its activation function. "
            "Split the layer into Dense() and Activation(), and use placement 'output' of the first."
        )
    return f"no argument of a Keras layer regularizes its {placement} alone."
