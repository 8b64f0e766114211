"""Flax NNX: `forward(model, x)` reads the module it is given.

The module is split and merged inside the trace, so the copy can be watched freely: each of
its layers gets a subclass of its own class that names its tensors. What the model changed in
itself (batch statistics, counters) is written back.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from arspec import SpecError, UnsupportedError
from arspec_jax._arguments import separate
from arspec_jax._flax_kinds import is_layer
from arspec_jax._flax_parts import Leaves, flax_parts, with_reasons
from arspec_jax._forward import Call
from arspec_jax._parts import Part, joined
from arspec_jax._trace import Trace
from arspec_jax._watch import Watch


class NnxModel:
    """An NNX module, known by its structure."""

    def __init__(self, module: nnx.Module) -> None:
        self._kind = type(module).__name__
        self._module: nnx.Module | None = module

    def known_parts(self) -> Sequence[Part]:
        """Return the layers of the module that was attached, which is then forgotten."""
        module, self._module = self._module, None
        return [] if module is None else parts_of(module)

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        model = args[0] if args else None
        if not isinstance(model, nnx.Module):
            raise SpecError(f"forward takes the {self._kind} first: forward(model, x); got {type(model).__name__}.")
        parts = parts_of(model)
        run = _Run(model, args[1:], kwargs, parts)
        return Call(run.leaves, run.run, run.finish, lambda _: with_reasons(parts, run.without_weights))

    def trained(self, argument: Any) -> Any:
        return nnx.state(argument, nnx.Param)


class _Run:
    """One call: the arrays of the module's state, then those of the arguments."""

    def __init__(self, model: nnx.Module, args: tuple[Any, ...], kwargs: dict[str, Any], parts: Sequence[Part]) -> None:
        self._model = model
        self._graph, state = nnx.split(model)
        self._state, self._state_tree = jax.tree.flatten(state)
        inputs, self._inputs = separate((args, kwargs))
        self._outputs: Any = None
        self._ranks = {joined(path): _ranks(layer) for path, layer in layers_of(model)}
        self.without_weights: dict[str, str] = {}
        self._stacked = {part.path: {n for n, p in part.parameters.items() if p.stacked > 0} for part in parts}
        self.leaves = [*self._state, *inputs]

    def run(self, *leaves: Any) -> list[Any]:
        count = len(self._state)
        module = nnx.merge(self._graph, jax.tree.unflatten(self._state_tree, leaves[:count]))
        args, kwargs = self._inputs.fill(leaves[count:])
        watch = Watch(_fetch, self._roles_to_name, self._is_reshaped)
        self.without_weights = watch.without_weights
        with _Watched(module, watch):
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

    def _is_reshaped(self, path: str, layer: Any) -> bool:
        return self._ranks.get(path, {}) != _ranks(layer)

    def _roles_to_name(self, path: str, _: Any, roles: Mapping[str, Any]) -> Mapping[str, Any]:
        wanted = self._stacked.get(path, set())
        return {name: role for name, role in roles.items() if name in wanted}


def _ranks(layer: Any) -> dict[str, int]:
    """Return how many axes the arrays have that a layer itself holds."""
    return {name: v.ndim for name, v in vars(layer).items() if isinstance(v, nnx.Param) and hasattr(v, "ndim")}


def _write(model: nnx.Module, state: Any, changed: Sequence[int]) -> None:
    """Update those variables alone that the pass has changed: others may belong to an outer trace."""
    paths = [path for path, leaf in nnx.to_flat_state(state) for _ in jax.tree.leaves(leaf)]
    wanted = {paths[i] for i in changed}
    nnx.update(model, nnx.from_flat_state([(path, leaf) for path, leaf in nnx.to_flat_state(state) if path in wanted]))


class _Watched:
    """While it is entered, the layers of a module name their tensors."""

    def __init__(self, module: nnx.Module, watch: Watch) -> None:
        self._layers = [(path, layer, type(layer)) for path, layer in layers_of(module)]
        self._watch = watch

    def __enter__(self) -> None:
        for path, layer, cls in self._layers:
            if callable(layer):
                object.__setattr__(layer, "__class__", _watching(cls, joined(path), self._watch))

    def __exit__(self, *error: object) -> None:
        for _, layer, cls in self._layers:
            object.__setattr__(layer, "__class__", cls)


def _watching(cls: Any, path: str, watch: Watch) -> Any:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            return cls.__call__(self, *args, **kwargs)

        return watch.call(self, path, run, args, kwargs)

    return type(cls.__name__, (cls,), {"__call__": call, "__module__": cls.__module__, "__original__": cls})


def layers_of(module: nnx.Module) -> list[tuple[tuple[Any, ...], Any]]:
    """Return the modules inside a module by path; a single layer is "model" itself."""
    inside = [(path, layer) for path, layer in nnx.iter_modules(module) if path]
    if not inside or is_layer(module):
        return [(("model",), module), *((("model", *path), layer) for path, layer in inside)]
    return inside


def parts_of(module: nnx.Module) -> list[Part]:
    """List the layers inside a module; a shared one stands at its first path."""
    found = sorted(layers_of(module), key=lambda one: len(one[0]))
    return flax_parts([(joined(path), layer, _NnxLeaves(layer)) for path, layer in found])


class _NnxLeaves(Leaves):
    """The variables of a module by their path in it."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def own(self) -> dict[str, Any]:
        found = vars(self._module).items()
        return {name: v for name, v in found if isinstance(v, nnx.Param) and hasattr(v, "shape")}

    def shape(self, leaf: str) -> tuple[int, ...] | None:
        variable = _variable(self._module, leaf)
        return None if variable is None else tuple(variable.shape)

    def read(self, leaf: str) -> Any:
        return _variable(self._module, leaf)[...]

    def is_frozen(self, leaf: str) -> bool:
        return not isinstance(_variable(self._module, leaf), nnx.Param)

    def identity(self, leaf: str) -> object:
        return _variable(self._module, leaf)


def _variable(module: Any, leaf: str) -> Any:
    """Return the variable at a path inside a module, or None."""
    found = module
    for name in leaf.split("/"):
        found = vars(found).get(name) if hasattr(found, "__dict__") else None
    return found if isinstance(found, nnx.Variable) else None


def _fetch(module: Any, leaf: str) -> Any:
    variable = _variable(module, leaf)
    return None if variable is None else variable[...]
