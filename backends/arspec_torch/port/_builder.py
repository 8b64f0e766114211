"""Builder: collects the nodes of a graph, and where their weights are, from tensors of torch.

torch's tensors have their axes in any order; those of a graph are channels last. A `Seen`
says which is which, so that a permutation in torch costs nothing until a layer, or a change
of shape, needs its axes in an order of its own.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from arspec import UnsupportedError
from arspec.port._graph import Node, Reference
from arspec.port._kinds import Kind, Permute, Reshape, ZeroPadding
from arspec.port._mapping import Block, Entry, Step
from arspec_torch.port._fx import Sizes, Trace, described

Axes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """A tensor of torch: the result of a node, its canonical sizes without the batch, and the order of its axes.

    Axis i of torch is the canonical axis axes[i]; the batch is the canonical axis 0.
    """

    reference: str
    sizes: tuple[int, ...]
    axes: Axes

    @property
    def rank(self) -> int:
        """How many axes it has, with the batch."""
        return len(self.axes)


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight of a layer: its role, the tensor that holds it, its canonical shape, and how it gets there."""

    role: str
    tensor: str
    shape: tuple[int, ...]
    steps: tuple[Step, ...] = ()
    put: Block = ()
    take: Block = ()


def order(rank: int, *, batch: int = 0, feature: int = -1) -> Axes:
    """Return axes with the batch and the features at these places, the others in their order."""
    feature %= rank
    between = iter(range(1, rank))
    found = {batch: 0, feature: rank - 1}
    return tuple(found[i] if i in found else next(between) for i in range(rank))


def first(rank: int) -> Axes:
    """Return the axes (batch, channel, spatial...)."""
    return order(rank, feature=1)


def last(rank: int) -> Axes:
    """Return the axes as they are in a graph."""
    return tuple(range(rank))


@dataclass(slots=True)
class Builder:
    """What is known of a graph while its nodes are read in order.

    Attributes
    ----------
    values : by node of torch.fx, the tensor or the plain value it gives.
    heads : layer -> the node in front of it that sees the layer's own input, where there is one.
    modules : layer -> dotted path of the module that gives just its result.
    axes : of every result, by reference.
    """

    trace: Trace
    nodes: list[Node] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    derived: dict[str, float] = field(default_factory=dict)
    values: dict[fx.Node, Any] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    axes: dict[str, Axes] = field(default_factory=dict)
    taken: Counter[str] = field(default_factory=Counter)

    def emit(
        self,
        name: str,
        kind: Kind,
        inputs: Sequence[Any],
        sizes: tuple[int, ...],
        axes: Axes,
        weights: Sequence[Weight] = (),
        module: str = "",
        more: Sequence[tuple[int, ...]] = (),
    ) -> Seen:
        """Add a node.

        Parameters
        ----------
        inputs : each a `Seen` or a number.
        sizes, axes : of the result.
        module : dotted path of the module that gives just this, where there is one.
        more : sizes of the results behind the first.
        """
        call = self.taken[name]
        self.taken[name] += 1
        references: tuple[Reference, ...] = tuple(x.reference if isinstance(x, Seen) else float(x) for x in inputs)
        frozen = tuple(w.role for w in weights if w.role in kind.roles() and self._is_frozen(kind, w))
        node = Node(name, kind, references, (sizes, *more), call, frozen)
        self.nodes.append(node)
        if call == 0:
            for weight in weights:
                self.entries.append(
                    Entry(f"{name}/{weight.role}", weight.tensor, weight.steps, weight.take, weight.put)
                )
                self.shapes[f"{name}/{weight.role}"] = weight.shape
            if module:
                self.modules[name] = module
        self.axes[node.id] = axes
        return Seen(node.id, sizes, axes)

    def fresh(self, name: str) -> str:
        """Return a name that no layer and no module of the model has."""
        paths = {path.replace(".", "/") for path, _ in self.trace.model.named_modules()}
        found, number = name, 2
        while self.taken[found] or found in paths or found in self.trace.names:
            found, number = f"{name}_{number}", number + 1
        return found

    def operand(self, given: Any) -> Any:
        """Return the tensor an argument is, or its number."""
        if isinstance(given, fx.Node) and self.trace.is_tensor(given):
            return self.values[given]
        return self.trace.static(given)

    def arrange(self, x: Seen, axes: Axes, name: str) -> Seen:
        """Return a tensor whose axes have another order in the graph, through a node where it takes one."""
        if x.axes == axes:
            return x
        if x.axes.index(0) != axes.index(0):
            raise UnsupportedError(
                f"{name!r}: axis {x.axes.index(0)} of what it is given is the batch; expected axis {axes.index(0)}."
            )
        moved = tuple(x.axes[axes.index(position)] for position in range(1, x.rank))
        sizes = tuple(x.sizes[axis - 1] for axis in moved)
        large = [axis for axis in moved if x.sizes[axis - 1] != 1]
        kind = Reshape(sizes) if large == sorted(large) else Permute(moved)
        if sizes == x.sizes and large == sorted(large):
            return Seen(x.reference, sizes, axes)
        return self.emit(self.fresh(f"{name}_axes"), kind, [x], sizes, axes)

    def feature_at(self, x: Seen, axis: int, name: str) -> Seen:
        """Return a tensor whose last axis in the graph is this axis of torch."""
        axis %= x.rank
        if x.axes[axis] == x.rank - 1:
            return x
        return self.arrange(x, order(x.rank, batch=x.axes.index(0), feature=axis), name)

    def sizes(self, node: fx.Node, axes: Axes) -> tuple[int, ...]:
        """Return the canonical sizes of what a call gives, in this order of axes."""
        return canonical(self.trace.sizes(node), axes, node)

    def padded(self, x: Seen, pads: Sequence[tuple[int, int]], name: str, *, head: bool = True) -> Seen:
        """Return a tensor with zeros around its spatial axes, channels first in torch."""
        if not any(map(any, pads)):
            return x
        spatial = zip(x.sizes[:-1], pads, strict=True)
        sizes = (*(size + before + after for size, (before, after) in spatial), x.sizes[-1])
        padding = f"{name}_pad" if self.taken[f"{name}_pad"] == self.taken[name] else self.fresh(f"{name}_pad")
        if head:
            self.heads[name] = padding
        return self.emit(padding, ZeroPadding(tuple((int(a), int(b)) for a, b in pads)), [x], sizes, x.axes)

    def _is_frozen(self, kind: Kind, weight: Weight) -> bool:
        parameters: Mapping[str, nn.Parameter] = dict(self.trace.model.named_parameters(remove_duplicate=False))
        held = parameters.get(weight.tensor)
        return weight.role not in kind.state and (held is None or not held.requires_grad)


def canonical(sizes: Sizes, axes: Axes, node: fx.Node | None = None) -> tuple[int, ...]:
    """Put sizes in torch's order into the canonical one, and leave the batch out.

    Raises
    ------
    UnsupportedError: the batch is not where `axes` says.
    """
    found = dict(zip(axes, sizes, strict=True))
    if found.pop(0) is not None:
        what = f"{node.name!r} ({described(node)})" if node is not None else "a call"
        raise UnsupportedError(
            f"{what} gives a tensor whose batch is axis {sizes.index(None)}; expected axis {axes.index(0)}."
        )
    return tuple(int(found[axis] or 0) for axis in range(1, len(sizes)))
