"""A layer that says in the model itself which activation is penalized."""

from typing import Any

import torch
from torch import Tensor, nn

from arspec import Rule, SpecError
from arspec._axes import resolve_axes
from arspec.penalties import Penalty
from arspec_torch._watch import owner_of


class ActivityRegularization(nn.Module):
    """Pass x on, and penalize it: a rule written where it applies.

    `attach` finds these layers, beside the rules of its Spec, and `extract` turns them into
    rules. Without `attach` the layer refuses to train, since nothing would add its penalty.

    Parameters
    ----------
    penalty : such as `arspec.L1(1e-4)`.
    mean_over : axes averaged over, or "sum", "batchmean" (the default), "mean".
    axes : names of the axes of x, such as "batch feature height width", where they cannot be
        told from its rank.
    when : "always", or "train" for training mode only.

    Raises
    ------
    SpecError: an argument is not one of these; or x is to be trained on before `attach`.

    Example
    -------
    >>> import arspec, arspec_torch, torch
    >>> layer = arspec_torch.ActivityRegularization(arspec.L1(0.5))
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), layer)
    >>> penalties = arspec_torch.attach(model)
    >>> y = model(torch.ones(4, 2))
    >>> list(penalties.losses())
    ['1/output/l1']
    """

    def __init__(
        self, penalty: Penalty, *, mean_over: Any = None, axes: str | None = None, when: str = "always"
    ) -> None:
        super().__init__()
        self.rule = Rule(penalty, layer="here", placement="output", mean_over=mean_over, when=when)
        self.axes = axes if axes is None else " ".join(resolve_axes(len(axes.split()), axes).names)

    def forward(self, x: Tensor) -> Tensor:
        if owner_of(self) is None and self.training and torch.is_grad_enabled() and isinstance(x, Tensor):
            raise SpecError(
                "an ActivityRegularization has no effect by itself: penalties = arspec_torch.attach(model), then "
                "add penalties.total() to the loss."
            )
        return x

    def extra_repr(self) -> str:
        return f"{self.rule.penalty!r}, mean_over={self.rule.mean_over!r}"


def own_rules(model: nn.Module, named: Any) -> list[Rule]:
    """Return the rules of the ActivityRegularization layers among `named` (path, name, module)."""
    found = [(path, module) for path, _, module in named if isinstance(module, ActivityRegularization)]
    return [
        Rule(m.rule.penalty, layer=path, placement="output", mean_over=m.rule.mean_over, when=m.rule.when)
        for path, m in found
    ]
