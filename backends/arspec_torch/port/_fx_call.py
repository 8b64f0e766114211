"""One call of a module while a graph is read, and what the readers of modules share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from arspec.port import _kinds as kinds
from arspec.port._kinds import Kind, refuse
from arspec.port._mapping import Step
from arspec_torch.port._builder import Builder, Seen, Weight, first, last


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a module: what it is, where it stands, and the node that calls it."""

    builder: Builder
    module: Any
    path: str
    node: fx.Node

    @property
    def name(self) -> str:
        """Return the name of the layer in the graph."""
        return self.path.replace(".", "/")

    def refuse(self, what: str, cure: str) -> Exception:
        """Return the error for what cannot be ported."""
        return refuse(self.name, what, cure)

    def weights(self, **found: tuple[str, tuple[int, ...], tuple[Step, ...]]) -> list[Weight]:
        """Return weights from attribute, canonical shape and steps by role, without those that are None."""
        return [
            Weight(role, f"{self.path}.{attribute}", shape, steps)
            for role, (attribute, shape, steps) in found.items()
            if getattr(self.module, attribute) is not None
        ]

    def give(self, kind: Kind, x: Seen, axes: tuple[int, ...], weights: Sequence[Weight] = ()) -> Seen:
        """Add the node of the module."""
        sizes = self.builder.sizes(self.node, axes)
        return self.builder.emit(self.name, kind, [x], sizes, axes, weights, self.path)


def same_axes(call: Call, kind: Kind, x: Seen, weights: Sequence[Weight] = ()) -> Seen:
    """Add a node whose result has the sizes and axes of what it is given."""
    return call.builder.emit(call.name, kind, [x], x.sizes, x.axes, weights, call.path)


def batched(call: Call, x: Seen, rank: int) -> Seen:
    """Return a tensor of this many axes, channels first in torch."""
    if x.rank != rank:
        raise call.refuse(f"an input of {x.rank} axes", f"Give it {rank}, the batch first.")
    return call.builder.arrange(x, first(rank), call.name)


def reshaped(b: Builder, x: Seen, node: fx.Node, name: str) -> Seen:
    """Add a change of shape: the axes in torch's order, the last one fastest."""
    sizes = b.sizes(node, last(len(b.trace.sizes(node))))
    if math.prod(sizes) != math.prod(x.sizes):
        raise refuse(name, f"a change of shape from {x.sizes} to {sizes}, batch apart", "Keep the batch apart.")
    x = b.arrange(x, last(x.rank), name)
    if sizes == x.sizes:
        return Seen(x.reference, sizes, last(len(sizes) + 1))
    kind: Kind = kinds.Flatten() if len(sizes) == 1 else kinds.Reshape(sizes)
    return b.emit(name, kind, [x], sizes, last(len(sizes) + 1))
