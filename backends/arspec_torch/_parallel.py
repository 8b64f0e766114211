"""Data parallelism: the penalty of the whole batch, whichever process holds which part of it.

Each process gathers the parts of the others, as constants, and evaluates the penalty of the
whole; its own part carries the gradient. DistributedDataParallel and FSDP average the
gradients of the processes, so that the own part's is multiplied by their number. That is
right for any penalty, for statistics of the batch too, and for parts of unequal size.
"""

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from arspec import SpecError, UnsupportedError


def world_size() -> int:
    """Return the number of processes that torch.distributed connects, 1 without it."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def must_gather(data_parallel: bool | None, key: str) -> bool:
    """Return whether the batch at a site is spread over processes.

    Raises
    ------
    UnsupportedError: there are several processes, and nobody has said what they hold.
    """
    size = world_size()
    if size == 1:
        return False
    if data_parallel is None:
        raise UnsupportedError(
            f"{key}: torch.distributed runs {size} processes, and a penalty of a part of the batch is not that of "
            "the batch. Say attach(..., data_parallel=True) where each process holds a part and gradients are "
            "averaged (DDP, FSDP), or data_parallel=False where each sees the whole batch."
        )
    return data_parallel


class _TimesProcesses(torch.autograd.Function):
    """x, with its gradient multiplied by a number: an average over processes divides by it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, times: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.times = times
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return cotangent * ctx.times, None


def gathered(tensor: Tensor, mask: Tensor | None, names: tuple[str, ...]) -> tuple[Tensor, Tensor | None]:
    """Return the tensor of the whole batch, parts in the order of the processes, and its mask.

    Raises
    ------
    SpecError: the tensor has no axis "batch".
    UnsupportedError: the parts differ in another axis than the batch, or some have no mask.
    """
    if "batch" not in names:
        raise SpecError(
            f"a tensor with the axes ({', '.join(names)}) has no batch that could be spread over processes."
        )
    axis = names.index("batch")
    shapes = _shapes(tensor, mask)
    _require_alike(shapes, axis)
    sizes = [shape[axis] for shape in shapes]
    parts = _all_parts(tensor.detach(), axis, sizes)
    own: Any = _TimesProcesses.apply(tensor, len(sizes))
    parts[dist.get_rank()] = own
    if mask is None:
        return torch.cat(parts, axis), None
    expanded = mask.reshape(*mask.shape, *(1,) * (tensor.dim() - mask.dim())).expand_as(tensor)
    return torch.cat(parts, axis), torch.cat(_all_parts(expanded.to(torch.uint8), axis, sizes), axis).bool()


def _shapes(tensor: Tensor, mask: Tensor | None) -> list[tuple[int, ...]]:
    """Return the shapes of all parts, each followed by whether it has a mask."""
    own = torch.tensor([*tensor.shape, mask is not None], dtype=torch.int64, device=tensor.device)
    found = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(found, own)
    return [tuple(shape.tolist()) for shape in found]


def _require_alike(shapes: list[tuple[int, ...]], axis: int) -> None:
    others = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    if len(others) > 1:
        raise UnsupportedError(
            f"the parts of the batch have the shapes {[shape[:-1] for shape in shapes]} and masks in "
            f"{sum(shape[-1] for shape in shapes)} of {len(shapes)} processes; they may differ in the batch only. "
            "Pad them to one length, and mask all."
        )


def _all_parts(tensor: Tensor, axis: int, sizes: list[int]) -> list[Tensor]:
    """Return the parts of all processes, which may be of unequal size along `axis`."""
    shape = list(tensor.shape)
    shape[axis] = max(sizes)
    padded = tensor.new_zeros(shape)
    padded.narrow(axis, 0, tensor.shape[axis]).copy_(tensor)
    found = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(found, padded)
    return [part.narrow(axis, 0, size) for part, size in zip(found, sizes, strict=True)]
