"""`attach`: the penalties of a Spec as losses of a Keras model."""

from typing import Any

import keras
from arspec import Sites, Spec, SpecError, UnsupportedError
from arspec_keras import _backend
from arspec_keras._attachment import SLOT, Attachment, attachment_of, total_of
from arspec_keras._carried import give_class, original_class, regularized_class


def attach(model: keras.Model, spec: Spec) -> keras.Model:
    """Regularize a Keras model: its `losses` carry the penalties of `spec` from now on.

    `compile`, `fit`, `evaluate` and `train_on_batch` then work as always, on the
    TensorFlow, JAX and PyTorch backends, eagerly and with `jit_compile=True`. The model may be
    Sequential, functional or subclassed, built or not, compiled or not.

    Parameters
    ----------
    model : any `keras.Model`. Its layers, weights and configuration stay as they are.
    spec : the rules. A path joins the names of layers with "/", as in "encoder/hidden".

    Returns
    -------
    The same model.

    Raises
    ------
    SpecError: a rule matches no layer or no placement (for a model that is not built yet,
        in its first call), a rule never fires in the first forward pass, or the model is
        regularized already.
    UnsupportedError: a placement that this layer cannot serve, with what to do instead.

    Notes
    -----
    `pre_activation` is what the layer hands to its `activation`; for a linear layer it is
    the output. A separate `Activation` or `ReLU` layer has a path of its own. An activation
    counts once per call of its layer, a weight once, whether it is trainable or not: the
    penalty of a frozen weight is a constant, unless the rule says `trainable_only`. Weights
    are read in the dtype they are stored in, also under a mixed-precision policy. The
    penalties are part of the loss in `evaluate` too, unless the rule says `when="train"`.

    Masks are those of Keras (`Masking`, `Embedding(..., mask_zero=True)`, a `mask` argument):
    padded positions do not count, and means divide by the number of valid ones.

    `LSTM`, `GRU` and `SimpleRNN` have hidden_state and, each, its gates, whatever the layer
    returns. The directions of a `Bidirectional` called "encoder" are "encoder/forward" and
    "encoder/backward"; their sequences stand in the order of time.

    The Spec is part of the model's configuration: `save`, `keras.saving.load_model` (once
    arspec_keras is imported), `to_json`, `from_config`, `copy.deepcopy` and pickle keep it.
    `clone_model` does for functional and subclassed models, and refuses Sequential ones.
    While a Spec is attached the model is an instance of a subclass of its own class.

    Example
    -------
    >>> import arspec as ar, arspec_keras, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="hidden")])
    >>> spec = ar.Spec([ar.Rule(ar.L2(0.5), layer="hidden", placement="bias")])
    >>> model = arspec_keras.attach(model, spec)
    >>> _ = model(np.ones((4, 2)))
    >>> [float(loss) for loss in model.losses]
    [0.0]
    """
    if not isinstance(model, keras.Model):
        raise SpecError(f"model is a {type(model).__name__}; expected a keras.Model.")
    if not isinstance(spec, Spec):
        raise SpecError(f"spec={spec!r}; expected a Spec, such as Spec([Rule(...)]) or load('spec.json').")
    scheduled = [rule.key for rule in spec.rules if rule.schedule is not None]
    if scheduled:
        raise UnsupportedError(
            f"the rule {scheduled[0]} has a schedule; the step of training is not known inside a Keras model. "
            "Write the loop yourself and multiply arspec_keras.losses(model) by schedule(step), or leave it out."
        )
    if SLOT in vars(model):
        raise SpecError(f"model {model.name!r} is regularized already; call arspec_keras.detach(model) first.")
    vars(model)[SLOT] = Attachment(model, spec)
    give_class(model, regularized_class(type(model), spec))
    _backend.retrace(model)
    return model


def detach(model: keras.Model) -> keras.Model:
    """Undo `attach` and return the model.

    Raises
    ------
    SpecError: nothing is attached.
    """
    attachment_of(model).remove()
    del vars(model)[SLOT]
    give_class(model, original_class(model))
    _backend.retrace(model)
    return model


def losses(model: keras.Model) -> dict[str, Any]:
    """Return the penalties of the last forward pass by key, such as "hidden/output/l1".

    Each is a 0-d tensor of the backend that can be differentiated as in any eager code.
    Inside compiled code (`fit` on TensorFlow and JAX) use `model.losses`.

    Raises
    ------
    SpecError: nothing is attached, or the model has not run eagerly since.
    """
    attachment = attachment_of(model)
    if attachment.spec.rules and not attachment.results:
        raise SpecError("there are no losses yet: no forward pass outside of compiled code. Call model(x) first.")
    return {
        bound.site.key: attachment.results[bound.site.key][1]
        for bound in attachment.bound
        if bound.site.key in attachment.results
    }


def total(model: keras.Model) -> Any:
    """Return the sum of `losses(model)`, 0.0 for an empty Spec; errors as there."""
    return total_of(list(losses(model).values()))


def sites(model: keras.Model) -> Sites:
    """Return the table of sites: rule, layer, tensor, and shape and value of the last eager pass.

    Raises
    ------
    SpecError: nothing is attached, or the model is not built, so that no layer is matched yet.
    """
    return attachment_of(model).sites()
