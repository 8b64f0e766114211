"""The placements of nn.LSTM, nn.GRU and nn.RNN, layer by layer and direction by direction.

A module of one layer and one direction has its placements at its own path, "lstm". Two
directions are "lstm/forward" and "lstm/backward", several layers "lstm/0", "lstm/1", or
"lstm/0/forward" where there are both; `input` and `output` of the whole stay at "lstm".
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from arspec_torch._recurrent_states import (
    GATES,
    Direction,
    captured,
    captured_end,
    captured_input,
    captured_output,
    captured_step,
)
from arspec_torch._source import Found, Source

_STATES = {"LSTM": ("hidden_state", "cell_state"), "GRU": ("hidden_state",), "RNN": ("hidden_state",)}
_PARTS = ("hidden_state", "cell_state", "pre_activation", *GATES["LSTM"], *GATES["GRU"])
_PARAMETERS = ("kernel", "recurrent_kernel", "bias")
_PROJECTED = (
    "with proj_size the state h is a projection, which arspec.layers does not define; "
    "the output can be named, or a Linear after an LSTM without proj_size."
)


def found_in(path: str, name: str, module: nn.RNNBase) -> list[Found]:
    """Return the layers of a recurrent module."""
    whole = {
        "input": Source(module, f"{name}(input)", capture=captured_input, before=True),
        "output": Source(module, f"{name}()", capture=captured_output),
    }
    directions = all_directions(module)
    kind = type(module).__name__
    if len(directions) == 1:
        sources, refused = _placements(name, module, directions[0])
        return [Found(path, kind, {**whole, **sources}, refused)]
    paths = [f"{path}/{subpath(module, direction)}" for direction in directions]
    some = " and ".join(map(repr, paths)) if len(paths) == 2 else f"{paths[0]!r} to {paths[-1]!r}"
    hint = f"It has {len(paths)} parts: name {some}, or all by {path + '/**'!r}."
    # Of several layers the whole is not a layer: a glob meets the last one once.
    is_layer = module.num_layers == 1
    hints = dict.fromkeys((*_PARTS, *_PARAMETERS), hint)
    found = [Found(path, kind, whole, hints=hints, in_globs=is_layer)]
    if module.bidirectional and module.num_layers > 1 and module.proj_size == 0:
        found += [_both_directions(path, name, module, layer) for layer in range(module.num_layers)]
    for part, direction in zip(paths, directions, strict=True):
        sources, refused = _placements(name, module, direction)
        ends = _ends(name, module, direction)
        if module.proj_size > 0:
            refused |= dict.fromkeys(ends, _PROJECTED)
        found.append(Found(part, kind, sources if module.proj_size > 0 else {**ends, **sources}, refused))
    return found


def _both_directions(path: str, name: str, module: nn.RNNBase, layer: int) -> Found:
    """Return one of several layers, as far as its two directions are one tensor."""
    ends = {
        wanted: Source(module, f"{name}().{layer}.{wanted}", capture=partial(captured_end, layer=layer, wanted=wanted))
        for wanted in ("input", "output")
    }
    hint = f"It has two directions: name '{path}/{layer}/forward' or '{path}/{layer}/backward'."
    return Found(f"{path}/{layer}", type(module).__name__, ends, hints=dict.fromkeys((*_PARTS, *_PARAMETERS), hint))


def all_directions(module: nn.RNNBase) -> list[Direction]:
    """Return the directions of every layer of a recurrent module."""
    sides = (False, True) if module.bidirectional else (False,)
    return [Direction(layer, reverse) for layer in range(module.num_layers) for reverse in sides]


def subpath(module: nn.RNNBase, direction: Direction) -> str:
    """Return how the path of a direction goes on behind that of the module: "", "1" or "1/backward"."""
    layer = [str(direction.layer)] if module.num_layers > 1 else []
    side = ["backward" if direction.reverse else "forward"] if module.bidirectional else []
    return "/".join((*layer, *side))


def _ends(name: str, module: nn.RNNBase, direction: Direction) -> dict[str, Source]:
    """Return the sources of input and output of one direction of one layer."""
    shown = f"{name}().{subpath(module, direction)}"
    names = {"input": "input", "output": "hidden_state"}
    return {
        placement: Source(module, f"{shown}.{placement}", capture=partial(captured, direction=direction, wanted=wanted))
        for placement, wanted in names.items()
    }


def _placements(name: str, module: nn.RNNBase, direction: Direction) -> tuple[dict[str, Source], dict[str, str]]:
    kind = module.mode.partition("_")[0]
    wanted = (*_STATES[kind], *GATES[kind]) if kind != "RNN" else ("hidden_state", "pre_activation")
    parameters = _parameters(name, module, kind, direction.suffix)
    if module.proj_size > 0:
        return parameters, dict.fromkeys(wanted, _PROJECTED)
    sub = subpath(module, direction)
    shown = f"{name}()." + (f"{sub}." if sub else "")
    activations = {
        placement: Source(module, shown + placement, capture=partial(captured, direction=direction, wanted=placement))
        for placement in wanted
    }
    return {**activations, **parameters}, {}


def _parameters(name: str, module: Any, kind: str, suffix: str) -> dict[str, Source]:
    reorder = canonical_gates if kind == "GRU" else None
    found = {
        "kernel": Source(module, f"{name}.weight_ih{suffix}", "output input", (f"weight_ih{suffix}",), reorder),
        "recurrent_kernel": Source(
            module, f"{name}.weight_hh{suffix}", "output input", (f"weight_hh{suffix}",), reorder
        ),
    }
    if module.bias:
        names = (f"bias_ih{suffix}", f"bias_hh{suffix}")
        join: Callable[..., Tensor] = _both_biases if kind == "GRU" else torch.add
        sign = ", " if kind == "GRU" else " + "
        shown = sign.join(f"{name}.{one}" for one in names)
        found["bias"] = Source(module, shown, "output", names, join, exact=kind == "GRU")
    return found


def canonical_gates(tensor: Tensor) -> Tensor:
    """Return the thirds r, z, n of torch's GRU as z, r, n, the order of `arspec.layers`."""
    reset, update, new = tensor.chunk(3)
    return torch.cat([update, reset, new])


def _both_biases(of_input: Tensor, of_state: Tensor) -> Tensor:
    return torch.cat([canonical_gates(of_input), canonical_gates(of_state)])


def found_in_cell(path: str, name: str, module: nn.RNNCellBase) -> list[Found]:
    """Return the one layer of a cell: each call of it is a step, and counts.

    Its tensors are (batch, feature): there is no axis "time" to average over.
    """
    kind = {nn.LSTMCell: "LSTM", nn.GRUCell: "GRU"}.get(_cell_class(module), "RNN")
    wanted = (*_STATES[kind], *GATES[kind]) if kind != "RNN" else ("hidden_state", "pre_activation")
    step = {
        placement: Source(module, f"{name}().{placement}", capture=partial(captured_step, kind=kind, wanted=placement))
        for placement in wanted
    }
    ends = {
        "input": Source(module, f"{name}(input)", capture=partial(captured_step, kind=kind, wanted="input")),
        "output": Source(module, f"{name}()", capture=partial(captured_step, kind=kind, wanted="hidden_state")),
    }
    return [Found(path, type(module).__name__, {**ends, **step, **_parameters(name, module, kind, "")})]


def _cell_class(module: nn.Module) -> type[nn.Module]:
    return next((cls for cls in (nn.LSTMCell, nn.GRUCell) if isinstance(module, cls)), nn.RNNCell)
