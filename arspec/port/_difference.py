"""How two bundles differ, for people."""

import numpy as np

from arspec.port._bundle import Bundle
from arspec.port._graph import Graph
from arspec.port._kinds import kind_to_document


def difference(first: Bundle, second: Bundle, /) -> list[str]:
    """Return a line for each difference between two models; evidence and versions do not count."""
    return [*_layers(first, second), *_rules(first, second), *_weights(first, second)]


def _layers(first: Bundle, second: Bundle) -> list[str]:
    one, other = dict(first.graph.walk()), dict(second.graph.walk())
    lines = [f"layer {path!r} is only in the first" for path in one if path not in other]
    lines += [f"layer {path!r} is only in the second" for path in other if path not in one]
    for path in one:
        if path not in other:
            continue
        here, there = one[path].layer, other[path].layer
        if isinstance(here, Graph) or isinstance(there, Graph):
            continue
        if here != there:
            left, right = kind_to_document(here), kind_to_document(there)
            fields = [
                f"{name} {left.get(name)!r} and {right.get(name)!r}"
                for name in dict.fromkeys((*left, *right))
                if left.get(name) != right.get(name)
            ]
            lines.append(f"layer {path!r}: {', '.join(fields)}")
        if one[path].inputs != other[path].inputs:
            lines.append(f"layer {path!r} reads {one[path].inputs} and {other[path].inputs}")
    return lines


def _rules(first: Bundle, second: Bundle) -> list[str]:
    one, other = first.spec.rules, second.spec.rules
    lines = [f"only the first has {rule!r}" for rule in one if rule not in other]
    return lines + [f"only the second has {rule!r}" for rule in other if rule not in one]


def _weights(first: Bundle, second: Bundle) -> list[str]:
    lines = []
    for name in sorted(set(first.weights) & set(second.weights)):
        left, right = first.weights[name], second.weights[name]
        if left.shape != right.shape:
            lines.append(f"weight {name!r}: shape {left.shape} and {right.shape}")
        elif not np.array_equal(left, right):
            gap = np.abs(left.astype(np.float64) - right.astype(np.float64)).max()
            lines.append(f"weight {name!r}: {int((left != right).sum())} entries differ, by {gap:.2g} at most")
    return lines
