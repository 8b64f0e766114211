"""An attachment: a Spec bound to a model. It watches the calls and adds the losses."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
from arspec import Rule, Site, Sites, Spec, SpecError, UnsupportedError
from arspec._sites import match_sites, unfired
from arspec_keras import _backend
from arspec_keras._bound import Bound, activation_value, has_time, recorded, weight_value, weights_once
from arspec_keras._layers import find_layers
from arspec_keras._taps import Recorder, Records, Seen, Wrapped
from arspec_keras._watch import Watch, wanted_by

SLOT = "_arspec_attachment"
OPTIONS = ("when", "trainable_only")


class Attachment:
    """A Spec bound to a model: it watches the calls and adds the losses."""

    def __init__(self, model: keras.Model, spec: Spec) -> None:
        self.model, self.spec = model, spec
        self.recorder = Recorder()
        self.watch = Watch(self.recorder)
        self.bound: list[Bound] = []
        self.signature: tuple[int, ...] | None = None
        self.fired: set[str] = set()
        self.results: dict[str, tuple[tuple[int, ...], Any]] = {}
        self.eager_pass: list[Any] = []
        self.added: list[tuple[Rule, Any]] = []
        self.masking: str | None = None
        self.meters: Any = None
        if self._is_built():
            self._bind()
        else:
            wanted = frozenset(rule.placement for rule in spec.rules)
            self.watch.set({id(layer): (layer, wanted) for layer in self._layers()})
        self.outer = Wrapped(model, self._watched)

    def _layers(self) -> list[keras.Layer]:
        return self.model._flatten_layers(include_self=False)

    def _is_built(self) -> bool:
        return self.model.built and all(layer.built for layer in self._layers())

    def _bind(self) -> None:
        """Match the rules with the layers there are now, and watch those that are met."""
        found = find_layers(self.model)
        layers = {entry.described.path: entry.layer for entry in found}
        matched = match_sites(self.spec, [entry.described for entry in found], serves=OPTIONS)
        self.masking = next((entry.described.path for entry in found if _makes_masks(entry.layer)), None)
        self.bound = weights_once([Bound(site, layers[site.layer]) for site in matched])
        self.watch.set(wanted_by(self.bound, self._layers()))
        self.signature = tuple(map(id, self._layers()))

    def is_bound(self) -> bool:
        """Return whether the rules are matched with the layers there are now."""
        return self.signature == tuple(map(id, self._layers()))

    def _watched(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        takes_training = "training" in inspect.signature(inner).parameters
        if not takes_training and any(rule.when == "train" for rule in self.spec.rules):
            raise UnsupportedError(
                f"a rule says when='train', but {type(self.model).__name__}.call has no argument `training`, so it is "
                "not told whether it trains; give it one: def call(self, x, training=None)."
            )

        def call(*args: Any, **kwargs: Any) -> Any:
            if _backend.losses_are_dropped():
                return inner(*args, **kwargs)
            _backend.forget_stale_losses(self.model)
            if not self.is_bound() and self._is_built():
                self._bind()
            with self.recorder.recording() as records:
                outputs = inner(*args, **kwargs)
            if not self.is_bound():
                self._bind()
            self._add_losses(records, bool(kwargs.get("training")))
            return outputs

        return call

    @_backend.uncompiled
    def _add_losses(self, records: Records, training: bool) -> None:
        tensors = [(bound, recorded(bound, records)) for bound in self.bound if bound.is_activation]
        missing = [bound.site for bound, calls in tensors if not calls and bound.site.key not in self.fired]
        if missing:
            raise unfired(missing)
        self._warn_of_lost_masks(tensors)
        found = [
            (bound, calls[-1].tensor, total_of([activation_value(bound, seen) for seen in calls]))
            for bound, calls in tensors
            if calls
        ]
        self.fired.update(bound.site.key for bound, calls in tensors if calls)
        weights = [(bound, *weight_value(bound)) for bound in self.bound if not bound.is_activation]
        this_pass = _backend.losses_of_this_pass(self.model, self.eager_pass)
        self.added = []
        # An outer model may call this one several times: an activation counts each time, a weight once.
        for bound, x, loss in found if this_pass else found + weights:
            counted = loss if bound.counts(training) else keras.ops.zeros_like(loss)
            self._add(bound.site, x, counted, this_pass)

    def _warn_of_lost_masks(self, tensors: list[tuple[Bound, list[Seen]]]) -> None:
        """Warn, the first time, of sequences without a mask in a model that makes masks."""
        for bound, calls in tensors:
            known = self.masking is None or bound.site.key in self.fired
            if not known and any(seen.mask is None and has_time(bound, seen) for seen in calls):
                warnings.warn(
                    f"{bound.site.key} counts every time step: the mask of {self.masking!r} does not reach it. Keras "
                    "drops masks in attention, also from what goes around it, in arithmetic such as x + y, and in "
                    "layers that do not support them.",
                    stacklevel=2,
                )

    def _add(self, site: Site, x: Any, loss: Any, this_pass: list[Any]) -> None:
        summable = _backend.summable(loss)
        # Not `model.add_loss`: a Functional model refuses it, for fear of symbolic tensors.
        keras.Layer.add_loss(self.model, summable)
        this_pass.append(summable)
        self.added.append((site.rule, summable))
        if _backend.is_concrete(loss):
            self.results[site.key] = tuple(x.shape), loss

    def measure(self, loss: Any, x: Any) -> None:
        """Hand the loss of a batch and the penalties in it to the meters, if somebody logs them."""
        if self.meters is not None and self.added:
            first = next(tensor for tensor in keras.tree.flatten(x) if tensor is not None)
            self.meters.update(loss, self.added, keras.ops.shape(first)[0])
        self.added = []  # tensors of a trace, which should end with it

    def sites(self) -> Sites:
        """Return the table of sites with what the last eager pass saw."""
        if not self.is_bound():
            self._bind()
        shapes = {key: shape for key, (shape, _) in self.results.items()}
        values = {key: float(keras.ops.convert_to_numpy(loss)) for key, (_, loss) in self.results.items()}
        return Sites(bound.site for bound in self.bound).with_results(shapes, values)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Let the model run without a trace in `losses` and `sites`."""
        kept = self.fired.copy(), self.results.copy()
        try:
            yield
        finally:
            self.fired, self.results = kept

    def remove(self) -> None:
        """Take every wrapper out again."""
        self.outer.restore()
        self.watch.restore()


def _makes_masks(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.Masking) or bool(getattr(layer, "mask_zero", False))


def attachment_of(model: keras.Model) -> Attachment:
    """Return the attachment of a regularized model, or raise SpecError."""
    found = vars(model).get(SLOT) if isinstance(model, keras.Model) else None
    if found is None:
        raise SpecError("nothing is attached to this model; call arspec_keras.attach(model, spec) first.")
    return found


def total_of(losses: list[Any]) -> Any:
    """Return the sum of scalars, 0.0 for none."""
    return sum(losses[1:], start=losses[0]) if losses else 0.0
