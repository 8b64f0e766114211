"""`extract`: the Spec that a Keras model already carries."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from arspec import Rule, Spec, SpecError, UnsupportedError, dialects
from arspec._spec import at
from arspec_keras._attachment import SLOT
from arspec_keras._layers import Found, find_layers
from arspec_keras._native import ActivityRegularization, Regularizer
from arspec_keras._weights import Weight, weights_of


def extract(model: keras.Model, optimizer: Any = None) -> Spec:
    """Return the Spec of what regularizes a model: attached rules, and Keras' own regularizers.

    What counts is what is in effect: the regularizer of each variable, not the argument that
    the layer was made with, in the meaning of the Keras that runs.

    Parameters
    ----------
    model : any built `keras.Model`, attached or not.
    optimizer : a Keras optimizer, to be asked for its decay too.

    Returns
    -------
    The attached rules; then one rule per weight with a regularizer and per layer with an
    activity regularizer, in the order of the model. A weight that is frozen now gives a rule
    with `trainable_only`, since Keras drops its penalty. A tied weight gives one rule.

    Raises
    ------
    UnsupportedError: a regularizer without a placement or that arspec does not know, an
        activity that Keras penalizes several times (a cell, a layer that returns its states),
        or an optimizer that decays: every decay of Keras is decoupled, and so no penalty.
    SpecError: model is none, or is not built.

    Warns
    -----
    arspec.dialects.DialectWarning: a layer whose argument says otherwise than its variable
        (Keras ignores a regularizer that is set on a built layer), an activity regularizer
        inside `TimeDistributed`, which Keras ignores, and the decay of a compiled optimizer.

    Notes
    -----
    Keras penalizes padded positions; an attached rule does not. What a layer adds by
    `add_loss` is code, and not in the Spec.

    Example
    -------
    >>> import arspec_keras, keras
    >>> layer = keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.5), name="hidden")
    >>> rule, = arspec_keras.extract(keras.Sequential([keras.Input((2,)), layer])).rules
    >>> rule.penalty, rule.layer, rule.placement
    (L2(coefficient=0.5), 'hidden', 'kernel')
    """
    if not isinstance(model, keras.Model):
        raise SpecError(f"model is a {type(model).__name__}; expected a keras.Model.")
    if not model.built:
        raise SpecError(f"model {model.name!r} is not built, so it has no weights yet. Call it on some data first.")
    _decay(model, optimizer)
    attached = vars(model).get(SLOT)
    rules = [] if attached is None else list(attached.spec.rules)
    found = find_layers(model)
    taken: set[int] = set()
    for entry in found:
        rules += _of_weights(entry, taken)
        rules += _of_activity(entry, {other.described.path: other.layer for other in found})
    unplaced = [v.path for v in model.variables if v.regularizer is not None and id(v) not in taken]
    if unplaced:
        raise UnsupportedError(f"{', '.join(unplaced)}: a regularizer of a weight that is no placement of a layer.")
    return Spec(rules)


def _decay(model: keras.Model, optimizer: Any) -> None:
    decay = getattr(optimizer, "weight_decay", None)
    if decay:
        raise UnsupportedError(
            f"{type(optimizer).__name__}: weight_decay={decay!r} is decoupled, as in every optimizer of Keras; no "
            "penalty has this effect. Leave the optimizer out, or write the rule L2 that was meant."
        )
    compiled = getattr(getattr(model, "optimizer", None), "weight_decay", None)
    if optimizer is None and compiled:
        _warn(f"the optimizer has weight_decay={compiled!r}, decoupled in Keras: no penalty, and not in the rules.")


def _of_weights(entry: Found, taken: set[int]) -> Iterator[Rule]:
    weights, _ = weights_of(entry.layer)
    for placement, weight in weights.items():
        held = weight.held
        if not isinstance(held, keras.Variable) or id(held) in taken:
            continue
        taken.add(id(held))
        where = f"{entry.described.path}.{placement}"
        _report_conflict(where, weight, held.regularizer)
        if held.regularizer is not None:
            with _at(where):
                yield _rule(held.regularizer, entry.described.path, placement, trainable_only=not held.trainable)


def _report_conflict(where: str, weight: Weight, effective: Any) -> None:
    """Warn where the argument of the layer, which `get_config` shows, is not what the variable has."""
    parts = ("recurrent_kernel", "depthwise_kernel", "pointwise_kernel")
    name = weight.attribute.removesuffix("_kernel") if weight.attribute in parts else weight.attribute
    argument = f"{name}_regularizer"
    claimed = getattr(weight.owner, argument, effective)
    if claimed is not effective and _config(claimed) != _config(effective):
        _warn(
            f"{where}: {argument} says {_config(claimed)}, but the variable has {_config(effective)}, which is what "
            "Keras trains with. A regularizer that is set on a built layer has no effect."
        )


def _config(regularizer: Any) -> Any:
    if regularizer is None:
        return None
    config = regularizer.get_config() if callable(getattr(regularizer, "get_config", None)) else ""
    return f"{type(regularizer).__name__}({config})"


def _of_activity(entry: Found, layers: dict[str, keras.layers.Layer]) -> Iterator[Rule]:
    layer, path = entry.layer, entry.described.path
    if isinstance(layer, ActivityRegularization):
        held = layer.rule
        yield Rule(held.penalty, layer=path, placement="output", mean_over=held.mean_over, numerics=held.numerics)
    if layer.activity_regularizer is None:
        return
    around = layers.get(path.rpartition("/")[0])
    where = f"{path}.activity_regularizer"
    if isinstance(around, keras.layers.TimeDistributed):
        _warn(f"{where} has no effect; Keras loses it inside TimeDistributed.")
        return
    if isinstance(around, keras.layers.RNN | keras.layers.StackedRNNCells):
        raise UnsupportedError(f"{where}: a cell counts its activity once per step and output; put it on the layer.")
    if getattr(layer, "return_state", False):
        raise UnsupportedError(f"{where}: the layer returns its state, and Keras penalizes each thing it returns.")
    with _at(where):
        yield _rule(layer.activity_regularizer, path, "output")


def _rule(regularizer: Any, path: str, placement: str, *, trainable_only: bool = False) -> Rule:
    """Return what a regularizer means in a slot of the Keras that runs."""
    if isinstance(regularizer, Regularizer):
        held = regularizer.rule
        options = {"mean_over": regularizer.given, "numerics": held.numerics}
        return Rule(held.penalty, layer=path, placement=placement, trainable_only=trainable_only, **options)
    dialect = dialects.keras(version=keras.__version__)
    if placement == "output":
        return dialect.activity(regularizer, layer=path)
    penalty = dialect.kernel(regularizer, layer=path).penalty
    return Rule(penalty, layer=path, placement=placement, mean_over=(), trainable_only=trainable_only)


@contextmanager
def _at(where: str) -> Iterator[None]:
    try:
        with at(where):
            yield
    except UnsupportedError as error:
        raise UnsupportedError(f"{where}: {error}") from None


def _warn(text: str) -> None:
    warnings.warn(text, dialects.DialectWarning, stacklevel=4)
