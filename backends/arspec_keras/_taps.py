"""Taps: what a layer is given, what it gives, and what it hands to its activation function.

A tap stands in the instance's `call`; the class, the configuration and the weights of the
layer stay as they are. It records only while the model it was set for is running.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
from arspec_keras import _backend

Key = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Seen:
    """A tensor that a placement names, and the boolean mask over its leading axes, or None."""

    tensor: Any
    mask: Any = None


Records = dict[Key, list[Seen]]


class Recorder(threading.local):
    """The records of the forward pass that runs now in this thread, or None."""

    def __init__(self) -> None:
        self.records: Records | None = None

    @contextmanager
    def recording(self) -> Iterator[Records]:
        """Record into a new dict; a model that calls itself records into the inner one."""
        outer, self.records = self.records, {}
        try:
            yield self.records
        finally:
            self.records = outer


class Wrapped:
    """A method of one instance replaced by another, until it is restored."""

    def __init__(
        self, layer: Any, make: Callable[[Callable[..., Any]], Callable[..., Any]], name: str = "call"
    ) -> None:
        self.layer, self.name = layer, name
        self.had = vars(layer).get(name)
        self.active = True
        inner = getattr(layer, name)
        replacement = make(inner)

        @functools.wraps(inner)
        def call(*args: Any, **kwargs: Any) -> Any:
            return (replacement if self.active else inner)(*args, **kwargs)

        self.call = call
        vars(layer)[name] = call

    def restore(self) -> None:
        """Take the wrapper out; below a later one it stays and does nothing."""
        self.active = False
        if vars(self.layer).get(self.name) is self.call:
            if self.had is None:
                del vars(self.layer)[self.name]
            else:
                vars(self.layer)[self.name] = self.had


def tap(layer: keras.Layer, recorder: Recorder) -> Wrapped:
    """Record input and output of every call of `layer`, and the tensor before its activation."""

    def make(inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            records = recorder.records
            if records is None:
                return inner(*args, **kwargs)
            given = args[0] if args else next(iter(kwargs.values()), None)
            mask = kwargs.get("mask")
            if mask is None:
                mask = keras.tree.map_structure(_backend.propagated_mask, given)
            _record(records, layer, "input", Seen(given, mask))
            before: list[Any] = []
            with activation_seen(layer, "activation", before, inputs=True):
                outputs = inner(*args, **kwargs)
            mask = _mask_of_output(layer, given, mask, outputs)
            for x in before:
                _record(records, layer, "pre_activation", Seen(x, mask))
            _record(records, layer, "output", Seen(outputs, mask))
            return outputs

        return call

    return Wrapped(layer, make)


def _mask_of_output(layer: keras.Layer, given: Any, mask: Any, outputs: Any) -> Any:
    """Return the mask that Keras is going to attach to the output.

    It is asked for right away: the next layer may take it off again, as attention does.
    """
    attached = _backend.propagated_mask(outputs)
    if attached is not None or not layer.supports_masking:
        return attached
    return layer.compute_mask(given, mask)


def _record(records: Records, layer: keras.Layer, placement: str, seen: Seen) -> None:
    records.setdefault((id(layer), placement), []).append(seen)


@contextmanager
def activation_seen(layer: Any, name: str, seen: list[Any], *, inputs: bool) -> Iterator[None]:
    """Let the function `layer.<name>` append what it is given, or what it gives, to `seen`.

    It is put beside the attribute for the time of one call, so that `get_config` never
    sees it.
    """
    activation = getattr(layer, name, None)
    if not callable(activation) or isinstance(getattr(type(layer), name, None), property):
        yield
        return

    def recorded(x: Any, *args: Any, **kwargs: Any) -> Any:
        y = activation(x, *args, **kwargs)
        seen.append(x if inputs else y)
        return y

    attributes = vars(layer)
    stood = name in attributes
    attributes[name] = recorded
    try:
        yield
    finally:
        if stood:
            attributes[name] = activation
        else:
            del attributes[name]
