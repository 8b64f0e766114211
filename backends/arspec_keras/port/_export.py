"""`export`: a Keras model as a bundle."""

from collections.abc import Callable
from typing import Any

import numpy as np

import keras
from arspec import Spec, SpecError
from arspec._placements import ACTIVATIONS
from arspec.port import Bundle, PortedSite
from arspec.port._environment import environment
from arspec.port._probe import BATCHES, gather, make_probe, perturbed
from arspec_keras._carried import as_it_was
from arspec_keras._extract import extract
from arspec_keras.port._layers import Constant
from arspec_keras.port._masks import without_unused
from arspec_keras.port._read import Reading, read_model
from arspec_keras.port._twin import Twin


def export(
    model: keras.Model, /, spec: Spec | None = None, *, progress: Callable[[str], None] = lambda _: None
) -> Bundle:
    """Return a Keras model as a bundle: graph, weights, rules, and the evidence of a certificate.

    Parameters
    ----------
    model : a built Sequential or functional model.
    spec : the rules; those that the model carries (`arspec_keras.extract`) by default.
    progress : is told what is being measured.

    Returns
    -------
    A `Bundle`, to be written with `arspec.port.write_bundle`. The model is not changed.

    Raises
    ------
    SpecError: the model is none, or is not built, or a rule matches nothing.
    UnsupportedError: a layer, a setting or a regularizer cannot be ported exactly; it is named.

    Notes
    -----
    Evidence is measured in float64, at weights where those whose entries are all alike (fresh
    biases and statistics) are moved apart, without dropout.
    """
    if not isinstance(model, keras.Model):
        raise SpecError(f"model is a {type(model).__name__}; expected a keras.Model.")
    if not model.built:
        raise SpecError(f"model {model.name!r} is not built, so it has no weights yet. Call it on some data first.")
    rules = extract(model) if spec is None else spec
    with as_it_was(model):
        return _exported(model, rules, progress)


def _exported(model: keras.Model, rules: Spec, progress: Callable[[str], None]) -> Bundle:
    progress("reading the model")
    reading = read_model(model)
    weights = {path: _array(variable) for path, variable in reading.variables.items()}
    twin = Twin(model, rules, perturbed(weights))
    shapes = [(BATCHES["a"], *_sizes(tensor)) for tensor in model.outputs]
    varies = any(None in shape for shape in shapes)
    probe = make_probe(reading.graph, () if varies else shapes)
    if varies:
        found = twin.outputs(probe.inputs["a"], training=False)
        probe = make_probe(reading.graph, [each.shape for each in found])
    evidence = gather(twin, probe, progress)
    position = {id(rule): index for index, rule in enumerate(rules.rules)}
    sites = tuple(
        PortedSite(site.key, position[id(site.rule)], site.layer, site.rule.placement, _mask(reading, site))
        for site in twin.sites
    )
    graph = without_unused(reading.graph, {site.mask for site in sites})
    return Bundle(graph, rules, sites, weights, probe, evidence, _environment(), exact=True)


def _mask(reading: Reading, site: Any) -> str:
    """Return the path of the mask of a site, "" if there is none."""
    placement = site.rule.placement
    if placement not in ACTIVATIONS:
        return ""
    ends = {"input": "input", "output": "output", "pre_activation": "output"}
    layer = site.layer.removesuffix("/forward").removesuffix("/backward")
    end = "steps" if (layer, "steps") in reading.masks else ends.get(placement, "steps")
    return reading.masks.get((layer, ends.get(placement, "steps") if placement in ends else end), "")


def _sizes(tensor: Any) -> tuple[Any, ...]:
    return tuple(tensor.shape[1:])


def _array(variable: Any) -> np.ndarray:
    if isinstance(variable, Constant):
        return variable.array
    array: Any = keras.ops.convert_to_numpy(variable)
    return array.astype(np.float32) if array.dtype.name not in ("float64", "float32", "float16") else array


def _environment() -> dict[str, str]:
    package = "tensorflow-cpu" if environment("", "tensorflow")["tensorflow"] == "not installed" else "tensorflow"
    return environment("keras", "keras", package, backend=keras.backend.backend(), dtype="float64")
