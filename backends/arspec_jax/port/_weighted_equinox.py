"""The layers with weights of an Equinox module that exists, and new weights for them."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from arspec import SpecError, UnsupportedError
from arspec.port._weighted import Layers, WeightedLayer, layers_of, with_names
from arspec_jax._equinox import _leaf, _modules, _root, parts_of
from arspec_jax._equinox_kinds import makes_weights
from arspec_jax._parts import entry_name, joined
from arspec_jax.port._weighted_equinox_kinds import read_equinox

_LONG_AGO = 10**9  # batches after which a debiased mean is the mean


def layers_equinox(model: eqx.Module, state: Any) -> Layers:
    """List the layers of an Equinox module in the order of its fields."""
    found = _Found(model)
    found.require_state(state)
    arrays = {name: np.asarray(found.read(name, model, state)) for name in found.places}
    described = [part.layer() for part in parts_of(model, True)]
    return Layers("Equinox", found.layers, arrays, described=described, unknown=found.unknown)


def assign_equinox(model: Any, weights: Mapping[str, np.ndarray], state: Any) -> Any:
    """Return a module like this one with new weights; with a state, both."""
    new = layers_of(layers_equinox(model, state), weights).tensors_of(weights)
    found = _Found(model)
    own = {name: array for name, array in new.items() if not found.places[name][1].startswith("state/")}
    arrays = [jnp.asarray(array) for array in own.values()]
    module = eqx.tree_at(lambda m: [found.read(name, m, None) for name in own], model, arrays) if own else model
    for place in dict.fromkeys(found.places[name][0] for name in new if name not in own):
        state = _with_statistics(state, _at(module, place), new, f"{joined(place)}/" if place else "")
    return module if state is None else (module, state)


Place = tuple[tuple[Any, ...], str]  # a layer, and the name of an array in it


class _Found:
    """The layers of a module, and where their arrays are."""

    def __init__(self, model: Any) -> None:
        self.layers: list[WeightedLayer] = []
        self.places: dict[str, Place] = {}
        self.unknown: dict[str, str] = {}
        root = _root(model)
        makers = [path for path, layer in _modules(model, root) if makes_weights(layer)]
        claimed: set[int] = set()
        for path, layer in _modules(model, root):
            try:
                if any(path[: len(maker)] == maker for maker in makers):
                    raise LookupError("its weight is made of another array.")
                read = read_equinox(layer, joined(path))
            except LookupError as reason:
                if any(eqx.is_inexact_array(held) for held in vars(layer).values()):
                    self.unknown[joined(path)] = str(reason)
                    claimed |= {id(held) for held in vars(layer).values()}
                continue
            place = path[len(root) :]
            self.layers.append(with_names(read, lambda name, place=place: self._keep(place, name)))
            claimed |= {id(_leaf(layer, entry.target)) for entry in read.entries}
        for keys, leaf in jax.tree_util.tree_leaves_with_path(model, is_leaf=_is_index):
            if eqx.is_inexact_array(leaf) and id(leaf) not in claimed:
                path = tuple(entry_name(key) for key in keys)
                self.unknown.setdefault(joined(path[:-1]) or "model", f"what its {path[-1]} is is not known.")

    def _keep(self, place: tuple[Any, ...], name: str) -> str:
        full = joined((*place, name))
        self.places[full] = (place, name)
        return full

    def read(self, name: str, model: Any, state: Any) -> Any:
        """Return an array of the model, or a running statistic of its state."""
        place, leaf = self.places[name]
        layer = _at(model, place)
        if not leaf.startswith("state/"):
            return _leaf(layer, leaf)
        return _statistics(layer, state)[0 if leaf == "state/mean" else 1]

    def require_state(self, state: Any) -> None:
        """Raise if there are statistics, and no state that has them."""
        kept = [name for name, (_, leaf) in self.places.items() if leaf.startswith("state/")]
        if kept and not isinstance(state, eqx.nn.State):
            raise SpecError(f"{kept[0]} is in the state beside the model; say it: layers(model, state=state).")


def _is_index(held: Any) -> bool:
    return isinstance(held, eqx.nn.StateIndex)


def _at(model: Any, path: tuple[Any, ...]) -> Any:
    for entry in path:
        model = model[entry] if isinstance(model, list | tuple | dict) else getattr(model, entry)
    return model


def _statistics(norm: Any, state: Any) -> tuple[Any, Any]:
    """Return the running mean and variance as an evaluation uses them."""
    if norm.mode == "ema":
        if bool(state.get(norm.ema_first_time_index)):
            raise UnsupportedError("an Equinox BatchNorm in mode 'ema' has no statistics before its first batch.")
        return state.get(norm.ema_state_index)
    mean, variance = state.get(norm.batch_state_index)
    counter = state.get(norm.batch_counter)
    scale = jnp.where(counter == 0, 1, 1 - norm.momentum**counter)
    return mean / scale, variance / scale


def _with_statistics(state: Any, norm: Any, new: Mapping[str, np.ndarray], prefix: str) -> Any:
    """Return a state with these running statistics, as if they were those of many batches."""
    given = tuple(jnp.asarray(new[f"{prefix}state/{name}"]) for name in ("mean", "var"))
    if norm.mode == "ema":
        return state.set(norm.ema_state_index, given).set(norm.ema_first_time_index, jnp.array(False))
    if norm.momentum ** jnp.array(_LONG_AGO) != 0:
        raise UnsupportedError(f"{prefix[:-1]!r}: momentum={norm.momentum} debiases its statistics for ever.")
    counter = state.get(norm.batch_counter) * 0 + _LONG_AGO  # of the same dtype, weak or not
    return state.set(norm.batch_state_index, given).set(norm.batch_counter, counter)
