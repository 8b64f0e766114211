"""Which kinds nn.LSTM, nn.GRU and nn.RNN are: one layer, one direction or two, time behind the batch.

A graph has one bias where torch has two, except for a GRU. So an LSTM is exact only if its
second bias stays at zero, as `arspec_torch.port.write` has it: else its sum would train
twice as fast as one bias does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from arspec.port import _kinds as kinds
from arspec.port._kinds import Function, Kind
from arspec.port._mapping import Step
from arspec_torch.port._builder import Seen, Weight, last
from arspec_torch.port._fx_call import Call

_KINDS: dict[type[nn.Module], Any] = {nn.RNN: kinds.SimpleRNN, nn.LSTM: kinds.LSTM, nn.GRU: kinds.GRU}
_GATES = {nn.RNN: 1, nn.LSTM: 4, nn.GRU: 3}


@dataclass(frozen=True, slots=True)
class States:
    """A tensor (direction, batch, feature) of torch, of which a graph has each direction by itself."""

    directions: tuple[Seen, ...]


def read(call: Call, x: Seen, *others: Any) -> Any:
    """Add a recurrent layer, and return what torch does: (sequence, states)."""
    m, b = call.module, call.builder
    _require_exact(call, len(others))
    if x.rank != 3:
        raise call.refuse(f"an input of {x.rank} axes", "Give it (batch, time, feature).")
    x = b.arrange(x, last(3), call.name)
    sequence, hidden, cell = _used(call.node, isinstance(m, nn.LSTM))
    two = m.bidirectional
    if two and (hidden or cell):
        raise call.refuse("the states of two directions", "Use the sequence that the layer gives.")
    states = cell or (hidden and sequence)
    kind = _kind(m, return_sequences=sequence or two, return_state=states)
    weights = [w for side in (("forward", "backward") if two else ("",)) for w in _weights(call, side)]
    for weight in _second_biases(m):
        b.derived[f"{call.path}.{weight}"] = 0.0
    steps, units = (x.sizes[0], m.hidden_size * (1 + two)), (m.hidden_size,)
    first = steps if kind_returns_sequence(kind) else units
    more = [units] * (1 + isinstance(m, nn.LSTM)) if states else []
    result = b.emit(
        call.name, kind, [x], first, last(len(first) + 1), weights, call.path if sequence and not states else "", more
    )
    h, c = (Seen(f"{result.reference}:{index}", units, last(2)) for index in (1, 2))
    held = States((h if states else result,))
    return result, (held, States((c,))) if isinstance(m, nn.LSTM) else held


def kind_returns_sequence(kind: Kind) -> bool:
    """Return whether the first result of a recurrent layer has an axis of time."""
    return bool(getattr(getattr(kind, "layer", kind), "return_sequences", False))


def _kind(m: Any, **returned: bool) -> Kind:
    activation = Function(m.nonlinearity if isinstance(m, nn.RNN) else "tanh")
    one = _KINDS[type(m)](units=m.hidden_size, activation=activation, use_bias=m.bias, **returned)
    return kinds.Bidirectional(one, "concat") if m.bidirectional else one


def _used(node: fx.Node, has_cell: bool) -> tuple[bool, bool, bool]:
    """Return whether the sequence, the hidden state and the cell state are read by anything."""
    parts = [(user.args[1], user) for user in node.users if user.users]
    sequence = any(index == 0 for index, _ in parts)
    states = [user for index, user in parts if index == 1]
    if not has_cell:
        return sequence, bool(states), False
    inner = [user.args[1] for one in states for user in one.users if user.users]
    return sequence, 0 in inner, 1 in inner


def _weights(call: Call, side: str) -> list[Weight]:
    m, units = call.module, call.module.hidden_size
    wide, features = _GATES[type(m)] * units, m.input_size
    order: tuple[Step, ...] = (("order", (1, 0, 2)),) if isinstance(m, nn.GRU) else ()
    tail = "_l0_reverse" if side == "backward" else "_l0"
    prefix, path = (f"{side}/" if side else ""), call.path
    found = [
        Weight(f"{prefix}kernel", f"{path}.weight_ih{tail}", (features, wide), (*order, ("transpose", (1, 0)))),
        Weight(f"{prefix}recurrent_kernel", f"{path}.weight_hh{tail}", (units, wide), (*order, ("transpose", (1, 0)))),
    ]
    if m.bias and isinstance(m, nn.GRU):
        steps: tuple[Step, ...] = (("reshape", (wide,)), *order)
        for row, name in enumerate(("bias_ih", "bias_hh")):
            take = ((0, row, row + 1),)
            found.append(Weight(f"{prefix}bias", f"{path}.{name}{tail}", (2, wide), steps, take=take))
    elif m.bias:
        found.append(Weight(f"{prefix}bias", f"{path}.bias_ih{tail}", (wide,)))
    return found


def _second_biases(m: Any) -> list[str]:
    if not m.bias or isinstance(m, nn.GRU):
        return []
    return [name for name, _ in m.named_parameters() if name.startswith("bias_hh")]


def _require_exact(call: Call, others: int) -> None:
    m = call.module
    if m.num_layers > 1 or m.dropout or getattr(m, "proj_size", 0) or not m.batch_first or others:
        raise call.refuse(
            "a recurrent layer with several layers, dropout, proj_size, initial states or without batch_first",
            "Write one nn.LSTM(..., batch_first=True) per layer.",
        )
    for name in _second_biases(m):
        bias = getattr(m, name)
        if bias.requires_grad or bias.detach().count_nonzero():
            raise call.refuse(
                f"{name}, a second bias that trains or is not zero,",
                "Add it to bias_ih, set it to zero and call requires_grad_(False) on it: training moves the sum of two "
                "biases twice as far.",
            )


READERS: dict[type[nn.Module], Callable[..., Any]] = dict.fromkeys((nn.RNN, nn.LSTM, nn.GRU), read)
