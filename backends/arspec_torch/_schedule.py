"""The schedule of a rule: the factor that its loss is multiplied by at a step of training."""

import torch
from torch import Tensor

from arspec import Site
from arspec_torch._engine import XP


def scheduled(loss: Tensor, site: Site, step: int | Tensor | None) -> Tensor:
    """Return a loss times the factor of its rule's schedule at `step`."""
    if site.rule.schedule is None:
        return loss
    at_step = torch.as_tensor(step, dtype=torch.float64, device=loss.device)
    return loss * XP.lower(site.rule.schedule.factor(at_step, xp=XP), "float32")
