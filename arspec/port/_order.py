"""In which order the layers of a model run, and which of them reads which."""

from collections.abc import Iterable, Mapping

from arspec.port._graph import Graph
from arspec.port._matching import _Side


class _AnyShape(dict[str, tuple[int, ...]]):
    """The sides of a matching ask for shapes, which say nothing about order."""

    def __missing__(self, key: str) -> tuple[int, ...]:
        return ()


def order_of(graph: Graph) -> tuple[list[str], dict[str, frozenset[str]]]:
    """Return the paths of the layers with weights as they run, and for each those that it reads."""
    side = _Side(graph, _AnyShape())
    paths = list(side.kinds)
    return paths, reached(paths, side.before)


def reached(paths: Iterable[str], before: Mapping[str, Iterable[str]]) -> dict[str, frozenset[str]]:
    """Return for each path all that it reads, directly or through others."""
    found: dict[str, frozenset[str]] = {}
    for start in paths:
        met: set[str] = set()
        todo = list(before.get(start, ()))
        while todo:
            path = todo.pop()
            if path not in met:
                met.add(path)
                todo += before.get(path, ())
        found[start] = frozenset(met)
    return found


Groups = list[list[str]]


def expanded(
    calls: Iterable[str], after: Mapping[str, frozenset[str]], parts: Mapping[str, Groups]
) -> tuple[list[str], dict[str, frozenset[str]]]:
    """Return the same order where some layers are several: of each, groups that read the one before."""
    inside = {path: [each for group in groups for each in group] for path, groups in parts.items()}
    listed = [each for path in calls for each in inside.get(path, [path])]
    whole = {path: {each for one in read for each in inside.get(one, [one])} for path, read in after.items()}
    found: dict[str, frozenset[str]] = {}
    for path in after:
        earlier: set[str] = set()
        for group in parts.get(path, [[path]]):
            found |= {each: frozenset(whole[path] | earlier) for each in group}
            earlier |= set(group)
    return listed, found
