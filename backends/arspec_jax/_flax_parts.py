"""The layers of a Flax model as parts: which placements each one has, NNX and Linen alike."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from arspec_jax._flax_kinds import (
    class_of,
    has_class,
    is_affine,
    is_bidirectional,
    is_cell,
    is_rnn,
    refusals,
    roles_of,
    step_placements,
)
from arspec_jax._function import role_parameters
from arspec_jax._parts import RESULT, Parameter, Part, without_weights
from arspec_jax._roles import Role

Array = Any


class Leaves(ABC):
    """The arrays of a layer, by their path in it with "/" between the parts."""

    @abstractmethod
    def own(self) -> Mapping[str, Any]:
        """Return those that the layer holds itself, by name."""

    @abstractmethod
    def shape(self, leaf: str) -> tuple[int, ...] | None:
        """Return the shape of an array, or None if there is none."""

    @abstractmethod
    def read(self, leaf: str) -> Array:
        """Return an array."""

    @abstractmethod
    def is_frozen(self, leaf: str) -> bool:
        """Return whether an array is known not to be trained."""

    @abstractmethod
    def identity(self, leaf: str) -> object:
        """Return the object that an array belongs to, the same for all layers that share it."""


Layers = Sequence[tuple[str, Any, Leaves]]


def flax_parts(layers: Layers) -> list[Part]:
    """Return a part for every layer that a rule can name, outer ones first.

    The cell of an RNN, its directions inside of a Bidirectional and the projections of an
    attention are no layers of their own: their weights belong to the layer around them.
    """
    parts: list[Part] = []
    inner: dict[str, str] = {}
    for path, module, leaves in layers:
        if any(path == hidden or path.startswith(hidden + "/") for hidden in _hidden(inner)):
            continue
        name = inner.get(path, path)
        if is_bidirectional(module):
            inner |= {f"{path}/{direction}_rnn": f"{path}/{direction}" for direction in ("forward", "backward")}
        if is_rnn(module):
            inner[f"{path}/cell"] = ""
            parts.append(recurrent_part(name, module, module.cell, _Under(leaves, "cell")))
        else:
            part = layer_part(name, module, leaves)
            inner |= {f"{path}/{child}": "" for child in children(module, leaves)}
            parts.append(part)
    return parts


def _hidden(inner: Mapping[str, str]) -> list[str]:
    return [path for path, name in inner.items() if not name]


def children(module: Any, leaves: Leaves) -> set[str]:
    """Return the names of the modules inside a layer whose weights are its own."""
    roles = roles_of(module, lambda leaf: leaves.shape(leaf) is not None)
    return {leaf.split("/")[0] for role in roles.values() for leaf in role.leaves if "/" in leaf}


class _Under(Leaves):
    """The arrays of a module inside another one."""

    def __init__(self, outer: Leaves, name: str) -> None:
        self._outer, self._name = outer, name

    def own(self) -> Mapping[str, Any]:
        return {}

    def shape(self, leaf: str) -> tuple[int, ...] | None:
        return self._outer.shape(f"{self._name}/{leaf}")

    def read(self, leaf: str) -> Array:
        return self._outer.read(f"{self._name}/{leaf}")

    def is_frozen(self, leaf: str) -> bool:
        return self._outer.is_frozen(f"{self._name}/{leaf}")

    def identity(self, leaf: str) -> object:
        return self._outer.identity(f"{self._name}/{leaf}")


def recurrent_part(path: str, rnn: Any, cell: Any, leaves: Leaves) -> Part:
    """Describe an RNN: the weights and the steps of its cell, its own input and output."""
    refused = dict(refusals(cell))
    if getattr(cell, "num_feature_axes", 1) != 1:
        reason = f"the axes of a {type(cell).__name__} have no names. Name its tensors by arspec_jax.site."
        refused |= dict.fromkeys(("input", "output"), reason)
    return Part(
        path=path,
        kind=f"{type(rnn).__name__}({type(cell).__name__})",
        results=("input", "output", *step_placements(cell)),
        parameters=_parameters(roles_of(cell, lambda leaf: leaves.shape(leaf) is not None), leaves),
        refused=refused,
    )


def layer_part(path: str, module: Any, leaves: Leaves, *, kind: str = "") -> Part:
    """Describe a layer of Flax or of a user; without a module there are only its weights."""
    affine, refused = is_affine(module), dict(refusals(module))
    parameters = _parameters(roles_of(module, lambda leaf: leaves.shape(leaf) is not None), leaves)
    is_known = bool(parameters or refused) or is_bidirectional(module)
    is_custom = False
    if not is_known:
        parameters, refused = role_parameters(leaves.own(), lambda name, axes: _named(name, axes, leaves))
        is_custom = not affine and "kernel" in parameters
    return Part(
        path=path,
        kind=kind or class_of(module).__name__,
        is_affine=affine,
        results=_results(module, affine),
        parameters=parameters,
        refused=refused,
        in_globs=affine or is_known or bool(parameters or refused),
        is_custom=is_custom,
    )


def _results(module: Any, affine: bool) -> tuple[str, ...]:
    if module is None or not callable(module):
        return ()
    given = () if has_class(module, ("Embed",)) else ("input",)  # tokens are whole numbers
    steps = step_placements(module) if is_cell(module) else ()
    return (*given, *(RESULT if affine else ("output",)), *steps)


def _parameters(roles: Mapping[str, Role], leaves: Leaves) -> dict[str, Parameter]:
    return {name: _parameter(role, leaves) for name, role in roles.items()}


def _parameter(role: Role, leaves: Leaves) -> Parameter:
    shapes = [leaves.shape(leaf) or () for leaf in role.leaves]
    return Parameter(
        read=lambda: role.form([leaves.read(leaf) for leaf in role.leaves]),
        axes=role.axes,
        identity=leaves.identity(role.leaves[0]),
        stacked=max(len(shape) - role.rank for shape in shapes),
        is_frozen=all(leaves.is_frozen(leaf) for leaf in role.leaves),
    )


def with_reasons(parts: Sequence[Part], reasons: Mapping[str, str]) -> list[Part]:
    """Refuse the weights of the layers for which there is a reason."""
    return [without_weights(part, reasons[part.path]) if part.path in reasons else part for part in parts]


def _named(name: str, axes: str, leaves: Leaves) -> Parameter:
    return Parameter(lambda: leaves.read(name), axes, leaves.identity(name), is_frozen=leaves.is_frozen(name))
