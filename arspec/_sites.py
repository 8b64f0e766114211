"""Sites: which rule of a Spec applies to which tensor of a model.

An adapter lists the layers it found (`Layer`); `match_sites` decides, once for all
frameworks, which rules meet which layers and what is an error.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

from arspec._errors import SpecError, UnsupportedError, did_you_mean
from arspec._rule import Rule
from arspec._spec import Spec
from arspec._table import aligned
from arspec.penalties._custom import uses_autodiff


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a model as an adapter sees it.

    Attributes
    ----------
    path : where it lives, with "/" between the parts.
    kind : its class, for messages.
    placements : for each placement it can serve, the framework's name of the tensor.
    refused : for each placement it cannot serve, the reason and the cure.
    in_globs : whether a pattern meets its activations; a layer without parameters (an
        activation function, a dropout, a block) is met only by a pattern that spells out its
        last part, such as "encoder/*/act", so that with "**" a network written as Linear,
        ReLU counts as often as one Dense(activation="relu").
    hints : for a placement it does not have, where it is; a part of the error for a rule
        that matches nothing else.
    """

    path: str
    kind: str
    placements: Mapping[str, str]
    refused: Mapping[str, str] = field(default_factory=dict)
    in_globs: bool = True
    hints: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Site:
    """One rule at one tensor.

    Attributes
    ----------
    key : the unique name of its loss, such as "hidden/pre_activation/l1".
    rule : the rule.
    layer : path of the layer.
    tensor : the framework's name of the tensor.
    shape, value : what the last forward pass saw, or None before it.
    """

    key: str
    rule: Rule
    layer: str
    tensor: str
    shape: tuple[int, ...] | None = None
    value: float | None = None


class Sites(Sequence[Site]):
    """The sites of an attached model; prints as a table."""

    def __init__(self, sites: Iterable[Site]) -> None:
        self._sites = tuple(sites)

    def __len__(self) -> int:
        return len(self._sites)

    @overload
    def __getitem__(self, index: int) -> Site: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Site, ...]: ...

    def __getitem__(self, index: Any) -> Any:
        return self._sites[index]

    def __repr__(self) -> str:
        rows = [("rule", "layer", "tensor", "shape", "mean over", "value")]
        for site in self._sites:
            mean_over = site.rule.mean_over_document()
            rows.append(
                (
                    site.rule.key + (" (autodiff)" if uses_autodiff(site.rule.penalty) else ""),
                    site.layer,
                    site.tensor,
                    "-" if site.shape is None else "×".join(map(str, site.shape)) or "scalar",
                    mean_over if isinstance(mean_over, str) else ", ".join(mean_over) or "(sum)",
                    "-" if site.value is None else f"{site.value:.6g}",
                )
            )
        return aligned(rows)

    def with_results(self, shapes: Mapping[str, tuple[int, ...]], values: Mapping[str, float]) -> "Sites":
        """Return the sites with the shapes and values of a forward pass, by key."""
        return Sites(replace(site, shape=shapes.get(site.key), value=values.get(site.key)) for site in self)


def match_sites(spec: Spec, layers: Sequence[Layer], *, serves: Iterable[str] = ()) -> Sites:
    """Find the sites of every rule.

    `serves` names the options of a rule, "when" and "trainable_only", that the adapter
    heeds; a rule that uses another one is refused.

    Raises
    ------
    SpecError: a rule matches no layer, or no matched layer has the placement.
    UnsupportedError: a matched layer has the placement, but the adapter cannot serve it; or
        it does not heed an option that a rule uses.
    """
    if not isinstance(spec, Spec):
        raise SpecError(f"spec={spec!r}; expected a Spec, such as Spec([Rule(...)]) or load('spec.json').")
    heeded = tuple(serves)
    for rule in spec.rules:
        _refuse_options(rule, heeded)
    found = [(rule, layer) for rule in spec.rules for layer in _matched_layers(rule, layers)]
    taken: Counter[str] = Counter()
    sites = []
    for rule, layer in found:
        name = f"{layer.path}/{rule.key}"
        taken[name] += 1
        key = name if taken[name] == 1 else f"{name}#{taken[name]}"
        sites.append(Site(key, rule, layer.path, layer.placements[rule.placement]))
    return Sites(sites)


def each_parameter_once(sites: Iterable[Site], parameter_of: Callable[[Site], object]) -> Sites:
    """Keep one site per rule for a parameter that several layers share.

    `parameter_of` gives the object that is the parameter, or None for a site that has none.
    """
    kept: dict[tuple[int, object], Site] = {}
    for site in sites:
        parameter = parameter_of(site)
        kept.setdefault((id(site.rule), site.key if parameter is None else id(parameter)), site)
    return Sites(kept.values())


def _refuse_options(rule: Rule, serves: tuple[str, ...]) -> None:
    used = {"when": rule.when != "always", "trainable_only": rule.trainable_only}
    for name in used:
        if used[name] and name not in serves:
            option = f"{name}={getattr(rule, name)!r}"
            raise UnsupportedError(
                f"the rule {rule.key} says {option}, which this adapter does not heed; leave it out."
            )


def _matched_layers(rule: Rule, layers: Sequence[Layer]) -> list[Layer]:
    pattern = _pattern(rule.layer)
    exact = [layer for layer in layers if _parts(layer.path) == _parts(rule.layer)]
    named = exact or [layer for layer in layers if pattern.fullmatch("/".join(_parts(layer.path)))]
    if not named:
        paths = [layer.path for layer in layers]
        raise SpecError(
            f"the rule {rule.key} matches no layer: layer={rule.layer!r}; "
            f"the model has {_some(paths)}.{did_you_mean(rule.layer, paths)}"
        )
    spelled_out = not re.search(r"[*?]", _parts(rule.layer)[-1])
    met = [layer for layer in named if spelled_out or exact or layer.in_globs]
    for layer in met:
        if rule.placement in layer.refused:
            who = f"layer {layer.path!r} ({layer.kind})"
            raise UnsupportedError(f"{who}, {rule.placement}: {layer.refused[rule.placement]}")
    served = [layer for layer in met if rule.placement in layer.placements]
    if not served:
        raise _unserved(rule, named, met)
    return served


def _unserved(rule: Rule, named: list[Layer], met: list[Layer]) -> SpecError:
    """Build the error for a rule whose layers do not have its placement."""
    if any(rule.placement in layer.placements for layer in named):
        why = f"{rule.layer!r} names only layers without parameters of their own; name each of them by its full path"
        return SpecError(f"the rule {rule.key} matches nothing: {why}: {_some([layer.path for layer in named])}.")
    who = f"none of {_some([layer.path for layer in named])} has the"
    if len(named) == 1:
        who = f"layer {named[0].path!r} ({named[0].kind}) has no"
    offers = sorted({placement for layer in met for placement in layer.placements})
    there = _some(offers) if offers else "none that can be named"
    hint = next((f" {layer.hints[rule.placement]}" for layer in named if rule.placement in layer.hints), "")
    return SpecError(
        f"the rule {rule.key} matches nothing: {who} placement {rule.placement!r}; there is {there}.{hint}"
    )


def names_layer(pattern: str, path: str) -> bool:
    """Return whether a path or a glob, as in a rule, names the layer at `path`."""
    return _parts(pattern) == _parts(path) or _pattern(pattern).fullmatch("/".join(_parts(path))) is not None


def _parts(path: str) -> list[str]:
    return [part for part in re.split(r"[./]", path) if part]


def _pattern(glob: str) -> re.Pattern[str]:
    """Translate "*" to one part of a path and "**" to any number of parts, none included."""
    text = ""
    for part in _parts(glob):
        if part == "**":
            text += r"(?:[^/]+/)*"
        else:
            text += "".join("[^/]*" if c == "*" else "[^/]" if c == "?" else re.escape(c) for c in part) + "/"
    return re.compile(text[:-1] if not text.endswith("*") else text.removesuffix(r"(?:[^/]+/)*") + r"(?:[^/]+/)*[^/]+")


def _some(names: Sequence[str], limit: int = 8) -> str:
    listed = ", ".join(repr(name) for name in names[:limit])
    return listed + (f" and {len(names) - limit} more" if len(names) > limit else "") if names else "no layers"


def unfired(missing: Iterable[Site]) -> SpecError:
    """Build the error for sites whose layer did not run in a forward pass."""
    names = _some([site.key for site in missing])
    return SpecError(
        f"{names} never fired: the layer did not run in the last forward pass, so the penalty would be "
        "silently missing. Run the whole model before asking for losses, or drop the rule."
    )
