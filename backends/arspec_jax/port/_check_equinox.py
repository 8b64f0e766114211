"""Measuring an Equinox target."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from arspec import Spec, SpecError
from arspec.port import Bundle, Certificate, Written
from arspec.port._files import attribute_of
from arspec.port._library import Library
from arspec.port._target import require_names, trained_weights
from arspec_jax._attach import attach
from arspec_jax._parts import entry_name
from arspec_jax.port._equinox import write_equinox
from arspec_jax.port._pieces import Pieces
from arspec_jax.port._subject import JaxSubject, Pass, Tensors


def check_equinox(
    bundle: Bundle,
    written: Written,
    model: eqx.Module,
    /,
    *,
    faults: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> Certificate:
    """Compare an Equinox module, mapped over a batch, with the evidence of a bundle.

    Parameters
    ----------
    bundle : of the source.
    written : the map of the target, from `write_equinox` or from the file beside the source code.
    model : the target with its weights loaded.
    faults : whether faults are planted, which have to be noticed (L5); each is a target that
        arspec writes, compiles and measures again.

    Raises
    ------
    SpecError: the model has other arrays than the map says.
    """
    return _library(Pieces()).certificate(bundle, written, model, faults, progress)


def load_equinox(file: str | Path, class_name: str, weights: Mapping[str, np.ndarray], /) -> eqx.Module:
    """Run a Python file, make a module of a class in it, and give it weights by their paths; no initializer runs.

    Raises
    ------
    SpecError: there is no such file or class, it takes other arguments than a key, or the weights do not fit.
    """
    made = attribute_of(file, class_name)
    try:
        model = eqx.filter_eval_shape(made, jax.random.key(0))
    except TypeError as error:
        raise SpecError(f"{file}: {class_name}(jax.random.key(0)) cannot be made: {error}.") from None
    require_names(weights, {name: tuple(leaf.shape) for name, leaf in arrays_of(model).items()}, str(file))
    return filled(model, {name: jax.device_put(array) for name, array in weights.items()})


class EquinoxSubject(JaxSubject):
    """An Equinox module without dropout; its arrays are put into it where it runs."""

    def __init__(self, bundle: Bundle, written: Written, model: eqx.Module, *, pieces: Pieces) -> None:
        super().__init__(bundle, written, pieces)
        self._model = jax.tree.map(_without_dropout, model, is_leaf=_is_dropout)
        trained = trained_weights(bundle.graph)
        self._trained = {entry.target for entry in written.weights.entries if entry.source in trained}
        self._forward = attach(self._model, self.spec)

    @property
    def trained(self) -> set[str]:
        """The names of its arrays that train in the source; Equinox itself does not say."""
        return self._trained

    def run(self, weights: Tensors, inputs: Sequence[Any], *, training: bool) -> Pass:
        """Run the module over a batch, and its penalties with it."""
        model, state = self._made(weights, training=training)
        masks = self.masks(inputs) or None
        found, penalties = self._forward(model, *inputs, *state, masks=masks)
        changed: Tensors = {}
        if state:
            found, after = found
            changed = {f"{name}.init": after.get(index) for name, index in _indices(model).items()}
        return list(found) if isinstance(found, tuple) else [found], list(penalties.values()), changed

    def results(self, spec: Spec, inputs: Sequence[Any]) -> dict[str, Any]:
        """Return what is seen at each layer, by its path with "." between the parts."""

        def run(weights: Tensors, inputs: Sequence[Any]) -> dict[str, Any]:
            model, state = self._made(weights, training=False)
            return self._forward.visible(spec, model, *inputs, *state)

        found = jax.device_get(self.pieces.compiled(run)(self.weights, inputs))
        return {path.replace("/", "."): array for path, array in found.items()}

    def _made(self, weights: Tensors, *, training: bool) -> tuple[Any, tuple[Any, ...]]:
        """Return the module with its arrays and, if it has any, its state."""
        model, state = eqx.nn.make_with_state(lambda: filled(self._model, weights))()
        return eqx.nn.inference_mode(model, not training), (state,) if _indices(model) else ()


def arrays_of(model: eqx.Module) -> dict[str, Any]:
    """Return the arrays of a module by path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(model)
    return {_name(path): leaf for path, leaf in leaves if hasattr(leaf, "shape")}


def filled(model: Any, weights: Tensors) -> Any:
    """Return a module with these arrays."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: weights.get(_name(path), leaf), model)


def _indices(model: eqx.Module) -> dict[str, Any]:
    """Return by path what a module keeps in a state."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(model, is_leaf=_is_index)
    return {_name(path): leaf for path, leaf in leaves if _is_index(leaf)}


def _is_index(node: Any) -> bool:
    return isinstance(node, eqx.nn.StateIndex)


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(str(entry_name(part)) for part in path)


def _is_dropout(node: Any) -> bool:
    return isinstance(node, eqx.nn.Dropout)


def _without_dropout(node: Any) -> Any:
    return eqx.nn.Dropout(0.0) if _is_dropout(node) else node


def _library(pieces: Pieces) -> Library:
    subject = partial(EquinoxSubject, pieces=pieces)
    return Library("equinox", ("jax", "jaxlib", "equinox"), write_equinox, load_equinox, arrays_of, subject)
