"""Which kind each module of torch with spatial axes is: convolutions, pools, paddings, enlargements."""

from collections.abc import Callable, Sequence

from torch import fx, nn

from arspec.port import _kinds as kinds
from arspec.port._kinds import Kind, refuse
from arspec.port._mapping import Step
from arspec_torch.port._builder import Builder, Seen, first
from arspec_torch.port._fx_call import Call, batched
from arspec_torch.port._fx_windows import adaptive_pooling, average_pooling, max_pooling, same_or_padded


def _convolution(call: Call, x: Seen) -> Seen:
    m, b = call.module, call.builder
    rank = len(m.kernel_size)
    if m.padding_mode != "zeros":
        raise call.refuse(f"padding_mode={m.padding_mode!r}", "Use 'zeros'.")
    x = batched(call, x, rank + 2)
    x, padding = same_or_padded(b, x, m, call.name)
    options = {
        "kernel_size": tuple(m.kernel_size),
        "strides": tuple(m.stride),
        "padding": padding,
        "dilation": tuple(m.dilation),
        "use_bias": m.bias is not None,
    }
    inside = m.in_channels // m.groups
    if m.groups == m.in_channels > 1 and rank < 3:
        multiplier = m.out_channels // m.in_channels
        kind: Kind = kinds.DepthwiseConvolution(multiplier, **options)
        shape = (*m.kernel_size, m.in_channels, multiplier)
        steps: tuple[Step, ...] = (
            ("transpose", (rank, rank + 1, *range(rank))),
            ("reshape", (m.out_channels, 1, *m.kernel_size)),
        )
    else:
        kind = kinds.Convolution(m.out_channels, groups=m.groups, **options)
        shape, steps = (*m.kernel_size, inside, m.out_channels), (("transpose", (rank + 1, rank, *range(rank))),)
    weights = call.weights(kernel=("weight", shape, steps), bias=("bias", (m.out_channels,), ()))
    return call.give(kind, x, first(rank + 2), weights)


def _transposed(call: Call, x: Seen) -> Seen:
    m, b = call.module, call.builder
    rank = len(m.kernel_size)
    if m.groups != 1 or set(m.dilation) != {1}:
        raise call.refuse("a transposed convolution with groups or dilation", "Leave them out.")
    x = batched(call, x, rank + 2)
    axes = list(zip(m.kernel_size, m.stride, m.padding, m.output_padding, strict=True))
    extra = [max(k - s, 0) for k, s, _, _ in axes]
    is_same = all(2 * p == cut and o == max(s - k, 0) for (k, s, p, o), cut in zip(axes, extra, strict=True))
    crop = tuple((p, p - o + max(s - k, 0)) for k, s, p, o in axes)
    if not is_same and any(after < 0 for _, after in crop):
        raise call.refuse(
            f"output_padding={tuple(m.output_padding)} with padding={tuple(m.padding)}", "Pad the result instead."
        )
    kind = kinds.TransposedConvolution(
        m.out_channels,
        tuple(m.kernel_size),
        tuple(m.stride),
        "same" if is_same else "valid",
        use_bias=m.bias is not None,
    )
    steps = (("transpose", (rank + 1, rank, *range(rank))),)
    shape = (*m.kernel_size, m.out_channels, m.in_channels)
    weights = call.weights(kernel=("weight", shape, steps), bias=("bias", (m.out_channels,), ()))
    if is_same or not any(map(any, crop)):
        return call.give(kind, x, x.axes, weights)
    sizes = b.sizes(call.node, x.axes)
    whole = (*(size + sum(cut) for size, cut in zip(sizes[:-1], crop, strict=True)), sizes[-1])
    full = b.emit(call.name, kind, [x], whole, x.axes, weights)
    return b.emit(b.fresh(f"{call.name}_crop"), kinds.Cropping(crop), [full], sizes, x.axes)


def _pool(call: Call, x: Seen) -> Seen:
    m = call.module
    rank = int(type(m).__name__[-2])
    options = {name: getattr(m, name) for name in ("kernel_size", "stride", "padding", "ceil_mode")}
    x = batched(call, x, rank + 2)
    if "Max" in type(m).__name__:
        return max_pooling(
            call.builder, x, call.node, call.name, call.path, dilation=m.dilation, indices=m.return_indices, **options
        )
    count, divisor = m.count_include_pad, getattr(m, "divisor_override", None)
    return average_pooling(
        call.builder, x, call.node, call.name, call.path, count_include_pad=count, divisor=divisor, **options
    )


def _adaptive(call: Call, x: Seen) -> Seen:
    rank = int(type(call.module).__name__[-2])
    mode = "max" if "Max" in type(call.module).__name__ else "average"
    x = batched(call, x, rank + 2)
    return adaptive_pooling(call.builder, x, call.node, call.name, call.path, mode=mode)


def _zero_pad(call: Call, x: Seen) -> Seen:
    m = call.module
    if getattr(m, "value", 0.0) != 0.0:
        raise call.refuse(f"padding with {m.value}", "Pad with zeros.")
    return zero_padding(call.builder, x, m.padding, call.name, call.path)


def zero_padding(b: Builder, x: Seen, flat: Sequence[int], name: str, module: str = "") -> Seen:
    """Add zeros, `flat` as torch has it: (before, after) of the last axis first."""
    pairs = [(int(flat[i]), int(flat[i + 1])) for i in range(0, len(flat), 2)][::-1]
    pads = [(0, 0)] * (x.rank - len(pairs)) + pairs
    x = b.arrange(x, first(x.rank), name)
    if any(map(any, pads[:2])) or any(n < 0 for pair in pads for n in pair):
        raise refuse(name, f"padding {tuple(flat)}", "Pad spatial axes only, by numbers >= 0.")
    spatial = tuple(pads[2:])
    sizes = (*(n + p + q for n, (p, q) in zip(x.sizes[:-1], spatial, strict=True)), x.sizes[-1])
    return b.emit(name, kinds.ZeroPadding(spatial), [x], sizes, x.axes, module=module)


def _upsample(call: Call, x: Seen) -> Seen:
    mode, align = call.module.mode, bool(call.module.align_corners)
    return upsampling(call.builder, x, call.node, call.name, mode, align, call.path)


def upsampling(b: Builder, x: Seen, node: fx.Node, name: str, mode: str, align: bool, module: str = "") -> Seen:
    """Add an enlargement by whole factors."""
    x = b.arrange(x, first(x.rank), name)
    sizes = b.sizes(node, x.axes)
    factors = tuple(n // m for n, m in zip(sizes[:-1], x.sizes[:-1], strict=True))
    exact = all(n == m * f for n, m, f in zip(sizes[:-1], x.sizes[:-1], factors, strict=True))
    if not exact or mode not in ("nearest", "bilinear") or align:
        raise refuse(
            name,
            f"an enlargement from {x.sizes[:-1]} to {sizes[:-1]} (mode={mode!r}, align_corners={align})",
            "Use whole factors, 'nearest' or 'bilinear', and align_corners=False.",
        )
    return b.emit(name, kinds.UpSampling(factors, mode), [x], sizes, x.axes, module=module)


READERS: dict[type[nn.Module], Callable[..., Seen]] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), _pool),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), _adaptive),
    **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), _adaptive),
    **dict.fromkeys((nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d), _zero_pad),
    **dict.fromkeys((nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d), _zero_pad),
    nn.Upsample: _upsample,
}
