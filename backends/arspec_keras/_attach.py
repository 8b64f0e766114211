"""`attach`: the penalties of a Spec as losses of a Keras model."""

from collections.abc import Callable
from typing import Any

import keras
from arspec import Site, Sites, Spec, SpecError, UnsupportedError
from arspec._sites import match_sites, unfired
from arspec_keras import _backend
from arspec_keras._bound import Bound, activation_value, recorded, weight_value, weights_once
from arspec_keras._layers import find_layers
from arspec_keras._taps import Recorder, Records, Wrapped, tap

_SLOT = "_arspec_attachment"


class _Attachment:
    """A Spec bound to a model: it watches the calls and adds the losses."""

    def __init__(self, model: keras.Model, spec: Spec) -> None:
        self.model, self.spec = model, spec
        self.recorder = Recorder()
        self.taps: dict[int, Wrapped] = {}
        self.bound: list[Bound] = []
        self.signature: tuple[int, ...] | None = None
        self.fired: set[str] = set()
        self.results: dict[str, tuple[tuple[int, ...], Any]] = {}
        self.eager_pass: list[Any] = []
        if self._is_built():
            self._bind()
        else:
            self._tap({id(layer): layer for layer in self._layers()})
        self.outer = Wrapped(model, self._watched)
        self.config = _refuse_config(model)

    def _layers(self) -> list[keras.Layer]:
        return self.model._flatten_layers(include_self=False)

    def _is_built(self) -> bool:
        return self.model.built and all(layer.built for layer in self._layers())

    def _bind(self) -> None:
        """Match the rules with the layers there are now, and watch those that are met."""
        found = find_layers(self.model)
        layers = {entry.described.path: entry.layer for entry in found}
        matched = match_sites(self.spec, [entry.described for entry in found])
        self.bound = weights_once([Bound(site, layers[site.layer]) for site in matched])
        self._tap({id(b.layer): b.layer for b in self.bound if b.is_activation})
        self.signature = tuple(map(id, self._layers()))

    def _tap(self, wanted: dict[int, keras.Layer]) -> None:
        for key in self.taps.keys() - wanted.keys():
            self.taps.pop(key).restore()
        for key in wanted.keys() - self.taps.keys():
            self.taps[key] = tap(wanted[key], self.recorder)

    def _is_bound(self) -> bool:
        return self.signature == tuple(map(id, self._layers()))

    def _watched(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if _backend.losses_are_dropped():
                return inner(*args, **kwargs)
            _backend.forget_stale_losses(self.model)
            if not self._is_bound() and self._is_built():
                self._bind()
            with self.recorder.recording() as records:
                outputs = inner(*args, **kwargs)
            if not self._is_bound():
                self._bind()
            self._add_losses(records)
            return outputs

        return call

    @_backend.uncompiled
    def _add_losses(self, records: Records) -> None:
        tensors = [(bound, recorded(bound, records)) for bound in self.bound if bound.is_activation]
        missing = [bound.site for bound, calls in tensors if not calls and bound.site.key not in self.fired]
        if missing:
            raise unfired(missing)
        self.fired.update(bound.site.key for bound, calls in tensors if calls)
        found = [
            (bound.site, calls[-1], _sum([activation_value(bound, x) for x in calls]))
            for bound, calls in tensors
            if calls
        ]
        weights = [(bound.site, *weight_value(bound)) for bound in self.bound if not bound.is_activation]
        this_pass = _backend.losses_of_this_pass(self.model, self.eager_pass)
        # An outer model may call this one several times: an activation counts each time, a weight once.
        for site, x, loss in found if this_pass else found + weights:
            self._add(site, x, loss, this_pass)

    def _add(self, site: Site, x: Any, loss: Any, this_pass: list[Any]) -> None:
        summable = _backend.summable(loss)
        # Not `model.add_loss`: a Functional model refuses it, for fear of symbolic tensors.
        keras.Layer.add_loss(self.model, summable)
        this_pass.append(summable)
        if _backend.is_concrete(loss):
            self.results[site.key] = tuple(x.shape), loss

    def remove(self) -> None:
        self.outer.restore()
        self._tap({})
        del vars(self.model)["get_config"]


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
    penalty of a frozen weight is a constant. Weights are read in the dtype they are stored
    in, also under a mixed-precision policy. A mask that Keras propagates (`Embedding(...,
    mask_zero=True)`, `Masking`) is used. The penalties are part of the loss in `evaluate`
    too. `save` is refused while a spec is attached.

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
    if _SLOT in vars(model):
        raise SpecError(f"model {model.name!r} is regularized already; call arspec_keras.detach(model) first.")
    vars(model)[_SLOT] = _Attachment(model, spec)
    _retrace(model)
    return model


def detach(model: keras.Model) -> keras.Model:
    """Undo `attach` and return the model.

    Raises
    ------
    SpecError: nothing is attached.
    """
    _attachment(model).remove()
    del vars(model)[_SLOT]
    _retrace(model)
    return model


def losses(model: keras.Model) -> dict[str, Any]:
    """Return the penalties of the last forward pass by key, such as "hidden/output/l1".

    Each is a 0-d tensor of the backend that can be differentiated as in any eager code.
    Inside compiled code (`fit` on TensorFlow and JAX) use `model.losses`.

    Raises
    ------
    SpecError: nothing is attached, or the model has not run eagerly since.
    """
    attachment = _attachment(model)
    if attachment.spec.rules and not attachment.results:
        raise SpecError("there are no losses yet: no forward pass outside of compiled code. Call model(x) first.")
    return {
        bound.site.key: attachment.results[bound.site.key][1]
        for bound in attachment.bound
        if bound.site.key in attachment.results
    }


def total(model: keras.Model) -> Any:
    """Return the sum of `losses(model)`, 0.0 for an empty Spec; errors as there."""
    return _sum(list(losses(model).values()))


def sites(model: keras.Model) -> Sites:
    """Return the table of sites: rule, layer, tensor, and shape and value of the last eager pass.

    Raises
    ------
    SpecError: nothing is attached, or the model is not built, so that no layer is matched yet.
    """
    attachment = _attachment(model)
    if not attachment._is_bound():
        attachment._bind()
    shapes = {key: shape for key, (shape, _) in attachment.results.items()}
    values = {key: float(keras.ops.convert_to_numpy(loss)) for key, (_, loss) in attachment.results.items()}
    return Sites(bound.site for bound in attachment.bound).with_results(shapes, values)


def _attachment(model: keras.Model) -> _Attachment:
    found = vars(model).get(_SLOT) if isinstance(model, keras.Model) else None
    if found is None:
        raise SpecError("nothing is attached to this model; call arspec_keras.attach(model, spec) first.")
    return found


def _retrace(model: keras.Model) -> None:
    """Drop the compiled functions, which hold the losses of the model as it was."""
    model.train_function = model.test_function = model.predict_function = None


def _refuse_config(model: keras.Model) -> None:
    """Refuse what would save the model without its penalties."""

    def get_config() -> Any:
        raise UnsupportedError(
            "a regularized Keras model cannot be saved or copied whole yet: its penalties would be lost. "
            "Save the spec beside it: spec.save('spec.json'), arspec_keras.detach(model), model.save(...); after "
            "loading, attach again. model.save_weights(...) works as always."
        )

    vars(model)["get_config"] = get_config


def _sum(losses: list[Any]) -> Any:
    return sum(losses[1:], start=losses[0]) if losses else 0.0
