"""The layers with weights of a Flax NNX module that exists, and new weights for them."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from arspec.port._weighted import Layers, WeightedLayer, layers_of, with_names
from arspec_jax._flax_kinds import is_bidirectional, is_cell, is_rnn
from arspec_jax._flax_parts import children
from arspec_jax._nnx import _fetch, _NnxLeaves, _variable, _Watched, parts_of
from arspec_jax._nnx import layers_of as modules_of
from arspec_jax._parts import joined
from arspec_jax._watch import Watch
from arspec_jax.port._weighted_flax import read_flax


def layers_nnx(model: nnx.Module, inputs: tuple[Any, ...], options: Mapping[str, Any]) -> Layers:
    """List the layers of an NNX module; with inputs, in the order in which a call of it runs them."""
    found = _Found(model)
    arrays = {name: np.asarray(variable[...]) for name, variable in found.variables.items()}
    described = [part.layer() for part in parts_of(model)]
    calls = _calls(model, inputs, options) if inputs else None
    return Layers("NNX", found.layers, arrays, described=described, calls=calls, unknown=found.unknown)


def assign_nnx(model: nnx.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Give the layers of an NNX module these weights, in place."""
    found = _Found(model)
    for name, array in layers_of(layers_nnx(model, (), {}), weights).tensors_of(weights).items():
        found.variables[name][...] = jnp.asarray(array)


class _Found:
    """The layers of a module, and their variables by one name each."""

    def __init__(self, model: nnx.Module) -> None:
        self.layers: list[WeightedLayer] = []
        self.variables: dict[str, Any] = {}
        self.unknown: dict[str, str] = {}
        self._names: dict[int, str] = {}
        for path, module, prefix, reverse in _walk(model):
            self._read(path, module, prefix, reverse)
        for path, variable in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))):
            own = _variable(model, joined(path))
            if id(own) not in self._names and jnp.issubdtype(variable.dtype, jnp.floating):
                holder = joined(path[:-1]) or "model"
                self.unknown.setdefault(holder, f"what its {path[-1]} is is not known.")

    def _read(self, path: str, module: Any, prefix: str, reverse: bool | None) -> None:
        own = [each for each in vars(module).values() if isinstance(each, nnx.Variable)]
        try:
            layer = read_flax(module, path, _NnxLeaves(module).shape, reverse=reverse)
        except LookupError as reason:
            if any(isinstance(each, nnx.Param | nnx.BatchStat) for each in own) or is_cell(module):
                self.unknown[path] = str(reason)
                self._names |= {id(each): "" for _, one in nnx.iter_modules(module) for each in vars(one).values()}
            return
        self.layers.append(with_names(layer, lambda name: self._keep(f"{prefix}{name}", _variable(module, name))))

    def _keep(self, name: str, variable: Any) -> str:
        """Return the name of a variable: one that is shared has one."""
        name = self._names.setdefault(id(variable), name)
        self.variables[name] = variable
        return name


def _walk(model: nnx.Module) -> Iterator[tuple[str, Any, str, bool | None]]:
    """Yield the path that rules name, the module with the weights, where that lives, and which way it walks."""
    names: dict[str, tuple[str, bool]] = {}
    inside: list[str] = []
    for parts, module in sorted(modules_of(model), key=lambda one: len(one[0])):
        place = joined(parts)
        if any(place == path or place.startswith(f"{path}/") for path in inside):
            continue
        path, backward = names.get(place, (place, False))
        if is_bidirectional(module):
            names |= {
                f"{place}/{side}_rnn": (f"{place}/{side}", side == "backward") for side in ("forward", "backward")
            }
        elif is_rnn(module):
            inside.append(f"{place}/cell")
            yield path, module.cell, _prefix(model, f"{place}/cell"), backward or module.reverse
        else:
            inside += [f"{place}/{child}" for child in children(module, _NnxLeaves(module))]
            yield path, module, _prefix(model, place), None


def _prefix(model: nnx.Module, place: str) -> str:
    """Return what the names of a module's variables begin with; "model" is the module itself."""
    return "" if place == "model" and not hasattr(model, "model") else f"{place.removeprefix('model/')}/"


def _calls(model: nnx.Module, inputs: tuple[Any, ...], options: Mapping[str, Any]) -> list[str]:
    """Trace a call of a copy, and return the layers that ran, the first call of each."""
    graph, state = nnx.split(model)
    seen: list[str] = []

    def run(state: Any, inputs: Any) -> None:
        copy: Any = nnx.merge(graph, state)
        watch = Watch(_fetch, lambda path, module, roles: {}, lambda path, module: False)
        with _Watched(copy, watch):
            copy(*inputs, **options)
        seen.extend(watch.ran)

    jax.eval_shape(run, state, inputs)
    return seen
