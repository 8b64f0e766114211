"""Which kind each function, operator and method of a tensor is that people call in `forward`."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.nn import functional as F

from arspec.port import _kinds as kinds
from arspec.port._kinds import refuse
from arspec_torch.port import _fx_elementwise as elementwise
from arspec_torch.port._builder import Builder, Seen, first
from arspec_torch.port._fx_call import reshaped
from arspec_torch.port._fx_elementwise import Use
from arspec_torch.port._fx_recurrent import States
from arspec_torch.port._fx_spatial import upsampling, zero_padding
from arspec_torch.port._fx_windows import adaptive_pooling, average_pooling, max_pooling


def _inexact(use: Use) -> Seen:
    raise refuse(use.name, "a function that torch computes with 1/6 in float32", "Use the module, nn.Hardswish.")


def _reshape(use: Use) -> Seen:
    return reshaped(use.builder, use.tensor, use.node, use.name)


def _permute(use: Use) -> Seen:
    given = use.node.args[1:] or (use.node.kwargs.get("dims"),)
    wanted = use.builder.trace.static(given[0] if isinstance(given[0], list | tuple) else given)
    x = use.tensor
    return Seen(x.reference, x.sizes, tuple(x.axes[axis] for axis in wanted))


def _transpose(use: Use) -> Seen:
    x, one, other = use.tensor, int(use.get(1, "dim0")), int(use.get(2, "dim1"))
    axes = list(x.axes)
    axes[one], axes[other] = axes[other], axes[one]
    return Seen(x.reference, x.sizes, tuple(axes))


def _as_it_is(use: Use) -> Seen:
    return use.tensor


def _reduction(mode: str) -> Callable[[Use], Seen]:
    def read(use: Use) -> Seen:
        x, given, keep = use.tensor, use.get(1, "dim"), bool(use.get(2, "keepdim", False))
        use.allow(dtype=None)
        dims = given if isinstance(given, tuple) else (given,)
        if None in dims or x.rank < 3 or {x.axes[axis] for axis in dims} != set(range(1, x.rank - 1)):
            raise refuse(use.name, f"{mode} over the axes {given}", "Reduce all axes but those of batch and features.")
        kind = kinds.GlobalPooling(mode, keep)
        if keep:
            return use.builder.emit(use.name, kind, [x], (*(1,) * (x.rank - 2), x.sizes[-1]), x.axes)
        batch_first = x.axes.index(0) < x.axes.index(x.rank - 1)
        return use.builder.emit(use.name, kind, [x], x.sizes[-1:], (0, 1) if batch_first else (1, 0))

    return read


def _pool(mode: str) -> Callable[[Use], Seen]:
    def read(use: Use) -> Seen:
        b, x = use.builder, use.builder.arrange(use.tensor, first(use.tensor.rank), use.name)
        common = {"kernel_size": use.get(1, "kernel_size"), "stride": use.get(2, "stride") or None}
        common["padding"] = use.get(3, "padding", 0)
        if mode == "max":
            # The one with indices and the one without have their arguments in one order.
            options = {"dilation": use.get(4, "dilation", 1), "ceil_mode": use.get(5, "ceil_mode", False)}
            indices = bool(use.get(6, "return_indices", False))
            return max_pooling(b, x, use.node, use.name, "", indices=indices, **common, **options)
        options = {"ceil_mode": use.get(4, "ceil_mode", False), "divisor": use.get(6, "divisor_override")}
        count = use.get(5, "count_include_pad", True)
        return average_pooling(b, x, use.node, use.name, "", count_include_pad=count, **common, **options)

    return read


def _adaptive(mode: str) -> Callable[[Use], Seen]:
    def read(use: Use) -> Seen:
        x = use.builder.arrange(use.tensor, first(use.tensor.rank), use.name)
        return adaptive_pooling(use.builder, x, use.node, use.name, "", mode=mode)

    return read


def _dropout(mode: str) -> Callable[[Use], Seen]:
    def read(use: Use) -> Seen:
        rate, training = float(use.get(1, "p", 0.5)), use.get(2, "training", True)
        if not training or rate == 0.0:
            return use.tensor
        raise refuse(
            use.name,
            f"{mode} as a function, which cannot be switched off to compare numbers,",
            "Use the module nn.Dropout.",
        )

    return read


def _pad(use: Use) -> Seen:
    mode, value = use.get(2, "mode", "constant"), use.get(3, "value")
    if mode != "constant" or value:
        raise refuse(use.name, f"padding with mode={mode!r}, value={value!r}", "Pad with zeros.")
    return zero_padding(use.builder, use.tensor, use.get(1, "pad"), use.name)


def _interpolate(use: Use) -> Seen:
    mode, align = use.get(3, "mode", "nearest"), bool(use.get(4, "align_corners"))
    use.allow(antialias=False)
    return upsampling(use.builder, use.tensor, use.node, use.name, mode, align)


def _layer_norm_function(use: Use) -> Seen:
    shape, weight, bias = (use.get(i, n) for i, n in enumerate(("normalized_shape", "weight", "bias"), 1))
    if len(shape) != 1 or weight is not None or bias is not None:
        raise refuse(use.name, "F.layer_norm with weights of its own", "Use the module nn.LayerNorm.")
    x = use.builder.feature_at(use.tensor, -1, use.name)
    kind = kinds.LayerNormalization(float(use.get(4, "eps", 1e-5)), use_scale=False, use_shift=False)
    return use.same(kind, x)


def _item(use: Use) -> Seen:
    """Take one result of a module that gives several, or one step of a sequence."""
    node, index = use.node.args
    given = use.builder.values[node] if isinstance(node, fx.Node) else None
    if isinstance(given, tuple) and isinstance(index, int):
        return given[index]
    if isinstance(given, States) and isinstance(index, int):
        return given.directions[index]
    if isinstance(given, Seen) and isinstance(node, fx.Node) and node.op == "call_module" and index == 0:
        return given
    if isinstance(given, Seen) and isinstance(index, tuple) and all(isinstance(each, slice) for each in index):
        return _cut(use, given, use.builder.trace.static(index))
    if isinstance(given, Seen) and given.axes == (0, 1, 2) and isinstance(index, tuple) and len(index) == 2:
        return _step(use, given, *index)
    raise refuse(use.name, f"x[{index!r}]", "A step can be taken out of (batch, time, feature), as in x[:, -1].")


def _cut(use: Use, x: Seen, cuts: tuple[slice, ...]) -> Seen:
    """Add a cut of spatial axes, as in x[:, :, 1:-1]."""
    kept = {axis: cut for axis, cut in zip(x.axes, cuts, strict=False) if cut != slice(None)}
    if any(cut.step not in (None, 1) for cut in kept.values()) or not set(kept) <= set(range(1, x.rank - 1)):
        raise refuse(use.name, f"x[{cuts}]", "Cut spatial axes without a step, channels and batch not at all.")
    spatial = [(axis, x.sizes[axis - 1]) for axis in range(1, x.rank - 1)]
    ranges = [range(size)[kept.get(axis, slice(None))] for axis, size in spatial]
    cropping = tuple((r.start, size - r.stop) for r, (_, size) in zip(ranges, spatial, strict=True))
    sizes = (*(len(r) for r in ranges), x.sizes[-1])
    return use.builder.emit(use.name, kinds.Cropping(cropping), [x], sizes, x.axes)


def _step(use: Use, x: Seen, batch: Any, index: Any) -> Seen:
    """Add what cuts one step out of a sequence."""
    if batch != slice(None) or not isinstance(index, int) or not -x.sizes[0] <= index < x.sizes[0]:
        raise refuse(use.name, f"x[{batch!r}, {index!r}]", "Take one step, as in x[:, -1].")
    before, features = index % x.sizes[0], x.sizes[1]
    kind = kinds.Cropping(((before, x.sizes[0] - 1 - before),))
    cut = use.builder.emit(use.builder.fresh(f"{use.name}_step"), kind, [x], (1, features), x.axes)
    return use.builder.emit(use.name, kinds.Flatten(), [cut], (features,), (0, 1))


_SHAPES = ("flatten", "reshape", "view", "unflatten", "squeeze", "unsqueeze")

FUNCTIONS: dict[Any, Callable[[Use], Seen]] = {
    **dict.fromkeys((F.relu, torch.relu, F.relu_, torch.relu_), elementwise.plain("relu")),
    F.relu6: elementwise.plain("relu6"),
    **dict.fromkeys((F.selu, torch.selu), elementwise.plain("selu")),
    **dict.fromkeys((F.silu,), elementwise.plain("silu")),
    **dict.fromkeys((F.hardswish, F.hardsigmoid), _inexact),
    **dict.fromkeys((F.sigmoid, torch.sigmoid), elementwise.plain("sigmoid")),
    **dict.fromkeys((F.tanh, torch.tanh), elementwise.plain("tanh")),
    F.softsign: elementwise.plain("softsign"),
    F.mish: elementwise.plain("mish"),
    torch.exp: elementwise.plain("exponential"),
    F.leaky_relu: elementwise.with_parameter("leaky_relu", "negative_slope", 0.01),
    F.elu: elementwise.with_parameter("elu", "alpha", 1.0),
    **dict.fromkeys((F.celu, torch.celu), elementwise.with_parameter("celu", "alpha", 1.0)),
    F.gelu: elementwise.gelu,
    F.softplus: elementwise.softplus,
    **dict.fromkeys((F.softmax, torch.softmax), elementwise.softmax("softmax")),
    **dict.fromkeys((F.log_softmax, torch.log_softmax), elementwise.softmax("log_softmax")),
    **dict.fromkeys((operator.add, operator.iadd, torch.add), elementwise.merge("add")),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub), elementwise.merge("subtract")),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul), elementwise.merge("multiply")),
    **dict.fromkeys((operator.truediv, operator.itruediv, torch.div), elementwise.merge("divide")),
    **dict.fromkeys((torch.maximum,), elementwise.merge("maximum")),
    **dict.fromkeys((torch.minimum,), elementwise.merge("minimum")),
    **dict.fromkeys((operator.neg, torch.neg), elementwise.negative),
    **dict.fromkeys((torch.cat, torch.concat), elementwise.concatenate),
    **dict.fromkeys((torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze), _reshape),
    torch.permute: _permute,
    **dict.fromkeys((torch.transpose, torch.swapaxes), _transpose),
    torch.mean: _reduction("average"),
    torch.amax: _reduction("max"),
    **dict.fromkeys((F.max_pool1d, F.max_pool2d, F.max_pool3d), _pool("max")),
    **dict.fromkeys((F.avg_pool1d, F.avg_pool2d, F.avg_pool3d), _pool("average")),
    **dict.fromkeys((F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d), _adaptive("average")),
    **dict.fromkeys((F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d), _adaptive("max")),
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.dropout), _dropout("dropout")),
    F.pad: _pad,
    F.interpolate: _interpolate,
    F.layer_norm: _layer_norm_function,
    operator.getitem: _item,
}

METHODS: dict[str, Callable[[Use], Seen]] = {
    **{name: elementwise.plain(name) for name in ("relu", "sigmoid", "tanh")},
    **{f"{name}_": elementwise.plain(name) for name in ("relu", "sigmoid", "tanh")},
    "exp": elementwise.plain("exponential"),
    "softmax": elementwise.softmax("softmax"),
    "log_softmax": elementwise.softmax("log_softmax"),
    **{f"{name}{tail}": elementwise.merge(name) for name in ("add",) for tail in ("", "_")},
    **{
        f"{short}{tail}": elementwise.merge(name)
        for short, name in (("sub", "subtract"), ("mul", "multiply"))
        for tail in ("", "_")
    },
    **dict.fromkeys(("div", "div_"), elementwise.merge("divide")),
    "neg": elementwise.negative,
    **dict.fromkeys(_SHAPES, _reshape),
    "permute": _permute,
    **dict.fromkeys(("transpose", "swapaxes"), _transpose),
    "mean": _reduction("average"),
    "amax": _reduction("max"),
    **dict.fromkeys(("contiguous", "clone"), _as_it_is),
}


def read_function(builder: Builder, node: fx.Node) -> Seen:
    """Add what a call of a function, an operator or a method of a tensor computes.

    Raises
    ------
    UnsupportedError: it has no kind; named, with where it is called.
    """
    target: Any = node.target
    name = builder.fresh(node.name)
    found = METHODS.get(target) if node.op == "call_method" else FUNCTIONS.get(_hashable(target))
    if found is None:
        what = f"Tensor.{target}" if node.op == "call_method" else getattr(target, "__name__", str(target))
        raise refuse(_where(node), f"{what}()", "Write it with modules of torch.nn, or with functions such as F.relu.")
    return found(Use(builder, node, name))


def _hashable(target: Any) -> Any:
    return getattr(target, "fn", target)


def _where(node: fx.Node) -> str:
    stack = node.stack_trace or ""
    line = next((each.strip() for each in reversed(stack.splitlines()) if each.strip().startswith("File")), "")
    return f"{node.name} ({line})" if line else node.name
