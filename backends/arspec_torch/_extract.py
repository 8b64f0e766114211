"""`extract`: the Spec that a model, and the optimizer that trains it, already carry."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from arspec import Rule, Spec, SpecError, UnsupportedError, dialects
from arspec_torch import _source
from arspec_torch._attach import checked_roles, inside
from arspec_torch._layers import Context, describe, named_layers
from arspec_torch._native import own_rules
from arspec_torch._source import Source
from arspec_torch._watch import owner_of


def extract(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    roles: Mapping[type[nn.Module], Mapping[str, str]] | None = None,
) -> Spec:
    """Return the Spec of what regularizes a model.

    Parameters
    ----------
    model : any nn.Module, attached or not.
    optimizer : whose `weight_decay` counts too: where it is coupled (SGD, Adam, RMSprop, ...)
        it is `L2(weight_decay / 2)` on every parameter it is given that is not frozen.
    roles : as for `attach`.

    Returns
    -------
    The rules that are attached, those of `ActivityRegularization` layers, and one rule per
    parameter that decays, named by its exact path.

    Raises
    ------
    UnsupportedError: a decay that is no penalty: decoupled (AdamW), on a parameter without a
        role, or on both biases of an LSTM apart, whose sum is the bias.
    SpecError: model or optimizer is none.

    Notes
    -----
    Equal are the gradients that reach the optimizer. What changes gradients before it does
    not see a decay: gradient clipping clips a penalty, and not a decay. A parameter that got
    no gradient in a step does not decay in it.

    Example
    -------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3))
    >>> optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1, weight_decay=0.02)
    >>> [(rule.penalty, rule.layer, rule.placement) for rule in extract(model, optimizer).rules]
    [(L2(coefficient=0.01), '0', 'kernel'), (L2(coefficient=0.01), '0', 'bias')]
    """
    model = inside(model)
    owners = [owner for owner in map(owner_of, model.modules()) if owner is not None]
    rules = list(owners[0].spec.rules) if owners else own_rules(model, named_layers(model))
    if optimizer is not None:
        rules += _decays(model, optimizer, roles)
    return Spec(rules)


def _decays(model: nn.Module, optimizer: Any, roles: Any) -> list[Rule]:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise SpecError(f"optimizer is a {type(optimizer).__name__}; expected a torch.optim.Optimizer.")
    groups = {id(p): group for group in optimizer.param_groups if group.get("weight_decay") for p in group["params"]}
    decaying = {id(p): name for name, p in model.named_parameters() if id(p) in groups and p.requires_grad}
    _, sources = describe(model, Context(roles=checked_roles(roles)))
    rules: list[Rule] = []
    met: dict[tuple[object, ...], set[int]] = {}
    for (layer, placement), source in sources.items():
        identity = _source.identity(source)
        if identity is None or identity in met:
            continue
        behind = [id(p) for p in _source.own_parameters(source)]
        met[identity] = {p for p in behind if p in decaying}
        if met[identity]:
            _require_exact(source, behind, decaying, groups)
            rules.append(_decay(optimizer, groups[behind[0]], layer, placement))
    left = [name for p, name in decaying.items() if not any(p in found for found in met.values())]
    if left:
        raise UnsupportedError(
            f"{', '.join(left)}: it decays, and is no placement of a layer. Take it out of the group, or say by roles= "
            "what it is."
        )
    return rules


def _require_exact(source: Source, behind: list[int], decaying: Mapping[int, str], groups: Mapping[int, Any]) -> None:
    """Refuse a decay of parameters that is no penalty of the tensor made of them."""
    registered = dict(source.module.named_parameters(recurse=False, remove_duplicate=False))
    if any(name not in registered for name in source.parameters):
        raise UnsupportedError(f"{source.tensor} is parametrized: what decays is not the tensor that a penalty sees.")
    if not source.exact:
        raise UnsupportedError(
            f"{source.tensor} is one bias to a penalty; its two parts decay apart. Leave them out of the decay."
        )
    if len({groups[p]["weight_decay"] if p in decaying else 0.0 for p in behind}) > 1:
        raise UnsupportedError(f"{source.tensor}: its parts decay differently, to a penalty they are one tensor.")


def _decay(optimizer: torch.optim.Optimizer, group: Mapping[str, Any], layer: str, placement: str) -> Rule:
    name = next(cls.__name__ for cls in type(optimizer).__mro__ if cls.__module__.startswith("torch.optim"))
    rule = dialects.torch.rule(name, layer=layer, placement=placement, weight_decay=group["weight_decay"])
    if group.get("decoupled_weight_decay"):
        raise UnsupportedError(
            f"{name}(decoupled_weight_decay=True): its decay is decoupled, the gradient of no penalty."
        )
    if group.get("maximize"):
        raise UnsupportedError(
            f"{name}(maximize=True): its decay shrinks the weights all the same, as no penalty does."
        )
    return rule
