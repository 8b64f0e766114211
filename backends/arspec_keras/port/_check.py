"""Measuring a Keras target: the twin of a model whose weights a map names."""

import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import keras
from arspec import SpecError
from arspec.port import Bundle, Certificate, Written, certify
from arspec.port._environment import environment
from arspec.port._probe import perturbed
from arspec.port._target import require_tensors, target_spec
from arspec_keras.port._read import Reading
from arspec_keras.port._twin import Twin


def check(
    bundle: Bundle, written: Written, model: keras.Model, /, *, progress: Callable[[str], None] = lambda _: None
) -> Certificate:
    """Compare a Keras model with the evidence of a bundle, level by level.

    Parameters
    ----------
    bundle : of the source.
    written : the map of the target, from `write` or from the file beside the source code.
    model : the target with its weights loaded. It is not changed: a copy is measured.

    Raises
    ------
    SpecError: the model has other weights than the map says.
    UnsupportedError: Keras does not run on TensorFlow, the only backend that is float64 throughout.
    """
    held = {name: np.asarray(keras.ops.convert_to_numpy(variable)) for name, variable in named_weights(model)}
    require_tensors(held, written)
    subject = KerasSubject(bundle, written, model)
    where = environment("keras", "keras", "tensorflow-cpu", backend=keras.backend.backend(), dtype="float64")
    return certify(bundle, subject, written.weights, held, where, progress=progress)


class KerasSubject(Twin):
    """A copy of a model in float64, at the perturbed weights of a bundle, its weights found by a map."""

    def __init__(self, bundle: Bundle, written: Written, model: keras.Model) -> None:
        self._bundle, self._written = bundle, written
        super().__init__(model, target_spec(bundle, written), perturbed(bundle.weights))

    def penalties(self, inputs: Sequence[np.ndarray], *, training: bool) -> dict[str, float]:
        """Return every penalty by its key in the source."""
        found = super().penalties(inputs, training=training)
        return {site.key: loss for site, loss in zip(self._bundle.sites, found.values(), strict=True)}

    def _read(self, model: keras.Model) -> Reading:
        variables = dict(named_weights(model))
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
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "written.py"
        file.write_text(written.text, encoding="utf-8")
        model = load_function(file, written.class_name)()
    weights = written.weights.to_target(bundle.weights)
    for name, variable in named_weights(model):
        variable.assign(weights[name])
    return model


def load_function(file: str | Path, name: str) -> Callable[..., Any]:
    """Import a Python file, which runs it, and return a function of it.

    Raises
    ------
    SpecError: there is no such file or function.
    """
    path = Path(file)
    spec = importlib.util.spec_from_file_location(f"arspec_ported_{path.stem}", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise SpecError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Any = getattr(module, name, None)
    if not callable(found):
        raise SpecError(f"{path} has no function {name!r}.")
    return found
