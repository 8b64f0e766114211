"""What an adapter knows about one layer of a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from arspec import Layer

Array = Any

RESULT = ("pre_activation", "output")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a layer.

    Attributes
    ----------
    read : gives it.
    axes : names of its axes.
    identity : the object that it is, where layers may share it.
    stacked : how many more axes it has than such a layer has: one for a layer inside a scan
        over layers. It is then read where the layer runs.
    is_frozen : whether training leaves it alone.
    """

    read: Callable[[], Array]
    axes: str
    identity: object = None
    stacked: int = 0
    is_frozen: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """A layer as the forward pass uses it.

    Attributes
    ----------
    path, kind : as in `arspec.Layer`.
    is_affine : whether its result is a pre-activation, whose output is to be found.
    results : placements of activations that it serves.
    parameters : by placement.
    refused : reasons, by placement.
    axes : names of the axes of its input and its result, or None for the default names.
    in_globs : as in `arspec.Layer`.
    is_custom : whether it is a user's layer with a kernel: what follows it may or may not be
        its activation function.
    mapped : over how many axes the adapter itself maps the layer by vmap: the batch.
    is_unnamed : whether the framework has no order of axes of its own, so that those of a
        tensor of more than one axis, but for the batch, have no names.
    """

    path: str
    kind: str
    is_affine: bool = False
    results: tuple[str, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    axes: str | None = None
    in_globs: bool = True
    is_custom: bool = False
    mapped: int = 0
    is_unnamed: bool = False

    def layer(self) -> Layer:
        """Describe the layer to `match_sites`."""
        names = {placement: f"{self.kind}.{placement}" for placement in (*self.results, *self.parameters)}
        names |= {"input": f"{self.kind}(input)", "pre_activation": f"{self.kind}()", "output": f"{self.kind}()"}
        if self.is_affine:
            names["output"] = f"activation({self.kind}())"
        offered = [*self.results, *self.parameters]
        placements = {placement: names[placement] for placement in offered if placement not in self.refused}
        return Layer(self.path, self.kind, placements, self.refused, self.in_globs)


def without_weights(part: Part, reason: str) -> Part:
    """Return a part whose weights are refused."""
    refused = {**part.refused, **dict.fromkeys(part.parameters, reason)}
    return replace(part, parameters={}, refused=refused)


def joined(path: tuple[Any, ...]) -> str:
    """Write a path with "/" between its parts."""
    return "/".join(str(part) for part in path)


def entry_name(entry: Any) -> Any:
    """Return the key, index or attribute that an entry of a pytree's path stands for."""
    return next(getattr(entry, name) for name in ("key", "idx", "name") if hasattr(entry, name))
