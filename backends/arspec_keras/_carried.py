"""What the class of a model gains while a Spec is attached: the Spec travels with its config.

Keras saves, clones and copies a model by its class and its `get_config()`. `attach` makes
the model an instance of a subclass of its own class whose config holds the model's own and
the Spec's document; `detach` gives the model its class back. In a file the class goes by
the name "arspec>Regularized", which Keras knows once `arspec_keras` is imported; nothing in
the file is executed.
"""

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from arspec import Spec, SpecError, UnsupportedError
from arspec_keras._attachment import attachment_of

_PACKAGE, _CLASS = "arspec", "Regularized"


@keras.saving.register_keras_serializable(_PACKAGE, _CLASS)
class Regularized:
    """A model with a Spec attached, as Keras saves, loads, copies and measures it."""

    def get_config(self) -> dict[str, Any]:
        """Return the model as Keras would save it without a Spec, and the Spec's document."""
        spec, mine = attachment_of(self).spec, type(self)  # pyright: ignore[reportArgumentType]
        give_class(self, original_class(self))
        try:
            model: Any = keras.saving.serialize_keras_object(self)
        finally:
            give_class(self, mine)
        model.pop("compile_config", None)  # Keras writes it once more, beside this config
        return {"model": model, "spec": spec.to_document()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> keras.Model:
        """Build the model and attach the Spec; errors as `attach` and `Spec.from_document`."""
        from arspec_keras._attach import attach  # which needs this module

        if not {"model", "spec"} <= config.keys():
            raise SpecError(f"this is no regularized model: its config has the keys {', '.join(config) or 'none'}.")
        known = {base.__name__: base for base in cls.__bases__[1:]}
        model = keras.saving.deserialize_keras_object(config["model"], {**known, **(custom_objects or {})})
        return attach(model, Spec.from_document(config["spec"]))

    def __reduce__(self) -> Any:
        """Pickle and copy as Keras does: by saving and loading."""
        _, arguments = super().__reduce__()  # pyright: ignore[reportAssignmentType]
        return keras.Model._unpickle_model, arguments

    def __repr__(self) -> str:
        return super().__repr__().replace(type(self).__name__, original_class(self).__name__, 1)

    @property
    def layers(self) -> list[keras.Layer]:
        """The layers; but not for `clone_model`, which makes a plain Sequential of them."""
        if sys._getframe(1).f_code.co_name == "_clone_sequential_model":
            raise UnsupportedError(
                "clone_model would lose the penalties of a Sequential model; write "
                "type(model).from_config(model.get_config()), or copy.deepcopy(model), which keeps the weights too."
            )
        return super().layers  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics of the model, and those of a `PenaltyLogger` while it runs."""
        meters = attachment_of(self).meters  # pyright: ignore[reportArgumentType]
        own = super().metrics  # pyright: ignore[reportAttributeAccessIssue]
        return own if meters is None else [*own, *meters.metrics]

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Return the loss of the model, after a `PenaltyLogger` has taken it apart."""
        loss = super().compute_loss(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        x = args[0] if args else kwargs.get("x")
        attachment_of(self).measure(loss, x)  # pyright: ignore[reportArgumentType]
        return loss


def regularized_class(original: type, spec: Spec) -> type:
    """Return the class of a model of class `original` while `spec` is attached to it."""

    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        from arspec_keras._attach import attach

        # `clone_model` builds a functional model by its class. What it gets is not an instance
        # of `cls`, so that Python does not run __init__ once more.
        return attach(original(*args, **kwargs), spec)

    body = {"__new__": new, "__module__": original.__module__, "__doc__": original.__doc__}
    return types.new_class(f"{_PACKAGE}>{_CLASS}", (Regularized, original), exec_body=lambda space: space.update(body))


def original_class(model: Any) -> type:
    """Return the class that a regularized model had before."""
    return type(model).__bases__[1]


def give_class(model: Any, cls: type) -> None:
    """Make `model` an instance of `cls`; Keras' own `__setattr__` would track it as a layer."""
    object.__setattr__(model, "__class__", cls)


@contextmanager
def as_it_was(model: Any) -> Iterator[None]:
    """Let a model be of its own class, with the configuration and the layers of that, attached or not."""
    given = type(model)
    if isinstance(model, Regularized):
        give_class(model, original_class(model))
    try:
        yield
    finally:
        give_class(model, given)
