"""Planted faults: what goes wrong in ports made by hand, made on purpose, to see that it is noticed.

Each fault changes the graph, the rules or the map of a bundle, as a person or a converter
would; a target written from it has to fail the certificate. A certificate that misses one
is blind, and says so.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from arspec._spec import Spec
from arspec.port import _kinds as kinds
from arspec.port._bundle import Bundle
from arspec.port._certificate import first_difference
from arspec.port._graph import Graph, Node, Shape
from arspec.port._mapping import Entry
from arspec.port._probe import Arrays, Subject, perturbed
from arspec.port._source import Written, same_padding

Edit = Callable[[Written], Written]
Wrap = Callable[[Subject], Subject]
Shapes = tuple[Shape, ...]
Make = Callable[[Bundle, Edit], Subject]


def _same_written(written: Written) -> Written:
    return written


def _same_subject(subject: Subject) -> Subject:
    return subject


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: what it is, in which layer, and what it changes."""

    name: str
    layer: str
    bundle: Bundle
    edit: Edit = _same_written
    wrap: Wrap = _same_subject


def plant(
    bundle: Bundle,
    make: Make,
    base: Subject,
    *,
    more: Iterable[Fault] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, str]:
    """Plant every fault that fits a bundle, and return how each was noticed ("" if it was not).

    Parameters
    ----------
    make : writes a target from a bundle, applies an edit to it, builds it and returns its
        `Subject`.
    base : the target without a fault, for those that change nothing in it.
    more : faults that only this framework can have.
    progress : is told what runs.
    """
    found = {}
    for fault in (*faults(bundle), *more):
        progress(f"fault: {fault.name}")
        unchanged = fault.bundle is bundle and fault.edit is _same_written
        subject = fault.wrap(base if unchanged else make(fault.bundle, fault.edit))
        found[f"{fault.name} ({fault.layer})"] = first_difference(bundle, subject)
    return found


def faults(bundle: Bundle) -> Iterator[Fault]:
    """Yield the faults that this model can have, each in the first layer where it can be."""
    yield from _in_the_map(bundle)
    yield from _in_the_graph(bundle)
    yield from _in_the_rules(bundle)
    yield from _in_the_optimizer(bundle)


def _in_the_map(bundle: Bundle) -> Iterator[Fault]:
    for path, node in bundle.graph.walk():
        kind = node.layer.layer if isinstance(node.layer, kinds.Bidirectional) else node.layer
        if isinstance(kind, kinds.LSTM):
            yield Fault("gates c and o swapped", path, bundle, _mapped(path, _swap_gates))
            break
    for path, node in bundle.graph.walk():
        shape = bundle.shapes.get(f"{path}/kernel", ())
        if isinstance(node.layer, kinds.Dense) and len(set(shape)) == 1 and shape[0] > 1:
            yield Fault("square kernel transposed", path, bundle, _mapped(path, _transpose))
            break


def _mapped(path: str, change: Callable[[Entry], Entry]) -> Edit:
    def edit(written: Written) -> Written:
        entries = tuple(change(e) if e.source.startswith(path + "/") else e for e in written.weights.entries)
        return replace(written, weights=replace(written.weights, entries=entries))

    return edit


def _swap_gates(entry: Entry) -> Entry:
    return replace(entry, steps=(("order", (0, 1, 3, 2)), *entry.steps))


def _transpose(entry: Entry) -> Entry:
    return replace(entry, steps=(("transpose", (1, 0)), *entry.steps)) if entry.source.endswith("/kernel") else entry


def _in_the_graph(bundle: Bundle) -> Iterator[Fault]:
    changes: Mapping[str, Callable[[Node, Shapes], list[Node] | None]] = {
        "padding on the wrong side": _swapped_padding,
        "epsilon of another framework": _other_epsilon,
        "momentum not inverted": _other_momentum,
        "GELU approximated by tanh": _approximate_gelu,
    }
    given = dict(_given(bundle.graph, ""))
    for name, change in changes.items():
        for path, node in bundle.graph.walk():
            changed = change(node, given.get(path, ())) if node.call == 0 else None
            if changed is not None:
                yield Fault(name, path, replace(bundle, graph=_with(bundle.graph, path, changed)))
                break


def _given(graph: Graph, prefix: str) -> Iterator[tuple[str, Shapes]]:
    """Return the shapes of the inputs of every node, by path."""
    shapes: dict[str, Shape] = {one.name: one.shape for one in graph.inputs}
    for node in graph.nodes:
        read = tuple(shapes[each] for each in node.inputs if isinstance(each, str))
        yield prefix + node.name, read
        for index, shape in enumerate(node.shapes):
            shapes[node.id if index == 0 else f"{node.id}:{index}"] = shape
        if isinstance(node.layer, Graph):
            yield from _given(node.layer, f"{prefix}{node.name}/")


def _swapped_padding(node: Node, given: Shapes) -> list[Node] | None:
    """Put the odd row of an uneven padding at the beginning."""
    kind = node.layer
    if isinstance(kind, kinds.ZeroPadding) and any(a != b for a, b in kind.padding):
        return [replace(node, layer=kinds.ZeroPadding(tuple((b, a) for a, b in kind.padding)))]
    if not isinstance(kind, kinds.Convolution) or kind.padding != "same":
        return None
    axes = list(zip(given[0][:-1], kind.kernel_size, kind.strides, kind.dilation, strict=True))
    pads = [pair for pair in (same_padding(*axis) for axis in axes) if pair is not None]
    if len(pads) < len(axes) or all(before == after for before, after in pads):
        return None
    sizes = tuple(None if n is None else n + a + b for (n, *_), (a, b) in zip(axes, pads, strict=True))
    name = f"{node.name}_wrong_side"
    padding = kinds.ZeroPadding(tuple((after, before) for before, after in pads))
    first = Node(name, padding, node.inputs, ((*sizes, given[0][-1]),))
    return [first, replace(node, layer=replace(kind, padding="valid"), inputs=(name,))]


def _other_epsilon(node: Node, given: Shapes) -> list[Node] | None:
    if isinstance(node.layer, kinds.BatchNormalization | kinds.LayerNormalization):
        return [replace(node, layer=replace(node.layer, epsilon=1e-3 if node.layer.epsilon < 5e-4 else 1e-5))]
    return None


def _other_momentum(node: Node, given: Shapes) -> list[Node] | None:
    if isinstance(node.layer, kinds.BatchNormalization) and node.layer.momentum != 0.5:
        return [replace(node, layer=replace(node.layer, momentum=1 - node.layer.momentum))]
    return None


def _approximate_gelu(node: Node, given: Shapes) -> list[Node] | None:
    for name in ("activation", "function"):
        if getattr(node.layer, name, None) == kinds.Function("gelu"):
            layer: Any = node.layer
            return [replace(node, layer=replace(layer, **{name: kinds.Function("gelu_tanh")}))]
    return None


def _with(graph: Graph, path: str, nodes: Sequence[Node]) -> Graph:
    """Return a graph in which the node at a path is replaced."""
    found: list[Node] = []
    for node in graph.nodes:
        if node.name == path and node.call == 0:
            found += nodes
        elif isinstance(node.layer, Graph) and path.startswith(node.name + "/") and node.call == 0:
            inner = _with(node.layer, path.removeprefix(node.name + "/"), nodes)
            found.append(replace(node, layer=inner))
        else:
            found.append(node)
    return replace(graph, nodes=tuple(found))


def _in_the_rules(bundle: Bundle) -> Iterator[Fault]:
    if bundle.sites:
        site = bundle.sites[0]
        rule = bundle.spec.rules[site.rule]
        yield Fault("coefficient twice as large", site.layer, _with_rule(bundle, site.rule, penalty=2.0 * rule.penalty))
    for site in bundle.sites:
        if bundle.spec.rules[site.rule].mean_over == ("batch",):
            name = "activity summed over the batch"
            yield Fault(name, site.layer, _with_rule(bundle, site.rule, mean_over=()))
            break
    nodes = dict(bundle.graph.walk())
    for site in bundle.sites:
        kind = nodes[site.layer].layer if site.layer in nodes else None  # a direction of a Bidirectional is no node
        function = None if isinstance(kind, kinds.Recurrent) else getattr(kind, "activation", None)
        if site.placement == "output" and isinstance(function, kinds.Function) and function.name != "linear":
            sites = tuple(replace(s, placement="pre_activation") if s is site else s for s in bundle.sites)
            yield Fault("activity before the activation function", site.layer, replace(bundle, sites=sites))
            break


def _with_rule(bundle: Bundle, index: int, **changes: Any) -> Bundle:
    rules = [replace(r, **changes) if i == index else r for i, r in enumerate(bundle.spec.rules)]
    return replace(bundle, spec=Spec(rules))


def _in_the_optimizer(bundle: Bundle) -> Iterator[Fault]:
    weights = perturbed(bundle.weights)
    trainable = [site for site in bundle.sites if f"{site.layer}/{site.placement}" in weights]
    if trainable:
        layer = trainable[0].layer
        for name, factor in (("penalty as decoupled weight decay", 1e-3), ("penalty as decay of all weights", 2e-3)):
            yield Fault(name, layer, bundle, wrap=lambda subject, f=factor: _Decaying(subject, weights, f))


class _Decaying:
    """A subject whose optimizer decays every weight instead of adding the penalties to the loss."""

    def __init__(self, subject: Subject, weights: Mapping[str, np.ndarray], decay: float) -> None:
        self._subject, self._weights, self._decay = subject, weights, decay

    def outputs(self, inputs: Sequence[np.ndarray], *, training: bool) -> list[np.ndarray]:
        """Return what the subject gives."""
        return self._subject.outputs(inputs, training=training)

    def trace(self, inputs: Sequence[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Return what the subject gives."""
        return self._subject.trace(inputs)

    def penalties(self, inputs: Sequence[np.ndarray], *, training: bool) -> dict[str, float]:
        """Return what the subject gives."""
        return self._subject.penalties(inputs, training=training)

    def gradients(self, inputs: Sequence[np.ndarray], cotangents: Sequence[np.ndarray] | None) -> Arrays:
        """Return what the subject gives."""
        return self._subject.gradients(inputs, cotangents)

    def step(self, inputs: Sequence[np.ndarray], cotangents: Sequence[np.ndarray], rate: float) -> Arrays:
        """Return every weight after a step of an optimizer that decays."""
        after = self._subject.step(inputs, cotangents, rate)
        data = self._subject.gradients(inputs, cotangents)
        return after | {
            name: self._weights[name] - rate * (gradient + self._decay * self._weights[name])
            for name, gradient in data.items()
        }
