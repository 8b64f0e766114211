"""Measuring a Keras target: the twin of a model whose weights a map names."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import keras
from arspec import SpecError
from arspec.port import Bundle, Certificate, Written
from arspec.port._files import attribute_of
from arspec.port._library import Library
from arspec.port._probe import perturbed
from arspec.port._target import require_names, target_spec
from arspec_keras.port._read import Reading
from arspec_keras.port._twin import Twin
from arspec_keras.port._write import write


def check(
    bundle: Bundle,
    written: Written,
    model: keras.Model,
    /,
    *,
    faults: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> Certificate:
    """Compare a Keras model with the evidence of a bundle, level by level.

    Parameters
    ----------
    bundle : of the source.
    written : the map of the target, from `write` or from the file beside the source code.
    model : the target with its weights loaded. It is not changed: a copy is measured.
    faults : whether faults are planted, which have to be noticed (L5); each is a target that
        arspec writes and measures again.

    Raises
    ------
    SpecError: the model has other weights than the map says.
    UnsupportedError: Keras does not run on TensorFlow, the only backend that is float64 throughout.
    """
    return _LIBRARY.certificate(bundle, written, model, faults, progress)


class KerasSubject(Twin):
    """A copy of a model in float64, at the perturbed weights of a bundle, its weights found by a map."""

    def __init__(self, bundle: Bundle, written: Written, model: keras.Model) -> None:
        self._bundle, self._written = bundle, written
        self._names = [name for name, _ in named_weights(model)]
        moved = written.weights.to_target(perturbed(bundle.weights))
        loaded = {entry.source: moved[entry.target] for entry in written.weights.entries}
        super().__init__(model, target_spec(bundle, written), loaded)

    def penalties(self, inputs: Sequence[np.ndarray], *, training: bool) -> dict[str, float]:
        """Return every penalty by its key in the source."""
        found = super().penalties(inputs, training=training)
        return {site.key: loss for site, loss in zip(self._bundle.sites, found.values(), strict=True)}

    def _read(self, model: keras.Model) -> Reading:
        # A copy has its weights in the order of the original, but calls the directions of a layer otherwise.
        variables = dict(zip(self._names, (variable for _, variable in named_weights(model)), strict=True))
        held = {entry.source: variables[entry.target] for entry in self._written.weights.entries}
        return Reading(self._bundle.graph, held)

    def _outputs_of_layers(self) -> dict[str, Any]:
        layers = {layer.name: layer for layer in self.model.layers}
        return {path: layers[place.path].output for path, place in self._written.traced.items() if place.path in layers}


def named_weights(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the weights of a model by name: "layer/kernel", the models around a layer before it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from named_weights(layer, f"{prefix}{layer.name}/")
        else:
            yield from ((prefix + variable.path, variable) for variable in layer.weights)


def build(bundle: Bundle, written: Written) -> keras.Model:
    """Return a model of the source code that was written, with the weights of the bundle."""
    return _LIBRARY.build(bundle, written)


def load_code(file: str | Path, name: str, weights: Mapping[str, np.ndarray]) -> keras.Model:
    """Run a Python file, make a model by a function in it, and give it weights by name.

    Raises
    ------
    SpecError: there is no such file or function, it gives no model, or the weights do not fit.
    """
    model = attribute_of(file, name)()
    if not isinstance(model, keras.Model):
        raise SpecError(f"{file}: {name}() gives a {type(model).__name__}; expected a keras.Model.")
    held = dict(named_weights(model))
    require_names(weights, {key: tuple(variable.shape) for key, variable in held.items()}, str(file))
    for key, variable in held.items():
        variable.assign(weights[key])
    return model


def _arrays(model: keras.Model) -> dict[str, np.ndarray]:
    return {name: keras.ops.convert_to_numpy(variable) for name, variable in named_weights(model)}


_LIBRARY = Library(
    "keras",
    ("keras", "tensorflow-cpu"),
    write,
    load_code,
    _arrays,
    KerasSubject,
    settings={"backend": keras.backend.backend()},
)
