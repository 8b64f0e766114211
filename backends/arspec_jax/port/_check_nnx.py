"""Measuring a Flax NNX target."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from arspec import Spec, SpecError
from arspec.port import Bundle, Certificate, Written
from arspec.port._files import attribute_of
from arspec.port._library import Library
from arspec.port._target import require_names
from arspec_jax._attach import attach
from arspec_jax.port._nnx import write_nnx
from arspec_jax.port._pieces import Pieces
from arspec_jax.port._subject import JaxSubject, Pass, Tensors


def check_nnx(
    bundle: Bundle,
    written: Written,
    model: nnx.Module,
    /,
    *,
    faults: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> Certificate:
    """Compare an NNX module with the evidence of a bundle, level by level.

    Parameters
    ----------
    bundle : of the source.
    written : the map of the target, from `write_nnx` or from the file beside the source code.
    model : the target with its weights loaded. It is not changed: a copy is measured.
    faults : whether faults are planted, which have to be noticed (L5); each is a target that
        arspec writes, compiles and measures again.

    Raises
    ------
    SpecError: the model has other tensors than the map says.
    """
    return _library(Pieces()).certificate(bundle, written, model, faults, progress)


def load_nnx(file: str | Path, class_name: str, weights: Mapping[str, np.ndarray], /) -> nnx.Module:
    """Run a Python file, make a module of a class in it, and give it weights by their paths; no initializer runs.

    Raises
    ------
    SpecError: there is no such file or class, it takes other arguments than rngs, or the weights do not fit.
    """
    made = attribute_of(file, class_name)
    try:
        model = nnx.eval_shape(lambda: made(nnx.Rngs(0)))
    except TypeError as error:
        raise SpecError(f"{file}: {class_name}(nnx.Rngs(0)) cannot be made: {error}.") from None
    variables = variables_of(model)
    require_names(weights, {name: tuple(variable.shape) for name, variable in variables.items()}, str(file))
    filled = {name: variable.replace(jax.device_put(weights[name])) for name, variable in variables.items()}
    paths = {name_of(path): path for path, _ in nnx.to_flat_state(nnx.state(model))}
    nnx.update(model, nnx.from_flat_state([(paths[name], variable) for name, variable in filled.items()]))
    nnx.reseed(model, default=0)
    return model


class NnxSubject(JaxSubject):
    """A copy of an NNX module: its structure in either mode, and its arrays apart."""

    def __init__(self, bundle: Bundle, written: Written, model: nnx.Module, *, pieces: Pieces) -> None:
        copy = nnx.clone(model)
        for _, part in nnx.iter_modules(copy):
            if isinstance(part, nnx.Dropout):
                part.rate = 0.0
            if isinstance(part, nnx.Embed) and part.dtype == jnp.float32:
                part.dtype = jnp.float64  # its own default is the dtype in which its table was made
        self._trained = {name for name, v in variables_of(copy).items() if isinstance(v, nnx.Param)}
        self._graphs = {}
        for training, mode in ((True, copy.train), (False, copy.eval)):
            mode()
            self._graphs[training] = nnx.split(copy)
        super().__init__(bundle, written, pieces)
        self._forward = attach(copy, self.spec) if self.spec.rules else None
        self._plain = attach(copy, Spec([]))

    @property
    def trained(self) -> set[str]:
        """The names of its nnx.Param."""
        return self._trained

    def run(self, weights: Tensors, inputs: Sequence[Any], *, training: bool) -> Pass:
        """Run the module, and its penalties with it."""
        model, penalties = self._built(weights, training=training), []
        if self._forward is None:
            found: Any = model(*inputs)  # pyright: ignore[reportCallIssue]
        else:
            found, given = self._forward(model, *inputs, masks=self.masks(inputs) or None)
            penalties = list(given.values())
        after = {name: v.get_value() for name, v in variables_of(model).items() if name not in self._trained}
        return list(found) if isinstance(found, tuple) else [found], penalties, after

    def results(self, spec: Spec, inputs: Sequence[Any]) -> dict[str, Any]:
        """Return what is seen at each layer, by its path with "." between the parts."""

        def run(weights: Tensors, inputs: Sequence[Any]) -> dict[str, Any]:
            return self._plain.visible(spec, self._built(weights, training=False), *inputs)

        found = jax.device_get(self.pieces.compiled(run)(self.weights, inputs))
        return {path.replace("/", "."): array for path, array in found.items()}

    def _built(self, weights: Tensors, *, training: bool) -> nnx.Module:
        graph, state = self._graphs[training]
        filled = [
            (path, variable.replace(jnp.asarray(weights[name_of(path)])) if name_of(path) in weights else variable)
            for path, variable in nnx.to_flat_state(state)
        ]
        return nnx.merge(graph, nnx.from_flat_state(filled))


def variables_of(model: nnx.Module) -> Mapping[str, Any]:
    """Return the variables of a module by path, without the keys of random numbers."""
    return {name_of(path): v for path, v in nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState)))}


def name_of(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def _arrays(model: nnx.Module) -> dict[str, Any]:
    return {name: v.get_value() for name, v in variables_of(model).items()}


def _library(pieces: Pieces) -> Library:
    subject = partial(NnxSubject, pieces=pieces)
    return Library("nnx", ("jax", "jaxlib", "flax"), write_nnx, load_nnx, _arrays, subject)
