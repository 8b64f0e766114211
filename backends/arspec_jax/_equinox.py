"""Equinox: `forward(model, x)`, with layers replaced by ones that name what they return.

Equinox modules take one example, so by default `forward` takes a batch and maps the model
over its first axis; an activation then has its batch axis, and a mean over it its meaning.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax

from arspec import SpecError
from arspec_jax._arguments import Recorder
from arspec_jax._forward import Call
from arspec_jax._function import KERNEL_NAMES
from arspec_jax._parts import RESULT, Parameter, Part, entry_name, joined, kernel_axes
from arspec_jax._site import mark
from arspec_jax._trace import Trace

_AFFINE = (eqx.nn.Linear, eqx.nn.Conv, eqx.nn.ConvTranspose)
_CLOSED = (eqx.nn.MultiheadAttention, eqx.nn.LSTMCell, eqx.nn.GRUCell)
_WITHOUT_KERNEL = (eqx.nn.LayerNorm, eqx.nn.GroupNorm, eqx.nn.RMSNorm, eqx.nn.BatchNorm, eqx.nn.Embedding)


class EquinoxModel:
    """An Equinox module, known by its structure."""

    def __init__(self, module: eqx.Module, batched: bool) -> None:
        self._kind = type(module).__name__
        self._batched = batched
        self._parts = parts_of(module, batched)

    def known_parts(self) -> Sequence[Part]:
        return self._parts

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        model = args[0] if args else None
        if not isinstance(model, eqx.Module):
            raise SpecError(f"forward takes the {self._kind} first: forward(model, x); got {type(model).__name__}.")
        recorder = Recorder(self._run, (args, kwargs))

        def parts(_: Trace) -> Sequence[Part]:
            return parts_of(model, self._batched)

        return Call(recorder.leaves, recorder.run, recorder.finish, parts)

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        model = watched(args[0])
        if not self._batched:
            return model(*args[1:], **kwargs)
        return eqx.filter_vmap(lambda args, kwargs: model(*args, **kwargs))(args[1:], kwargs)


def watched(node: Any, path: tuple[Any, ...] = ()) -> Any:
    """Copy a pytree, giving each module inside it a subclass of its own class that names what it returns."""
    children, tree = _children(node)
    if children is None:
        return node
    copy = jax.tree.unflatten(tree, [watched(child, (*path, *keys)) for keys, child in children])
    if not path or not isinstance(node, eqx.Module) or not callable(node):
        return copy
    placement = "pre_activation" if _is_affine(node) else "output"
    named = object.__new__(_watching(type(node), joined(path), placement))
    for name, attribute in vars(copy).items():
        object.__setattr__(named, name, attribute)
    return named


def _watching(cls: Any, path: str, placement: str) -> Any:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return mark(cls.__call__(self, *args, **kwargs), path, placement)

    return type(cls.__name__, (cls,), {"__call__": call, "__module__": cls.__module__})


def _children(node: Any) -> tuple[list[tuple[tuple[Any, ...], Any]] | None, Any]:
    """Return the children of a node of a pytree with their keys, or None for a leaf."""
    found, tree = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda child: child is not node)
    if len(found) == 1 and not found[0][0]:
        return None, tree
    return [(tuple(entry_name(entry) for entry in keys), child) for keys, child in found], tree


def _modules(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    children, _ = _children(node)
    if path and isinstance(node, eqx.Module):
        yield path, node
    if not (path and isinstance(node, _CLOSED)):
        for keys, child in children or []:
            yield from _modules(child, (*path, *keys))


def parts_of(model: Any, batched: bool) -> list[Part]:
    """List the layers inside a module."""
    found = list(_modules(model))
    held = Counter(id(array) for _, layer in found for array in _own_arrays(layer).values())
    return [_part(path, layer, batched, held) for path, layer in found]


def _part(path: tuple[Any, ...], layer: Any, batched: bool, held: Mapping[int, int]) -> Part:
    affine, refused = _is_affine(layer), _refusals(layer, held)
    return Part(
        path=joined(path),
        kind=type(layer).__name__,
        is_affine=affine,
        results=RESULT if affine else ("output",) if callable(layer) else (),
        parameters=_parameters(path, layer) if affine and not refused else {},
        refused=refused,
        axes=_axes(layer, batched),
        in_globs=affine or bool(refused),
        is_custom=not affine and "kernel" in refused and not isinstance(layer, _CLOSED),
    )


def _parameters(path: tuple[Any, ...], layer: Any) -> dict[str, Parameter]:
    """Describe weight (output, input, spatial) and bias (output, 1, ...); a `Shared` hole is no parameter."""
    parameters = {}
    axes = kernel_axes(layer.weight.ndim, output_first=True) if eqx.is_array(layer.weight) else None
    if axes is not None:
        parameters["kernel"] = Parameter(_reader(path, "weight"), axes)
    if axes is not None and eqx.is_array(layer.bias):
        spatial = axes.split()[2 : 1 + layer.bias.ndim]
        parameters["bias"] = Parameter(_reader(path, "bias"), " ".join(["output", *spatial]))
    return parameters


def _refusals(layer: Any, held: Mapping[int, int]) -> dict[str, str]:
    kind = type(layer).__name__
    if isinstance(layer, _CLOSED):
        reason = f"the kernels and gates of a {kind} have placements of their own, which this version does not serve."
        return {"pre_activation": reason, "kernel": reason, "bias": reason}
    own = _own_arrays(layer)
    if _is_affine(layer):
        if any(held[id(array)] > 1 for array in own.values()):
            reason = "another layer holds the same array, and Equinox unties the two at an update. Use eqx.nn.Shared."
            return {"kernel": reason, "bias": reason}
        return {}
    if isinstance(layer, _WITHOUT_KERNEL) or not any(name in own for name in KERNEL_NAMES):
        return {}
    reason = f"a {kind} is not a layer whose axes are known. Hold an eqx.nn.Linear inside it, or attach a function."
    return {"kernel": reason, "bias": reason}


def _own_arrays(layer: Any) -> dict[str, Any]:
    return {name: array for name, array in vars(layer).items() if eqx.is_array(array)}


def _is_affine(layer: Any) -> bool:
    owner = next((cls for cls in type(layer).__mro__ if "__call__" in vars(cls)), object)
    return isinstance(layer, _AFFINE) and owner.__module__.startswith("equinox.")


def _axes(layer: Any, batched: bool) -> str | None:
    if not isinstance(layer, eqx.nn.Conv | eqx.nn.ConvTranspose):
        return None
    spatial = {1: "width", 2: "height width", 3: "depth height width"}.get(layer.num_spatial_dims)
    return f"{'batch ' if batched else ''}feature {spatial}" if spatial else None


def _reader(path: tuple[Any, ...], name: str) -> Callable[..., Any]:
    def read(model: Any, *_: Any) -> Any:
        return getattr(dict(_modules(model))[path], name)

    return read
