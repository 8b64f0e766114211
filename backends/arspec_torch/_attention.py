"""The placements of nn.MultiheadAttention, whose projections are no modules that run.

torch stacks the weights of queries, keys and values into in_proj_weight, and reads
out_proj without calling it: no hook of out_proj ever fires.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn

from arspec_torch._source import Call, Captured, Found, Source, input_of, parameter, rows

_PROJECTIONS = ("query", "key", "value")


def found_in(path: str, name: str, module: nn.MultiheadAttention) -> list[Found]:
    """Return the attention and its out_proj, which can only be named through the attention."""
    axes = "batch time feature" if module.batch_first else "time batch feature"
    sources = {
        "input": Source(module, f"{name}(query)", capture=partial(_query, axes=axes), before=True),
        "output": Source(module, f"{name}()", capture=partial(_attended, axes=axes)),
        **_kernels(name, module),
        **_biases(name, module),
    }
    inner = f"{path}/out_proj"
    hints = {
        **dict.fromkeys(("input", "pre_activation", "output"), f"It never runs as a module: name output of {path!r}."),
        "kernel": f"It is the output_kernel of {path!r}.",
        "bias": f"It is the output_bias of {path!r}.",
    }
    own: dict[str, str] = dict.fromkeys(
        ("kernel", "bias"), "Name query_kernel, key_kernel, value_kernel or output_kernel, or _bias."
    )
    return [
        Found(path, type(module).__name__, sources, hints=own),
        Found(inner, type(module.out_proj).__name__, {}, hints=hints),
    ]


def _kernels(name: str, module: Any) -> dict[str, Source]:
    found = {"output_kernel": Source(module.out_proj, f"{name}.out_proj.weight", "output input", ("weight",))}
    for index, projection in enumerate(_PROJECTIONS):
        apart = f"{projection[0]}_proj_weight"
        if module.in_proj_weight is None:
            found[f"{projection}_kernel"] = parameter(module, name, apart, "output input")
        else:
            found[f"{projection}_kernel"] = _third(module, name, "in_proj_weight", "output input", index)
    return found


def _biases(name: str, module: Any) -> dict[str, Source]:
    if module.in_proj_bias is None:
        return {}
    found = {f"{p}_bias": _third(module, name, "in_proj_bias", "output", i) for i, p in enumerate(_PROJECTIONS)}
    return {**found, "output_bias": Source(module.out_proj, f"{name}.out_proj.bias", "output", ("bias",))}


def _third(module: Any, name: str, attribute: str, axes: str, index: int) -> Source:
    start, stop = index * module.embed_dim, (index + 1) * module.embed_dim
    cut = partial(rows, start=start, stop=stop)
    return Source(module, f"{name}.{attribute}[{start}:{stop}]", axes, (attribute,), cut, part=_PROJECTIONS[index])


def _query(call: Call, *, axes: str) -> Captured:
    return _batched(call.argument(0, "query"), axes)


def _attended(call: Call, *, axes: str) -> Captured:
    return _batched(call.output[0], axes)


def _batched(tensor: Tensor, axes: str) -> Captured:
    """Return a sequence without a batch as a batch of one."""
    return Captured(tensor, axes) if tensor.dim() == 3 else Captured(tensor.unsqueeze(0), "batch time feature")


def found_in_transformer(path: str, name: str, module: nn.Module) -> list[Found]:
    """Return a layer or a stack of torch's Transformer: its input and its output."""
    axes = transformer_axes(module)
    ends = {
        "input": input_of(module, name, axes),
        "output": Source(module, f"{name}()", capture=partial(_whole_output, axes=axes)),
    }
    return [Found(path, type(module).__name__, ends, in_globs=False)]


def _whole_output(call: Call, *, axes: str | None) -> Captured:
    return Captured(call.output, axes)


TRANSFORMERS = (
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)


def transformer_axes(module: nn.Module) -> str | None:
    """Return the names of the axes in torch's Transformer modules: batch_first says them."""
    attentions = (inner for inner in module.modules() if isinstance(inner, nn.MultiheadAttention))
    first = next(attentions, None)
    if first is None:
        return None
    return "batch time feature" if first.batch_first else "time batch feature"


def keep_slow_path(module: nn.Module, args: tuple[Any, ...]) -> None:
    """Do nothing, as a forward pre-hook: where there is one, torch does not fuse a Transformer layer.

    In evaluation without gradients the fused kernel would run none of the modules inside.
    """
