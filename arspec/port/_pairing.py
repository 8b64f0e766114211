"""Which layer of one model is which layer of another: decided by evidence, or an error with the candidates.

Kind and shapes come first, then options that both sides tell, then the order of calls where
it follows from what reads what, then names. Evidence that contradicts itself stops, too.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from arspec._errors import SpecError, unknown
from arspec.port._matching import Matching, Pair
from arspec.port._options import told
from arspec.port._weighted import Layers, WeightedLayer, sizes

Found = dict[str, tuple[str, str]]
Some = Sequence[WeightedLayer]


def pair_layers(source: Layers, target: Layers, given: Mapping[str, str], *, by_order: bool = False) -> Matching:
    """Pair the layers of two models one to one.

    Parameters
    ----------
    given : source path -> target path, for those that the caller knows.
    by_order : pair what nothing else tells apart in the order of the two lists; the caller
        says that they are alike.

    Raises
    ------
    SpecError: a layer has no counterpart, or several that nothing tells apart; a given path is
        unknown, or its layer is another one.
    """
    left, right = ({layer.path: layer for layer in side} for side in (source, target))
    found: Found = {}
    for one, other in given.items():
        found[one] = (_given(one, other, left, right), "given")
    taken = {other for other, _ in found.values()}
    if len(taken) < len(found):
        raise SpecError(f"names={dict(given)!r}: two layers of the source go to one of the target.")
    rest = [layer for layer in target if layer.path not in taken]
    classes: dict[object, tuple[list[WeightedLayer], list[WeightedLayer]]] = defaultdict(lambda: ([], []))
    for layer in source:
        if layer.path not in found:
            classes[layer.signature][0].append(layer)
    for layer in rest:
        classes[layer.signature][1].append(layer)
    _require_counts(list(classes.values()), source, target)
    for ours, theirs in classes.values():
        found |= _decided(ours, theirs, source, target, by_order)
    shapes = {path: tuple(layer.shapes.values()) for path, layer in left.items()}
    return Matching(Pair(path, *found[path], shapes[path]) for path in left)


def described(layer: WeightedLayer) -> str:
    """Return what a layer is, such as "a Dense (kernel 3×4, bias 4)"."""
    kind, shapes = layer.signature
    return f"a {kind} ({', '.join(f'{role} {sizes(shape)}' for role, shape in shapes)})"


def _given(one: str, other: str, left: Mapping[str, WeightedLayer], right: Mapping[str, WeightedLayer]) -> str:
    if one not in left:
        raise unknown("layer of the source", one, left)
    if other not in right:
        raise unknown("layer of the target", other, right)
    if left[one].signature != right[other].signature:
        raise SpecError(f"{one!r} is {described(left[one])}, and {other!r} is {described(right[other])}.")
    return other


def _require_counts(classes: Sequence[tuple[Some, Some]], source: Layers, target: Layers) -> None:
    """Raise if a class of like layers has more members on one side."""
    lines = []
    for ours, theirs in classes:
        for some, many, side in ((ours, theirs, "target"), (theirs, ours, "source")):
            if len(some) > len(many):
                who = ", ".join(repr(layer.path) for layer in some[:6])
                count = f"{len(many)} such" if many else "none such"
                lines.append(f"{who}: {described(some[0])}; the {side} has {count}{_near(some[0], source, target)}")
    if lines:
        raise SpecError("no counterpart: " + "; ".join(lines[:6]) + ".")


def _near(layer: WeightedLayer, source: Layers, target: Layers) -> str:
    """Name a layer of the other side that may be meant: one of this kind or of these numbers."""
    other = source if any(layer is each for each in target) else target
    alike = [each for each in other if type(each.kind) is type(layer.kind)]
    return f" (its {alike[0].path!r} is {described(alike[0])})" if alike else ""


def _decided(ours: Some, theirs: Some, source: Layers, target: Layers, by_order: bool) -> Found:
    if not ours:
        return {}
    if len(ours) == len(theirs) == 1:
        return {ours[0].path: (theirs[0].path, "shapes")}
    parts = _by_options(ours, theirs)
    if parts:
        found: Found = {}
        for some, others in parts:
            one = len(some) == 1
            found |= (
                {some[0].path: (others[0].path, "options")} if one else _told(some, others, source, target, by_order)
            )
        return found
    return _told(ours, theirs, source, target, by_order)


def _by_options(ours: Some, theirs: Some) -> list[tuple[Some, Some]]:
    """Split layers by the options that all of them tell, if that fits on both sides."""
    unseen = {name for layer in (*ours, *theirs) for name in layer.unseen}
    groups: dict[object, tuple[list[WeightedLayer], list[WeightedLayer]]] = defaultdict(lambda: ([], []))
    for side, layers in enumerate((ours, theirs)):
        for layer in layers:
            key = tuple((name, value) for name, value in told(layer).items() if name not in unseen)
            groups[key][side].append(layer)
    fits = len(groups) > 1 and all(len(one) == len(other) for one, other in groups.values())
    return list(groups.values()) if fits else []


def _told(ours: Some, theirs: Some, source: Layers, target: Layers, by_order: bool) -> Found:
    order = _ordered(ours, theirs, source, target)
    names = _named(ours, theirs, source.framework == target.framework)
    if order and names and order != names:
        one = next(path for path in order if order[path] != names[path])
        raise SpecError(
            f"{one!r} is {order[one]!r} by the order of calls and {names[one]!r} by its name. "
            f"Say it: names={{{one!r}: {order[one]!r}}}."
        )
    if order:
        return {one: (other, "order") for one, other in order.items()}
    if names:
        return {one: (other, "name") for one, other in names.items()}
    if by_order:
        return {one.path: (other.path, "listed") for one, other in zip(ours, theirs, strict=True)}
    listed = ", ".join(repr(layer.path) for layer in theirs[:6])
    raise SpecError(
        f"{ours[0].path!r} may be {listed}: nothing tells them apart. Say it: "
        f"names={{{ours[0].path!r}: {theirs[0].path!r}}}; or by_order=True, if the layers come in the same order."
    )


def _named(ours: Some, theirs: Some, one_framework: bool) -> dict[str, str]:
    """Return the pairs of equal names, if all are told by them.

    Names that count layers say nothing between frameworks: Linen counts in another order
    than Keras. The last part of a path is enough if it is more than a number.
    """
    if not all(layer.named for layer in (*ours, *theirs)):
        same = one_framework and {layer.path for layer in ours} == {layer.path for layer in theirs}
        return {layer.path: layer.path for layer in ours} if same else {}
    return _equal_names(ours, theirs, 0) or _equal_names(ours, theirs, -1)


def _equal_names(ours: Some, theirs: Some, start: int) -> dict[str, str]:
    sides = [{_plain(layer.path.split("/")[start:]): layer.path for layer in side} for side in (ours, theirs)]
    told_apart = len(sides[0]) == len(ours) and sides[0].keys() == sides[1].keys()
    if start and any(name[0].isdigit() for name in sides[0]):
        return {}
    return {path: sides[1][name] for name, path in sides[0].items()} if told_apart else {}


def _plain(parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(re.sub(r"[^a-z0-9]", "", part.lower()) for part in parts)


def _ordered(ours: Some, theirs: Some, source: Layers, target: Layers) -> dict[str, str]:
    """Return the pairs in the order of calls, if no other order is possible.

    It is not where each layer reads the result of the one before, on one side at least: then
    any model that computes the same calls its layers in this order. The other side must know
    the order of its calls, or what reads what.
    """
    chains = [_chain(side, listed) for side, listed in ((ours, source), (theirs, target))]
    calls = [_called(side, listed) for side, listed in ((ours, source), (theirs, target))]
    first, second = (chain or call for chain, call in zip(chains, calls, strict=True))
    if not any(chains) or not first or not second:
        return {}
    return dict(zip(first, second, strict=True))


def _chain(side: Some, listed: Layers) -> list[str]:
    """Return paths such that each reads the ones before; [] if they do not form a chain."""
    if listed.after is None:
        return []
    after: Mapping[str, Any] = listed.after
    paths = {layer.path for layer in side}
    ordered = sorted(paths, key=lambda path: len(after.get(path, frozenset()) & paths))
    fits = all(after.get(path, frozenset()) & paths == set(ordered[:i]) for i, path in enumerate(ordered))
    return ordered if fits else []


def _called(side: Some, listed: Layers) -> list[str]:
    if listed.calls is None:
        return []
    paths = {layer.path for layer in side}
    return [path for path in listed.calls if path in paths]
