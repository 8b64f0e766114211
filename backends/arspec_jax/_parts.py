"""What an adapter knows about one layer of a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from arspec import Layer

Array = Any

RESULT = ("pre_activation", "output")
_SPATIAL = {1: "width", 2: "height width", 3: "depth height width"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a layer: how to read it from the arguments of a call, and its axes."""

    read: Callable[..., Array]
    axes: str
    identity: object = None


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
    axes : names of the axes of its result, or None for the default names.
    in_globs : as in `arspec.Layer`.
    is_custom : whether it is a user's layer with a kernel: what follows it may or may not be
        its activation function.
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

    def layer(self) -> Layer:
        """Describe the layer to `match_sites`."""
        names = {"pre_activation": f"{self.kind}()", "output": f"{self.kind}()"}
        if self.is_affine:
            names["output"] = f"activation({self.kind}())"
        placements = {placement: names[placement] for placement in self.results}
        placements |= {placement: f"{self.kind}.{placement}" for placement in self.parameters}
        return Layer(self.path, self.kind, placements, self.refused, self.in_globs)


def kernel_axes(rank: int, *, output_first: bool) -> str | None:
    """Name the axes of a dense (rank 2) or convolution kernel; None for another rank.

    Flax keeps (spatial, input, output), Equinox (output, input, spatial).
    """
    if rank == 2:
        return "output input" if output_first else "input output"
    if rank - 2 not in _SPATIAL:
        return None
    spatial = _SPATIAL[rank - 2]
    return f"output input {spatial}" if output_first else f"{spatial} input output"


def joined(path: tuple[Any, ...]) -> str:
    """Write a path with "/" between its parts."""
    return "/".join(str(part) for part in path)


def entry_name(entry: Any) -> Any:
    """Return the key, index or attribute that an entry of a pytree's path stands for."""
    return next(getattr(entry, name) for name in ("key", "idx", "name") if hasattr(entry, name))
