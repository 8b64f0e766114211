"""Masks given beside a forward pass: their axes have names, as those of the tensors.

One mask (batch, time) fits a tensor (batch, time, feature) as well as one (time, batch,
feature) of a module without batch_first, or (batch, feature, time) of a Conv1d.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from arspec import Site, SpecError
from arspec._axes import resolve_axes
from arspec._masks import masks_by_layer
from arspec._placements import ACTIVATIONS
from arspec_torch._source import Captured

_BY_RANK = {1: "batch", 2: "batch time", 3: "batch height width", 4: "batch depth height width"}


@dataclass(frozen=True, slots=True, eq=False)
class NamedMask:
    """A boolean tensor, true where an activation is valid, and the names of its axes."""

    tensor: Tensor
    names: tuple[str, ...]


def named_masks(masks: Mapping[str, Any], sites: Iterable[Site]) -> dict[str, NamedMask]:
    """Return the mask of each layer that has a rule at an activation.

    Raises
    ------
    SpecError: a name meets no such layer, or the axes do not fit the rank of the tensor.
    """
    layers = [site.layer for site in sites if site.rule.placement in ACTIVATIONS]
    return {layer: _named(layer, given) for layer, given in masks_by_layer(masks, layers).items()}


def _named(layer: str, given: Any) -> NamedMask:
    tensor, axes = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    if not isinstance(tensor, Tensor):
        raise SpecError(f"the mask of {layer!r} is a {type(tensor).__name__}; expected a torch.Tensor of bool.")
    axes = _BY_RANK.get(tensor.dim()) if axes is None else axes
    if axes is None:
        raise SpecError(f"the mask of {layer!r} has {tensor.dim()} axes; say them: (mask, 'batch time').")
    return NamedMask(tensor, resolve_axes(tensor.dim(), axes).names)


def aligned(mask: NamedMask, captured: Captured, axes: str | None) -> Tensor:
    """Return a mask with the axes of what was captured, of size 1 where it has none.

    Raises
    ------
    SpecError: it has an axis that the tensor lacks, or a size that is not the tensor's.
    """
    shape = tuple(captured.tensor.shape)
    names = resolve_axes(len(shape), axes).names
    sizes = dict(zip(mask.names, mask.tensor.shape, strict=True))
    fits = all(name in names and size == shape[names.index(name)] for name, size in sizes.items())
    if not fits:
        raise SpecError(
            f"the mask has the axes ({', '.join(mask.names)}) of sizes {tuple(sizes.values())}; "
            f"the tensor has the axes ({', '.join(names)}) of sizes {shape}."
        )
    order = [mask.names.index(name) for name in names if name in mask.names]
    return mask.tensor.permute(order).reshape([sizes.get(name, 1) for name in names])


def spread(mask: NamedMask, captured: Captured, key: str) -> Captured:
    """Return a packed sequence with its steps where the mask is true; the others hold anything.

    Raises
    ------
    SpecError: the mask is not (batch, time), or counts other steps than were packed.
    """
    valid, lengths = mask.tensor, captured.lengths
    if lengths is None:
        return captured
    if mask.names != ("batch", "time") or not torch.equal(valid.sum(1).cpu(), lengths.cpu()):
        raise SpecError(
            f"{key}: its sequence is packed, which says what is valid. A mask can say where its steps stood: "
            f"(batch, time) with {lengths.tolist()} steps; the mask given has the axes ({', '.join(mask.names)}) and "
            f"{valid.flatten(1).sum(1).tolist() if valid.dim() > 1 else valid.tolist()}."
        )
    tensor = captured.tensor
    steps = (valid.cumsum(1) - 1).clamp(min=0).to(tensor.device)
    return Captured(tensor.gather(1, steps.unsqueeze(-1).expand(*steps.shape, tensor.shape[-1])), captured.axes)
