"""Flax NNX: `forward(model, x)` reads the module it is given.

The module is split and merged inside the trace, so the copy can be watched freely: each of
its layers gets a subclass of its own class that names what it returns. What the model
changed in itself (batch statistics, counters) is written back.
"""

from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx

from arspec import SpecError, UnsupportedError
from arspec_jax._arguments import separate
from arspec_jax._flax_kinds import is_affine, is_closed, refusals
from arspec_jax._forward import Call
from arspec_jax._function import KERNEL_NAMES, role_parameters
from arspec_jax._parts import RESULT, Parameter, Part, joined
from arspec_jax._site import mark
from arspec_jax._trace import Trace


class NnxModel:
    """An NNX module, known by its structure."""

    def __init__(self, module: nnx.Module) -> None:
        self._kind = type(module).__name__
        self._parts = parts_of(module)

    def known_parts(self) -> Sequence[Part]:
        return self._parts

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        model = args[0] if args else None
        if not isinstance(model, nnx.Module):
            raise SpecError(f"forward takes the {self._kind} first: forward(model, x); got {type(model).__name__}.")
        run = _Run(model, args[1:], kwargs)
        return Call(run.leaves, run.run, run.finish, lambda _: parts_of(model))


class _Run:
    """One call: the arrays of the module's state, then those of the arguments."""

    def __init__(self, model: nnx.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._model = model
        self._graph, state = nnx.split(model)
        self._state, self._state_tree = jax.tree.flatten(state)
        inputs, self._inputs = separate((args, kwargs))
        self._outputs: Any = None
        self.leaves = [*self._state, *inputs]

    def run(self, *leaves: Any) -> list[Any]:
        count = len(self._state)
        module = nnx.merge(self._graph, jax.tree.unflatten(self._state_tree, leaves[:count]))
        args, kwargs = self._inputs.fill(leaves[count:])
        with _Watched(module):
            output = module(*args, **kwargs)  # pyright: ignore[reportCallIssue]
        graph, state = nnx.split(module)
        if graph != self._graph:
            raise UnsupportedError(
                f"{type(module).__name__} changes its structure in a forward pass (a variable is added, as `sow` "
                "does), which forward(...) cannot hand back. Create the variable before, or return the value."
            )
        arrays, self._outputs = separate(output)
        return [*jax.tree.leaves(state), *arrays]

    def finish(self, arrays: Sequence[Any], traced: Trace) -> Any:
        count = len(self._state)
        changed = [i for i in range(count) if not traced.is_unchanged(i, i)]
        if changed:
            leaves = [arrays[i] if i in changed else old for i, old in enumerate(self._state)]
            _write(self._model, jax.tree.unflatten(self._state_tree, leaves), changed)
        return self._outputs.fill(arrays[count:])


def _write(model: nnx.Module, state: Any, changed: Sequence[int]) -> None:
    """Update those variables alone that the pass has changed: others may belong to an outer trace."""
    paths = [path for path, leaf in nnx.to_flat_state(state) for _ in jax.tree.leaves(leaf)]
    wanted = {paths[i] for i in changed}
    nnx.update(model, nnx.from_flat_state([(path, leaf) for path, leaf in nnx.to_flat_state(state) if path in wanted]))


class _Watched:
    """While it is entered, the layers of a module name what they return."""

    def __init__(self, module: nnx.Module) -> None:
        self._layers = [(path, layer, type(layer)) for path, layer in layers_of(module)]

    def __enter__(self) -> None:
        for path, layer, cls in self._layers:
            if callable(layer):
                object.__setattr__(layer, "__class__", _watching(cls, joined(path), is_affine(layer)))

    def __exit__(self, *error: object) -> None:
        for _, layer, cls in self._layers:
            object.__setattr__(layer, "__class__", cls)


def _watching(cls: Any, path: str, affine: bool) -> Any:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return mark(cls.__call__(self, *args, **kwargs), path, "pre_activation" if affine else "output")

    return type(cls.__name__, (cls,), {"__call__": call, "__module__": cls.__module__})


def layers_of(module: nnx.Module) -> list[tuple[tuple[Any, ...], Any]]:
    """Return the modules inside a module by path; one that has none is its own layer "model"."""
    inside = [(path, layer) for path, layer in nnx.iter_modules(module) if path]
    return inside or [(("model",), module)]


def parts_of(module: nnx.Module) -> list[Part]:
    """List the layers inside a module; a shared one stands at its first path."""
    parts, closed = [], []
    for path, layer in sorted(layers_of(module), key=lambda found: len(found[0])):
        if any(path[: len(outer)] == outer for outer in closed):
            continue
        if is_closed(layer):
            closed.append(path)
        parts.append(_part(joined(path), layer))
    return parts


def _part(path: str, layer: Any) -> Part:
    affine, refused = is_affine(layer), dict(refusals(layer))
    variables = {name: v for name, v in vars(layer).items() if isinstance(v, nnx.Param) and hasattr(v, "shape")}
    parameters, odd = ({}, {}) if refused else role_parameters(path, variables)
    parameters = {p: Parameter(_reader(path, p), one.axes, _variable(layer, p)) for p, one in parameters.items()}
    results = RESULT if affine else ("output",) if callable(layer) else ()
    return Part(
        *(path, type(layer).__name__, affine, results, parameters, {**odd, **refused}),
        in_globs=affine or bool(odd or refused or parameters),
        is_custom=not affine and "kernel" in parameters,
    )


def _reader(path: str, placement: str) -> Any:
    def read(model: nnx.Module, *_: Any) -> Any:
        layers = {joined(found): layer for found, layer in layers_of(model)}
        return _variable(layers[path], placement)[...]

    return read


def _variable(layer: Any, placement: str) -> Any:
    names = KERNEL_NAMES if placement == "kernel" else ("bias", "b")
    return next(vars(layer)[name] for name in names if name in vars(layer))
