"""The states and gates of torch's recurrent modules, computed where the fused kernel hides them.

A fused kernel returns the hidden states of its last layer only. The gates of step t are
functions of the input of step t and of the hidden state before it, which is known, so all
steps are computed at once; the cell states follow by one walk over time. Lower layers are
run again by themselves. Everything is differentiable, and its gradient is that of the walk.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from arspec import SpecError, UnsupportedError
from arspec_torch._source import Call, Captured

GATES = {
    "LSTM": ("input_gate", "forget_gate", "cell_gate", "output_gate"),
    "GRU": ("reset_gate", "update_gate", "cell_gate"),
    "RNN": (),
}
AXES = "batch time feature"
_FUSED = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu}

Sequence = tuple[Tensor, Tensor | None]  # (batch, time, feature), and lengths where it was packed


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of one layer of a recurrent module."""

    layer: int
    reverse: bool

    @property
    def suffix(self) -> str:
        """How the names of its parameters end."""
        return f"_l{self.layer}" + ("_reverse" if self.reverse else "")


def captured_input(call: Call) -> Captured:
    """Return what a recurrent module is given."""
    return _captured(_sequence(call.module, call.argument(0, "input")))


def captured_output(call: Call) -> Captured:
    """Return the sequence that a recurrent module returns, without its last states."""
    return _captured(_sequence(call.module, call.output[0]))


def captured_end(call: Call, *, layer: int, wanted: str) -> Captured:
    """Return the input or the output of one layer, both directions side by side."""
    find = _layer_input if wanted == "input" else _layer_output
    return _captured(find(call, call.module, layer))


def captured(call: Call, *, direction: Direction, wanted: str) -> Captured:
    """Return a state, a gate, the input or the pre_activation of one direction of one layer."""
    module: Any = call.module
    if wanted == "hidden_state":
        return _captured(_hidden(call, module, direction))
    if wanted == "input":
        return _captured(_layer_input(call, module, direction.layer))
    key = (direction, "gates")
    if key not in call.cache:
        call.cache[key] = _steps(call, module, direction)
    steps: Mapping[str, Tensor] = call.cache[key]
    lengths = _layer_input(call, module, direction.layer)[1]
    if wanted == "cell_state":
        return _captured((_cells(call, module, direction, steps, lengths), lengths))
    return _captured((steps[wanted], lengths))


def _captured(sequence: Sequence) -> Captured:
    return Captured(sequence[0], AXES, sequence[1])


def _sequence(module: Any, given: Any) -> Sequence:
    """Return a sequence as (batch, time, feature), one without a batch as a batch of one."""
    if isinstance(given, PackedSequence):
        padded, lengths = pad_packed_sequence(given, batch_first=True)
        return padded, lengths
    if not isinstance(given, Tensor):
        raise SpecError(f"the input of a {type(module).__name__} is a {type(given).__name__}; expected a tensor.")
    if given.dim() == 2:
        return given.unsqueeze(0), None
    return (given if module.batch_first else given.transpose(0, 1)), None


def _layer_input(call: Call, module: Any, layer: int) -> Sequence:
    if layer == 0:
        return _sequence(module, call.argument(0, "input"))
    return _layer_output(call, module, layer - 1)


def _layer_output(call: Call, module: Any, layer: int) -> Sequence:
    """Return the output of a layer, both directions side by side; all but the last are run again."""
    if layer == module.num_layers - 1:
        return _sequence(module, call.output[0])
    if ("output", layer) not in call.cache:
        call.cache["output", layer] = _run_again(call, module, layer)
    return call.cache["output", layer]


def _run_again(call: Call, module: Any, layer: int) -> Sequence:
    _refuse_dropout(module, layer)
    x, lengths = _layer_input(call, module, layer)
    sides = ("", "_reverse") if module.bidirectional else ("",)
    weights = [getattr(module, name) for side in sides for name in _weight_names(module, f"_l{layer}{side}")]
    first = layer * len(sides)
    states = [state[first : first + len(sides)].contiguous() for state in _initial(call, module, x)]
    options = (weights, bool(module.bias), 1, 0.0, module.training, module.bidirectional)
    fused: Any = _FUSED[module.mode]
    if lengths is None:
        hx = states if module.mode == "LSTM" else states[0]
        return fused(x, hx, *options, True)[0], None
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    ordered = [state if packed.sorted_indices is None else state[:, packed.sorted_indices] for state in states]
    hx = ordered if module.mode == "LSTM" else ordered[0]
    data = fused(packed.data, packed.batch_sizes, hx, *options)[0]
    result = PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
    return pad_packed_sequence(result, batch_first=True, total_length=x.shape[1])


def _refuse_dropout(module: Any, layer: int) -> None:
    """Refuse what depends on a dropout inside the fused kernel, which nobody can see."""
    if layer > 0 and module.training and module.dropout > 0:
        raise UnsupportedError(
            f"layer {layer} of a {type(module).__name__} with dropout={module.dropout} is given what its dropout "
            "left, which the fused kernel does not show. Write one module per layer with nn.Dropout between them."
        )


def _weight_names(module: Any, suffix: str) -> list[str]:
    names = [f"weight_ih{suffix}", f"weight_hh{suffix}"]
    return [*names, f"bias_ih{suffix}", f"bias_hh{suffix}"] if module.bias else names


def _initial(call: Call, module: Any, x: Tensor) -> tuple[Tensor, ...]:
    """Return the initial states, each (layers · directions, batch, units)."""
    given = call.argument(1, "hx")
    count = 2 if module.mode == "LSTM" else 1
    if given is None:
        sides = 2 if module.bidirectional else 1
        shape = (module.num_layers * sides, x.shape[0], module.hidden_size)
        return tuple(torch.zeros(shape, dtype=x.dtype, device=x.device) for _ in range(count))
    states = tuple(given) if count == 2 else (given,)
    return tuple(state.unsqueeze(1) if state.dim() == 2 else state for state in states)


def _initial_of(call: Call, module: Any, direction: Direction, x: Tensor) -> tuple[Tensor, ...]:
    sides = 2 if module.bidirectional else 1
    return tuple(state[direction.layer * sides + int(direction.reverse)] for state in _initial(call, module, x))


def _hidden(call: Call, module: Any, direction: Direction) -> Sequence:
    output, lengths = _layer_output(call, module, direction.layer)
    if not module.bidirectional:
        return output, lengths
    return output.chunk(2, -1)[int(direction.reverse)], lengths


def _steps(call: Call, module: Any, direction: Direction) -> dict[str, Tensor]:
    """Return the gates of every step at once, or the pre_activation of a plain RNN."""
    if direction.layer > 0:
        _refuse_dropout(module, direction.layer)
    x, lengths = _layer_input(call, module, direction.layer)
    hidden, _ = _hidden(call, module, direction)
    before = _shifted(hidden, _initial_of(call, module, direction, x)[0], direction.reverse, lengths)
    weights = {name: getattr(module, name + direction.suffix, None) for name in _NAMES}
    return gates(module.mode.partition("_")[0], x, before, weights)


_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def gates(kind: str, x: Tensor, before: Tensor, weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the gates of steps, given their inputs and the hidden states before them."""
    of_input = F.linear(x, weights["weight_ih"], weights["bias_ih"])
    of_state = F.linear(before, weights["weight_hh"], weights["bias_hh"])
    if kind == "RNN":
        return {"pre_activation": of_input + of_state}
    if kind == "LSTM":
        i, f, g, o = (of_input + of_state).chunk(4, -1)
        return dict(zip(GATES[kind], (i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()), strict=True))
    (r, z, n), (state_r, state_z, state_n) = of_input.chunk(3, -1), of_state.chunk(3, -1)
    reset, update = (r + state_r).sigmoid(), (z + state_z).sigmoid()
    return dict(zip(GATES[kind], (reset, update, (n + reset * state_n).tanh()), strict=True))


def _shifted(hidden: Tensor, initial: Tensor, reverse: bool, lengths: Tensor | None) -> Tensor:
    """Return, for every step, the state it started from."""
    edge = initial.to(hidden.dtype).unsqueeze(1)
    if not reverse:
        return torch.cat([edge, hidden[:, :-1]], 1)
    after = torch.cat([hidden[:, 1:], edge], 1)
    if lengths is None:
        return after
    steps = torch.arange(hidden.shape[1], device=hidden.device)
    is_last = steps[None, :] >= lengths.to(hidden.device)[:, None] - 1
    return torch.where(is_last[..., None], edge, after)


def _cells(
    call: Call, module: Any, direction: Direction, steps: Mapping[str, Tensor], lengths: Tensor | None
) -> Tensor:
    """Return the cell states: c_t = f · c_{t−1} + i · g, in the order of the walk."""
    i, f, g, _ = (steps[name] for name in GATES["LSTM"])
    time = range(i.shape[1])
    cell = _initial_of(call, module, direction, i)[1].to(i.dtype)
    cells: list[Tensor] = []
    for t in reversed(time) if direction.reverse else time:
        new = f[:, t] * cell + i[:, t] * g[:, t]
        # In reverse the walk starts at the last step there is: padding behind it does not happen.
        cell = new if lengths is None else torch.where((lengths.to(i.device) > t)[:, None], new, cell)
        cells.append(cell)
    return torch.stack(cells[::-1] if direction.reverse else cells, 1)


def captured_step(call: Call, *, kind: str, wanted: str) -> Captured:
    """Return a state, a gate, the input or the pre_activation of one call of a cell."""
    x = call.argument(0, "input")
    if wanted == "input":
        return Captured(_batched(x), "batch feature")
    hidden, cell = call.output if kind == "LSTM" else (call.output, None)
    if wanted in ("hidden_state", "cell_state"):
        return Captured(_batched(hidden if wanted == "hidden_state" else cell), "batch feature")
    given = call.argument(1, "hx")
    before = torch.zeros_like(hidden) if given is None else given[0] if kind == "LSTM" else given
    if "gates" not in call.cache:
        weights = {name: getattr(call.module, name) for name in _NAMES}
        call.cache["gates"] = gates(kind, x, before, weights)
    return Captured(_batched(call.cache["gates"][wanted]), "batch feature")


def _batched(x: Any) -> Tensor:
    return x.unsqueeze(0) if x.dim() == 1 else x
