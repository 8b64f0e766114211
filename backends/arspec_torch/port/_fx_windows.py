"""Reading paddings and pools: torch's are symmetric numbers, a graph's are nodes of their own."""

from collections.abc import Sequence
from typing import Any

from torch import fx

from arspec.port import _kinds as kinds
from arspec.port._kinds import refuse
from arspec.port._source import same_padding
from arspec_torch.port._builder import Builder, Seen


def each(given: Any, rank: int) -> tuple[int, ...]:
    """Return one number per spatial axis."""
    found = tuple(int(n) for n in given) if isinstance(given, Sequence) else (int(given),) * rank
    return found * rank if len(found) == 1 else found


def same_or_padded(b: Builder, x: Seen, m: Any, name: str) -> tuple[Seen, str]:
    """Return the input of a convolution, padded where its padding is not just that of "same", and its padding."""
    rank = len(m.kernel_size)
    if m.padding == "same":
        return x, "same"
    pads = (0,) * rank if m.padding == "valid" else each(m.padding, rank)
    if not any(pads):
        return x, "valid"
    reach = [(k - 1) * d for k, d in zip(m.kernel_size, m.dilation, strict=True)]
    if set(m.stride) == {1} and all(2 * p == r for p, r in zip(pads, reach, strict=True)):
        return x, "same"
    return b.padded(x, [(p, p) for p in pads], name), "valid"


def max_pooling(
    b: Builder,
    x: Seen,
    node: fx.Node,
    name: str,
    module: str,
    *,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    indices: bool,
) -> Seen:
    """Add a maximum over windows; what is padded never is the maximum."""
    rank = x.rank - 2
    size, step, pads = _windows(rank, kernel_size, stride, padding)
    if set(each(dilation, rank)) != {1} or indices:
        raise refuse(name, "a max pooling with dilation or return_indices", "Leave them out.")
    sizes = b.sizes(node, x.axes)
    _require_floor(name, x, sizes, size, step, pads, ceil_mode)
    kind = _pooling("max", x, size, step, pads)
    return b.emit(name, kind, [x], sizes, x.axes, module=module)


def average_pooling(
    b: Builder,
    x: Seen,
    node: fx.Node,
    name: str,
    module: str,
    *,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: Any,
) -> Seen:
    """Add a mean over windows; torch's counts the zeros of its padding unless it is told not to."""
    rank = x.rank - 2
    size, step, pads = _windows(rank, kernel_size, stride, padding)
    if divisor is not None:
        raise refuse(name, f"divisor_override={divisor}", "Leave it out, and multiply the result.")
    sizes = b.sizes(node, x.axes)
    _require_floor(name, x, sizes, size, step, pads, ceil_mode)
    if count_include_pad and any(pads):
        x = b.padded(x, [(p, p) for p in pads], name)
        pads = (0,) * rank
    return b.emit(name, _pooling("average", x, size, step, pads), [x], sizes, x.axes, module=module)


def adaptive_pooling(b: Builder, x: Seen, node: fx.Node, name: str, module: str, *, mode: str) -> Seen:
    """Add a pooling to a given size, where it is a pooling over windows of one size."""
    sizes = b.sizes(node, x.axes)
    if set(sizes[:-1]) == {1}:
        return b.emit(name, kinds.GlobalPooling(mode, keep=True), [x], sizes, x.axes, module=module)
    if any(n % m for n, m in zip(x.sizes[:-1], sizes[:-1], strict=True)):
        raise refuse(
            name,
            f"an adaptive pooling from {x.sizes[:-1]} to {sizes[:-1]}, whose windows differ in size,",
            "Pool to 1, or to a size that divides that of the input.",
        )
    size = tuple(n // m for n, m in zip(x.sizes[:-1], sizes[:-1], strict=True))
    if set(size) == {1}:
        return b.emit(name, kinds.Identity(), [x], sizes, x.axes, module=module)
    return b.emit(name, kinds.Pooling(mode, size, size, "valid"), [x], sizes, x.axes, module=module)


def _windows(rank: int, kernel_size: Any, stride: Any, padding: Any) -> tuple[tuple[int, ...], ...]:
    size = each(kernel_size, rank)
    return size, each(stride, rank) if stride is not None else size, each(padding, rank)


def _pooling(mode: str, x: Seen, size: Sequence[int], step: Sequence[int], pads: Sequence[int]) -> kinds.Pooling:
    """Return a pooling, its padding by name where it has one."""
    size, step = tuple(size), tuple(step)
    if not any(pads):
        return kinds.Pooling(mode, size, step, "valid")
    same = [same_padding(*axis) for axis in zip(x.sizes[:-1], size, step, strict=True)]
    pairs = tuple((p, p) for p in pads)
    if tuple(same) == pairs:
        return kinds.Pooling(mode, size, step, "same")
    return kinds.Pooling(mode, size, step, "explicit", pairs)


def _require_floor(
    name: str,
    x: Seen,
    sizes: Sequence[int],
    size: Sequence[int],
    step: Sequence[int],
    pads: Sequence[int],
    ceil_mode: bool,
) -> None:
    axes = zip(x.sizes[:-1], size, step, pads, strict=True)
    floor = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in axes)
    if ceil_mode and floor != tuple(sizes[:-1]):
        raise refuse(name, "ceil_mode=True, where it makes a difference,", "Pad the input instead.")
