"""The layers with weights of a Flax Linen module that exists, and new weights for them.

The layers of a compact module exist only while it runs, so a call is traced, without numbers.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from arspec import SpecError
from arspec.port._weighted import Layers, WeightedLayer, layers_of, with_names
from arspec_jax._linen import ROOT, _by_path, _fetch, _is_layer, _parts
from arspec_jax._parts import joined
from arspec_jax._watch import Ran, Watch
from arspec_jax.port._weighted_flax import read_flax

_COLLECTIONS = ("params", "batch_stats")


def layers_linen(module: nn.Module, variables: Any, inputs: tuple[Any, ...], options: Mapping[str, Any]) -> Layers:
    """List the layers of a Linen module in the order in which a call runs them."""
    if not isinstance(variables, Mapping) or "params" not in variables or not inputs:
        raise SpecError("a Linen module is listed by a call: layers(module, {'params': ...}, x).")
    ran = _ran(module, variables, inputs, options)
    found = _Found(variables)
    for path, one in ran.items():
        found.read(path, one)
    found.note_rest()
    tensors = {name: np.asarray(array) for name, array in found.arrays.items()}
    described = [part.layer() for part in _parts(ran, _by_path(variables["params"]))]
    return Layers("Linen", found.layers, tensors, described=described, calls=list(ran), unknown=found.unknown)


def assign_linen(
    module: nn.Module,
    variables: Any,
    weights: Mapping[str, np.ndarray],
    inputs: tuple[Any, ...],
    options: Mapping[str, Any],
) -> Any:
    """Return variables like these, with new weights for the layers of a Linen module."""
    new = layers_of(layers_linen(module, variables, inputs, options), weights).tensors_of(weights)

    def replaced(path: Any, leaf: Any) -> Any:
        name = joined(tuple(entry.key for entry in path if hasattr(entry, "key")))
        return jnp.asarray(new[name]) if name in new else leaf

    return jax.tree_util.tree_map_with_path(replaced, variables)


def _ran(module: nn.Module, variables: Any, inputs: tuple[Any, ...], options: Mapping[str, Any]) -> dict[str, Ran]:
    """Trace a call and return the layers that ran, the first call of each."""
    watch = Watch(_fetch, lambda path, module, roles: {}, lambda path, module: False)

    def name_layers(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        inner, path = context.module, joined(context.module.path)
        if context.method_name != "__call__" or not (path or _is_layer(inner)):
            return call(*args, **kwargs)
        return watch.call(inner, path or ROOT, call, args, kwargs)

    def run(variables: Any, inputs: Any) -> None:
        with nn.intercept_methods(name_layers):
            module.apply(variables, *inputs, **options)

    jax.eval_shape(run, variables, inputs)
    return dict(watch.ran)


class _Found:
    """The layers that ran, outer ones first, and the arrays of the variables by their paths."""

    def __init__(self, variables: Mapping[str, Any]) -> None:
        held = {kind: _by_path(variables.get(kind, {})) for kind in _COLLECTIONS}
        self.arrays = {f"{kind}/{path}": array for kind, own in held.items() for path, array in own.items()}
        self.layers: list[WeightedLayer] = []
        self.unknown: dict[str, str] = {}
        self._claimed: set[str] = set()

    def read(self, path: str, one: Ran) -> None:
        """Describe a layer; those inside of one that is described belong to it."""
        home = one.path if one.cell_path is None else one.cell_path
        prefix = "" if home in ("", ROOT) else f"{home}/"
        below = {name for name in self.arrays if name.partition("/")[2].startswith(prefix)}
        if not below - self._claimed:
            return
        reverse = None if one.cell is None else path.endswith("/backward") or bool(one.module.reverse)
        module = one.module if one.cell is None else one.cell
        try:
            layer = read_flax(module, path, lambda name: self._shape(prefix + name), reverse=reverse)
        except LookupError as reason:
            own = (
                below
                if one.cell is not None
                else {name for name in below if name.partition("/")[2].count("/") == prefix.count("/")}
            )
            if own:
                self.unknown[path] = str(reason)
                self._claimed |= own
            return
        named = not re.fullmatch(r"(.*/)?[A-Z]\w*_\d+(/forward|/backward)?", path)
        self.layers.append(replace(with_names(layer, lambda name: self._name(prefix + name)), named=named))
        self._claimed |= {entry.target for entry in self.layers[-1].entries}

    def note_rest(self) -> None:
        """Note the layers whose arrays no description has."""
        for name in self.arrays:
            if name not in self._claimed:
                holder, _, last = name.partition("/")[2].rpartition("/")
                self.unknown.setdefault(holder or ROOT, f"what its {last} is is not known.")

    def _shape(self, name: str) -> tuple[int, ...] | None:
        held = self.arrays.get(self._name(name))
        return None if held is None else tuple(held.shape)

    def _name(self, name: str) -> str:
        """Return an array by its path: statistics are a collection of their own."""
        return next((f"{kind}/{name}" for kind in _COLLECTIONS if f"{kind}/{name}" in self.arrays), "")
