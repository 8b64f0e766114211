"""Taps: what a layer's call gives and what it hands to its activation function.

A tap stands in the instance's `call`; the class, the configuration and the weights of the
layer stay as they are. It records only while the model it was set for is running.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

Key = tuple[int, str]
Records = dict[Key, list[Any]]


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
    """A `call` of one instance replaced by another, until it is restored."""

    def __init__(self, layer: keras.Layer, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self.layer = layer
        self.original = layer.call
        self.had = vars(layer).get("call")
        self.active = True
        inner, replacement = self.original, make(self.original)

        @functools.wraps(inner)
        def call(*args: Any, **kwargs: Any) -> Any:
            return (replacement if self.active else inner)(*args, **kwargs)

        self.call = call
        vars(layer)["call"] = call

    def restore(self) -> None:
        """Take the wrapper out; below a later one it stays and does nothing."""
        self.active = False
        if vars(self.layer).get("call") is self.call:
            if self.had is None:
                del vars(self.layer)["call"]
            else:
                vars(self.layer)["call"] = self.had


def tap(layer: keras.Layer, recorder: Recorder) -> Wrapped:
    """Record the output of every call of `layer`, and the tensor before its activation."""

    def make(inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            records = recorder.records
            if records is None:
                return inner(*args, **kwargs)
            with _activation_recorded(layer, records):
                outputs = inner(*args, **kwargs)
            records.setdefault((id(layer), "output"), []).append(outputs)
            return outputs

        return call

    return Wrapped(layer, make)


@contextmanager
def _activation_recorded(layer: keras.Layer, records: Records) -> Iterator[None]:
    """Let `layer.activation` record its input while the layer runs.

    It is put beside the attribute for the time of one call, so that `get_config` never
    sees it.
    """
    activation = getattr(layer, "activation", None)
    if not callable(activation):
        yield
        return

    def recorded(x: Any, *args: Any, **kwargs: Any) -> Any:
        records.setdefault((id(layer), "pre_activation"), []).append(x)
        return activation(x, *args, **kwargs)

    attributes = vars(layer)
    stood = "activation" in attributes
    attributes["activation"] = recorded
    try:
        yield
    finally:
        if stood:
            attributes["activation"] = activation
        else:
            del attributes["activation"]
