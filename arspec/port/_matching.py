"""Which layer of an existing model is which layer of a bundle: proposed, shown, never guessed.

Layers with weights are compared by what they are, by the shapes of their weights, and by
what comes before and after them; names decide between those that are alike in all of this.
What is left ambiguous is an error that lists the candidates.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from arspec._errors import SpecError, unknown
from arspec._table import aligned
from arspec.port._graph import Graph, Node, split_reference
from arspec.port._kinds import Kind

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Pair:
    """A layer of the source, the layer of the target that is it, and why: "given", "topology" or "name"."""

    source: str
    target: str
    why: str
    shapes: tuple[tuple[int, ...], ...]


class Matching(tuple[Pair, ...]):
    """Every pair, in the order of the source; prints as a table."""

    def __repr__(self) -> str:
        rows = [("source", "target", "why", "weights")]
        rows += [(p.source, p.target, p.why, ", ".join("×".join(map(str, s)) for s in p.shapes)) for p in self]
        return aligned(rows)


def match(
    source: Graph, target: Graph, source_shapes: Shapes, target_shapes: Shapes, given: Mapping[str, str]
) -> Matching:
    """Pair the layers with weights of two graphs, one to one.

    Parameters
    ----------
    source_shapes, target_shapes : of the weights, by "layer/role".
    given : source layer -> target layer, for those that the caller knows.

    Raises
    ------
    SpecError: a layer has no counterpart, or several that nothing tells apart; a given name
        is unknown, or its weights have other shapes.
    """
    left, right = _Side(source, source_shapes), _Side(target, target_shapes)
    found: dict[str, tuple[str, str]] = {}
    for one, other in given.items():
        if one not in left.kinds:
            raise unknown("layer of the source", one, left.kinds)
        if other not in right.kinds:
            raise unknown("layer of the target", other, right.kinds)
        if left.kinds[one] != right.kinds[other]:
            raise SpecError(f"{one!r} is {_shown(left.kinds[one])}, and {other!r} is {_shown(right.kinds[other])}.")
        found[one] = (other, "given")
    for alike, others in _classes(left, right, found):
        found |= _paired(alike, others)
    lost = [layer for layer in right.kinds if layer not in {other for other, _ in found.values()}]
    if lost:
        raise SpecError(f"{', '.join(map(repr, lost[:6]))}: in the target, and like no layer of the source.")
    return Matching(
        Pair(layer, *found[layer], tuple(shape for _, shape in left.kinds[layer][1])) for layer in left.kinds
    )


Kinds = tuple[str, tuple[tuple[str, tuple[int, ...]], ...]]


class _Side:
    """The layers with weights of a graph, and which of them come next to which."""

    def __init__(self, graph: Graph, shapes: Shapes) -> None:
        self.kinds: dict[str, Kinds] = {}
        self.before: dict[str, list[str]] = {}
        self._shapes = shapes
        self._walk(graph, "", [[f"input {index}"] for index in range(len(graph.inputs))])
        self.after: dict[str, list[str]] = defaultdict(list)
        for layer, nearest in self.before.items():
            for other in nearest:
                self.after[other].append(layer)

    def _walk(self, graph: Graph, prefix: str, given: Sequence[list[str]]) -> list[list[str]]:
        """Return, for each output, the nearest layers with weights before it."""
        nearest: dict[str, list[str]] = dict(zip((one.name for one in graph.inputs), given, strict=True))
        for node in graph.nodes:
            read = [nearest[split_reference(each)[0]] for each in node.inputs if isinstance(each, str)]
            if isinstance(node.layer, Graph):
                results = self._walk(node.layer, f"{prefix}{node.name}/", read)
                nearest[node.id] = [layer for result in results for layer in result]
                continue
            before = [layer for each in read for layer in each]
            nearest[node.id] = before if not node.layer.roles() else [self._add(node, node.layer, prefix, before)]
        return [nearest[split_reference(each)[0]] for each in graph.outputs]

    def _add(self, node: Node, kind: Kind, prefix: str, before: Iterable[str]) -> str:
        path = prefix + node.name
        roles = kind.roles()
        self.kinds[path] = type(kind).__name__, tuple((role, tuple(self._shapes[f"{path}/{role}"])) for role in roles)
        self.before.setdefault(path, []).extend(before)
        return path


def _classes(left: _Side, right: _Side, found: Mapping[str, tuple[str, str]]) -> list[tuple[list[str], list[str]]]:
    """Return the layers that nothing but their names tells apart, of either side.

    A layer is told by its kind and shapes and, round by round, by those of its neighbours.
    """
    given = {side: {path: str(i) for i, path in enumerate(paths)} for side, paths in _given(left, right, found)}
    colours = {side: {path: (side.kinds[path], given[side].get(path)) for path in side.kinds} for side in (left, right)}
    for _ in range(max(len(left.kinds), len(right.kinds))):
        before = [len(set(map(repr, colours[side].values()))) for side in (left, right)]
        numbers: dict[str, int] = {}
        colours = {side: _finer(side, colours[side], numbers) for side in (left, right)}
        if [len(set(colours[side].values())) for side in (left, right)] == before:
            break
    groups: dict[object, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for position, side in enumerate((left, right)):
        for path in side.kinds:
            if path not in given[side]:
                groups[colours[side][path]][position].append(path)
    return list(groups.values())


def _given(left: _Side, right: _Side, found: Mapping[str, tuple[str, str]]) -> list[tuple[_Side, list[str]]]:
    return [(left, list(found)), (right, [other for other, _ in found.values()])]


def _finer(side: _Side, colours: Mapping[str, object], numbers: dict[str, int]) -> dict[str, int]:
    """Give each layer a number that stands for its colour and those of its neighbours."""

    def around(paths: Iterable[str]) -> list[str]:
        return sorted(repr(colours.get(path, path)) for path in paths)

    keys = {
        path: repr((colours[path], around(side.before[path]), around(side.after.get(path, ())))) for path in side.kinds
    }
    return {path: numbers.setdefault(key, len(numbers)) for path, key in keys.items()}


def _paired(alike: list[str], others: list[str]) -> dict[str, tuple[str, str]]:
    if len(alike) == len(others) == 1:
        return {alike[0]: (others[0], "topology")}
    by_name: dict[str, list[str]] = defaultdict(list)
    for other in others:
        by_name[_plain(other)].append(other)
    found = {}
    for layer in alike:
        candidates = by_name[_plain(layer)]
        if len(candidates) != 1 or len(alike) != len(others):
            raise _ambiguous(layer, others)
        found[layer] = (candidates[0], "name")
    if len({other for other, _ in found.values()}) != len(alike):
        raise _ambiguous(alike[0], others)
    return found


def _ambiguous(layer: str, others: list[str]) -> SpecError:
    if not others:
        return SpecError(f"{layer!r} has no counterpart: no layer has its kind, shapes and neighbours.")
    listed = ", ".join(map(repr, others[:6]))
    return SpecError(
        f"{layer!r} may be {listed}: nothing tells them apart. Say it: names={{{layer!r}: {others[0]!r}}}."
    )


def _plain(path: str) -> str:
    return re.sub(r"[^a-z0-9]", "", path.lower())


def _shown(kind: Kinds) -> str:
    return f"a {kind[0]} of {', '.join('×'.join(map(str, shape)) for _, shape in kind[1])}"
