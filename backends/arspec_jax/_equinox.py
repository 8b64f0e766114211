"""Equinox: `forward(model, x)`, with layers replaced by ones that name their tensors.

Equinox modules take one example, so by default `forward` takes a batch and maps the model
over its first axis; an activation then has its batch axis, and a mean over it its meaning.
A stateful model takes its `eqx.nn.State` as an argument and returns (output, state); layers
that take statistics over the batch find it under the axis name "batch".
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax

from arspec import SpecError
from arspec_jax import _cells
from arspec_jax._arguments import Recorder
from arspec_jax._equinox_kinds import (
    axes_of,
    cell_kind,
    class_of,
    is_affine,
    makes_weights,
    refusals,
    roles_of,
    step_placements,
)
from arspec_jax._forward import Call
from arspec_jax._parts import RESULT, Parameter, Part, entry_name, joined
from arspec_jax._roles import Role
from arspec_jax._site import mark
from arspec_jax._trace import Trace

Path = tuple[Any, ...]


class EquinoxModel:
    """An Equinox module, known by its structure."""

    def __init__(self, module: eqx.Module, batched: bool) -> None:
        self._kind = type(module).__name__
        self._batched = batched
        self._module: eqx.Module | None = module

    def known_parts(self) -> Sequence[Part]:
        """Return the layers of the module that was attached, which is then forgotten."""
        module, self._module = self._module, None
        return [] if module is None else parts_of(module, self._batched)

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        model = args[0] if args else None
        if not isinstance(model, eqx.Module):
            raise SpecError(f"forward takes the {self._kind} first: forward(model, x); got {type(model).__name__}.")
        recorder = Recorder(self._run, (args, kwargs))
        parts = parts_of(model, self._batched)

        def listed(_: Trace) -> Sequence[Part]:
            return parts

        return Call(recorder.leaves, recorder.run, recorder.finish, listed)

    def trained(self, argument: Any) -> Any:
        return eqx.filter(argument, eqx.is_inexact_array)

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        model = watched(args[0], _root(args[0]))
        if not self._batched:
            return model(*args[1:], **kwargs)
        return _mapped(model, args[1:], kwargs)


def _mapped(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Map a model over the first axis of its arguments, "batch"; a State is of the whole batch."""

    def run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return model(*args, **kwargs)

    of_state = [isinstance(one, eqx.nn.State) for one in args]
    in_axes = tuple(None if is_state else eqx.if_array(0) for is_state in of_state), eqx.if_array(0)
    out_axes = (eqx.if_array(0), None) if any(of_state) else eqx.if_array(0)
    return eqx.filter_vmap(run, in_axes=in_axes, out_axes=out_axes, axis_name="batch")(args, kwargs)


def watched(node: Any, path: Path = ()) -> Any:
    """Copy a pytree, giving each module inside it a subclass of its own class that names its tensors."""
    children, tree = _children(node)
    if children is None:
        return node
    copy = jax.tree.unflatten(tree, [watched(child, (*path, *keys)) for keys, child in children])
    if not path or not isinstance(node, eqx.Module) or not callable(node):
        return copy
    named = object.__new__(_watching(type(node), joined(path), _stacked_roles(node)))
    for name, attribute in vars(copy).items():
        object.__setattr__(named, name, attribute)
    return named


def _root(model: Any) -> Path:
    """Return the path of the model itself: none, but "model" for a single layer of Equinox."""
    return ("model",) if roles_of(model) else ()


def _watching(cls: Any, path: str, stacked: Mapping[str, Role]) -> Any:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = cls.__call__(self, *args, **kwargs)
        if cell_kind(self) is not None:
            return _step(self, path, args, result)
        for placement, role in stacked.items():
            mark(_read(self, role), path, placement)
        if args:
            mark(args[0], path, "input")
        if isinstance(result, tuple) and any(isinstance(one, eqx.nn.State) for one in result[1:]):
            return mark(result[0], path, "output"), *result[1:]
        return mark(result, path, "pre_activation" if is_affine(self) else "output")

    return type(cls.__name__, (cls,), {"__call__": call, "__module__": cls.__module__, "__original__": cls})


def _step(cell: Any, path: str, args: tuple[Any, ...], result: Any) -> Any:
    """Name the tensors of one step; return the state after it."""
    kind = cell_kind(cell)
    if kind is None or len(args) < 2:
        return result
    x, hidden = args[:2]
    weights = {name: _read(cell, role) for name, role in roles_of(cell).items()}
    is_lstm = kind == _cells.LSTM
    states = _cells.mark_step(
        _cells.Walk(path, is_cell=True),
        _cells.Cell(kind, weights),
        x,
        hidden[0] if is_lstm else hidden,
        result if is_lstm else (result,),
    )
    return states if is_lstm else states[0]


def _stacked_roles(layer: Any) -> dict[str, Role]:
    """Return the parameters that have more axes than such a layer: those of several layers in a scan."""
    return {name: role for name, role in roles_of(layer).items() if _extra_axes(layer, role)}


def _extra_axes(layer: Any, role: Role) -> int:
    return max(_leaf(layer, leaf).ndim - role.rank for leaf in role.leaves)


def _leaf(layer: Any, leaf: str) -> Any:
    for name in leaf.split("/"):
        layer = getattr(layer, name, None)
    return layer


def _read(layer: Any, role: Role) -> Any:
    return role.form([_leaf(layer, leaf) for leaf in role.leaves])


def _children(node: Any) -> tuple[list[tuple[Path, Any]] | None, Any]:
    """Return the children of a node of a pytree with their keys, or None for a leaf."""
    found, tree = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda child: child is not node)
    if len(found) == 1 and not found[0][0]:
        return None, tree
    return [(tuple(entry_name(entry) for entry in keys), child) for keys, child in found], tree


def _modules(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Return the modules inside, but for those whose weights are those of the layer around them."""
    children, _ = _children(node)
    if path and isinstance(node, eqx.Module):
        yield path, node
    own = {leaf.split("/")[0] for role in roles_of(node).values() for leaf in role.leaves if "/" in leaf}
    for keys, child in children or []:
        if keys[0] not in own:
            yield from _modules(child, (*path, *keys))


def parts_of(model: Any, batched: bool) -> list[Part]:
    """List the layers inside a module; one that has none is its own layer."""
    found = list(_modules(model, _root(model)))
    makers = {path: class_of(layer).__name__ for path, layer in found if makes_weights(layer)}
    held = Counter(id(array) for _, layer in found for array in _arrays(layer))
    return [_part(joined(path), layer, batched, held, _maker(path, makers)) for path, layer in found]


def _maker(path: Path, makers: Mapping[Path, str]) -> str | None:
    """Return the kind of the layer around that makes the weights of the one at `path`."""
    return next((kind for outer, kind in makers.items() if path != outer and path[: len(outer)] == outer), None)


def _arrays(layer: Any) -> list[Any]:
    """Return the arrays that a layer has a role for, or holds itself."""
    own = [array for array in vars(layer).values() if eqx.is_array(array)]
    inner = [_leaf(layer, leaf) for role in roles_of(layer).values() for leaf in role.leaves if "/" in leaf]
    return [*own, *inner]


def _part(path: str, layer: Any, batched: bool, held: Mapping[int, int], maker: str | None) -> Part:
    affine, roles, refused = is_affine(layer), roles_of(layer), refusals(layer)
    tied = [name for name, role in roles.items() if any(held[id(_leaf(layer, leaf))] > 1 for leaf in role.leaves)]
    reason = "another layer holds the same array, and Equinox unties the two at an update. Use eqx.nn.Shared."
    refused |= dict.fromkeys(tied, reason)
    if maker is not None:
        refused |= dict.fromkeys(
            roles, f"a {maker} makes the weight of this layer of another array. Penalize without it."
        )
    steps = step_placements(layer)
    given = () if "embeddings" in roles else ("input",)  # tokens are whole numbers
    results = (*given, *(RESULT if affine else ("output",)), *steps)
    axes = axes_of(layer)
    return Part(
        path=path,
        kind=class_of(layer).__name__,
        is_affine=affine,
        results=results if callable(layer) else (),
        parameters={name: _parameter(layer, role) for name, role in roles.items() if name not in refused},
        refused=refused,
        axes=f"batch {axes}" if axes and batched else axes,
        in_globs=bool(roles or refused),
        is_custom=not affine and not roles and "kernel" in refused,
        mapped=1 if batched else 0,
        is_unnamed=not axes,
    )


def _parameter(layer: Any, role: Role) -> Parameter:
    read: Callable[[], Any] = lambda: _read(layer, role)  # noqa: E731 - a closure, named for its type
    return Parameter(read, role.axes, stacked=_extra_axes(layer, role))
