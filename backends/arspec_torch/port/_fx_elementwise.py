"""Reading calls of elementwise functions, softmax and concatenation in `forward`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx

from arspec.port import _kinds as kinds
from arspec.port._kinds import Function, Kind, refuse
from arspec_torch.port._builder import Builder, Seen


@dataclass(frozen=True, slots=True)
class Use:
    """One call of a function or method."""

    builder: Builder
    node: fx.Node
    name: str

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument: a tensor as it was seen, or a plain value."""
        args, options = self.node.args, self.node.kwargs
        given = args[position] if len(args) > position else options.get(name, default)
        return self.builder.operand(given)

    @property
    def tensor(self) -> Seen:
        """Return the tensor it is called with."""
        found = self.get(0, "input")
        if not isinstance(found, Seen):
            raise refuse(self.name, f"{found!r} as a tensor", "Give it the result of a layer.")
        return found

    def allow(self, **options: Any) -> None:
        """Raise unless every keyword argument left is one of these with its value there."""
        for name, value in self.node.kwargs.items():
            if name in options and self.builder.trace.static(value) != options[name]:
                raise refuse(self.name, f"{name}={value!r}", f"Use {name}={options[name]!r}.")

    def same(self, kind: Kind, x: Seen) -> Seen:
        """Add a node whose result is like what it is given."""
        return self.builder.emit(self.name, kind, [x], x.sizes, x.axes)


def plain(function: str) -> Callable[[Use], Seen]:
    """Return a reader of an activation function without a parameter."""
    return lambda use: use.same(kinds.Activation(Function(function)), use.tensor)


def with_parameter(function: str, name: str, default: float) -> Callable[[Use], Seen]:
    """Return a reader of an activation function with one."""

    def read(use: Use) -> Seen:
        return use.same(kinds.Activation(Function(function, float(use.get(1, name, default)))), use.tensor)

    return read


def gelu(use: Use) -> Seen:
    """Add GELU, exact or approximated by tanh."""
    mode = use.get(1, "approximate", "none")
    return use.same(kinds.Activation(Function("gelu" if mode == "none" else "gelu_tanh")), use.tensor)


def softplus(use: Use) -> Seen:
    """Add softplus."""
    if use.get(1, "beta", 1.0) != 1.0 or use.get(2, "threshold", 20.0) < 20.0:
        raise refuse(use.name, "a softplus with beta or a low threshold", "Leave them out.")
    return use.same(kinds.Activation(Function("softplus")), use.tensor)


def softmax(function: str) -> Callable[[Use], Seen]:
    """Return a reader of a softmax, or its logarithm, along an axis."""

    def read(use: Use) -> Seen:
        axis = use.get(1, "dim")
        if axis is None or use.get(9, "dtype") is not None:
            raise refuse(use.name, "a softmax without dim, or with dtype", "Say dim=..., and leave dtype out.")
        x = use.builder.feature_at(use.tensor, axis, use.name)
        return use.same(kinds.Activation(Function(function)), x)

    return read


def merge(operation: str) -> Callable[[Use], Seen]:
    """Return a reader of an operation on two tensors, or a tensor and a number."""

    def read(use: Use) -> Seen:
        use.allow(alpha=1, rounding_mode=None)
        return merged(use, operation, [use.get(0, "input"), use.get(1, "other")])

    return read


def merged(use: Use, operation: str, parts: list[Any]) -> Seen:
    """Add an elementwise operation of tensors and numbers."""
    tensors = [part for part in parts if isinstance(part, Seen)]
    if not tensors or any(not isinstance(part, Seen | int | float) or isinstance(part, bool) for part in parts):
        raise refuse(use.name, f"{operation} of {parts}", "Use tensors that layers give, and numbers.")
    if len({x.rank for x in tensors}) > 1:
        raise refuse(use.name, "tensors of different rank that are broadcast", "Reshape them to the same rank.")
    b, largest = use.builder, max(tensors, key=lambda x: sum(size > 1 for size in x.sizes))
    arranged = [b.arrange(part, largest.axes, use.name) if isinstance(part, Seen) else part for part in parts]
    names_layer = all(isinstance(part, Seen) for part in parts)
    kind = kinds.Merge(operation, names_layer=names_layer)
    return b.emit(use.name, kind, arranged, b.sizes(use.node, largest.axes), largest.axes)


def negative(use: Use) -> Seen:
    """Add −x."""
    return merged(use, "multiply", [use.tensor, -1.0])


def concatenate(use: Use) -> Seen:
    """Add a concatenation."""
    parts, axis = use.node.args[0] if use.node.args else use.node.kwargs["tensors"], use.get(1, "dim", 0)
    seen = [use.builder.operand(part) for part in (parts if isinstance(parts, list | tuple) else [parts])]
    if not all(isinstance(x, Seen) for x in seen):
        raise refuse(use.name, "a concatenation of what no layer gives", "Use results of layers.")
    axes = seen[0].axes
    arranged = [use.builder.arrange(x, axes, use.name) for x in seen]
    along = axes[axis % len(axes)]
    if along == 0:
        raise refuse(use.name, "a concatenation along the batch", "Concatenate along another axis.")
    sizes = use.builder.sizes(use.node, axes)
    return use.builder.emit(use.name, kinds.Concatenate(along), arranged, sizes, axes)
