"""Flax Linen: `forward(variables, x, ...)`, with the options of `Module.apply`.

The layers of a compact module exist only while it runs, so they are known after the first
call: an interceptor names their tensors, and the parameters are found by their paths.
"""

import sys
from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn

from arspec import SpecError
from arspec_jax._arguments import Recorder
from arspec_jax._flax_kinds import is_rnn
from arspec_jax._flax_parts import Leaves, children, layer_part, recurrent_part, with_reasons
from arspec_jax._forward import Call
from arspec_jax._function import named_parts
from arspec_jax._parts import Part, entry_name, joined
from arspec_jax._roles import Role
from arspec_jax._trace import Trace
from arspec_jax._watch import Ran, Watch


class LinenModel:
    """A Linen module, whose layers are known from its first call."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def known_parts(self) -> None:
        return None

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        variables = args[0] if args else None
        if not isinstance(variables, Mapping) or "params" not in variables:
            raise SpecError(
                f"forward takes the variables of the {type(self._module).__name__} first: "
                f"forward({{'params': ...}}, x); got {type(variables).__name__}."
            )
        arrays = _by_path(variables["params"])
        watch = Watch(
            _fetch,
            lambda _, module, roles: _stacked(arrays, module, roles),
            lambda _, module: _is_reshaped(arrays, module),
        )
        recorder = Recorder(lambda args, kwargs: self._apply(watch, args, kwargs), (args, kwargs))
        return Call(
            recorder.leaves,
            recorder.run,
            recorder.finish,
            lambda traced: _listed(watch, arrays, traced),
        )

    def trained(self, argument: Any) -> Any:
        return nn.unbox(argument["params"])

    def _apply(self, watch: Watch, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        def name_tensors(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            module, path = context.module, joined(context.module.path)
            if context.method_name != "__call__" or not (path or _is_layer(module)):
                return call(*args, **kwargs)
            return watch.call(module, path or ROOT, call, args, kwargs)

        with nn.intercept_methods(name_tensors):
            return self._module.apply(*args, **kwargs)


ROOT = "model"  # the path of a module of Flax that is attached by itself


def _is_layer(module: nn.Module) -> bool:
    return type(module).__module__.startswith("flax.") or is_rnn(module)


def _by_path(params: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(nn.unbox(params))
    return {joined(tuple(entry_name(entry) for entry in path)): leaf for path, leaf in leaves}


def _fetch(module: nn.Module, leaf: str) -> Any:
    found = nn.unbox(module.variables).get("params", {})
    for name in leaf.split("/"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return None if isinstance(found, Mapping) else found


def _stacked(arrays: Mapping[str, Any], module: nn.Module, roles: Mapping[str, Role]) -> Mapping[str, Role]:
    leaves = _LinenLeaves(arrays, joined(module.path))
    return {
        name: role
        for name, role in roles.items()
        if any(len(leaves.shape(leaf) or ()) != role.rank for leaf in role.leaves)
    }


def _is_reshaped(arrays: Mapping[str, Any], module: nn.Module) -> bool:
    own = _LinenLeaves(arrays, joined(module.path)).own()
    inside = {name: _fetch(module, name) for name in own}
    return any(array is not None and array.ndim != own[name].ndim for name, array in inside.items())


def _listed(watch: Watch, arrays: Mapping[str, Any], traced: Trace) -> list[Part]:
    """List the layers, and the tensors that `site` names in their code."""
    parts = with_reasons(_parts(watch.ran, arrays), watch.without_weights)
    return [*parts, *named_parts(traced, {*watch.ran, *(part.path for part in parts)})]


def _parts(ran: Mapping[str, Ran], arrays: Mapping[str, Any]) -> list[Part]:
    """List the layers: those that ran, and those that only have parameters."""
    hidden = {one.cell_path for one in ran.values() if one.cell_path is not None}
    for one in ran.values():
        prefix = f"{one.path}/" if one.path else ""
        hidden |= {prefix + child for child in children(one.module, _LinenLeaves(arrays, one.path))}
    owners = {path.rpartition("/")[0] for path in arrays} - {""}
    known = {one.path for one in ran.values()}
    paths = [*ran, *(path for path in owners if path not in known)]
    return [
        _part(path, ran.get(path), arrays)
        for path in sorted(paths, key=lambda path: (path.count("/"), path))
        if not any(path == inner or path.startswith(f"{inner}/") for inner in hidden)
    ]


def _part(path: str, one: Ran | None, arrays: Mapping[str, Any]) -> Part:
    if one is None:
        return layer_part(path, None, _LinenLeaves(arrays, path), kind="params")
    if is_rnn(one.module) and one.cell_path is not None:
        return recurrent_part(path, one.module, one.cell, _LinenLeaves(arrays, one.cell_path))
    return layer_part(path, one.module, _LinenLeaves(arrays, one.path))


class _LinenLeaves(Leaves):
    """The parameters of a module by their path in it."""

    def __init__(self, arrays: Mapping[str, Any], path: str) -> None:
        self._arrays, self._prefix = arrays, f"{path}/" if path else ""

    def own(self) -> dict[str, Any]:
        inside = {
            path.removeprefix(self._prefix): a for path, a in self._arrays.items() if path.startswith(self._prefix)
        }
        return {name: array for name, array in inside.items() if "/" not in name}

    def shape(self, leaf: str) -> tuple[int, ...] | None:
        array = self._arrays.get(self._prefix + leaf)
        return None if array is None else tuple(array.shape)

    def read(self, leaf: str) -> Any:
        return self._arrays[self._prefix + leaf]

    def is_frozen(self, leaf: str) -> bool:
        return False

    def identity(self, leaf: str) -> object:
        return sys.intern(self._prefix + leaf)
