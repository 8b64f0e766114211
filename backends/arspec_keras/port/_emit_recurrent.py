"""Recurrent layers in Keras source code, in one direction or two."""

from collections.abc import Callable
from typing import Any

from arspec.port import _kinds as kinds
from arspec.port._graph import Node
from arspec.port._kinds import Kind
from arspec.port._source import Value
from arspec_keras.port._pieces import named, options, unless
from arspec_keras.port._write import KerasWriter

_STATES: dict[type[Kind], tuple[str, ...]] = {
    kinds.SimpleRNN: ("hidden_state", "pre_activation"),
    kinds.LSTM: ("hidden_state", "cell_state", "input_gate", "forget_gate", "cell_gate", "output_gate"),
    kinds.GRU: ("hidden_state", "reset_gate", "update_gate", "cell_gate"),
}
_CELLS: dict[type[Kind], str] = {
    kinds.SimpleRNN: "simple_rnn_cell",
    kinds.LSTM: "lstm_cell",
    kinds.GRU: "gru_cell",
}


def _one(w: KerasWriter, node: Node, path: str, kind: Kind, x: list[Value]) -> tuple[Value, ...]:
    cell: Any = kind
    weights = {role: f"{_CELLS[type(kind)]}/{role}" for role in kind.roles()}
    call = w.keras_layer(node, path, _constructor(w, cell, path), x[:1], weights)
    for placement in _STATES[type(kind)]:
        w.place(path, placement, w.layers[path].path, placement)
    return _results(w, node, call)


def _both(w: KerasWriter, kind: kinds.Bidirectional, node: Node, path: str, x: list[Value]) -> tuple[Value, ...]:
    cell: Any = kind.layer
    inner = _CELLS[type(cell)].removesuffix("_cell")
    sides = ("forward", "backward")
    weights = {
        f"{side}/{role}": f"{side}_{inner}/{_CELLS[type(cell)]}/{role}" for side in sides for role in cell.roles()
    }
    merge = options(merge_mode=unless(kind.merge, "concat"))
    head = f"layers.Bidirectional({_constructor(w, cell, path)}, name={inner!r}){merge}"
    call = w.keras_layer(node, path, head, x[:1], weights)
    target = w.layers[path].path
    for side in sides:
        for placement in (*_STATES[type(cell)], *cell.roles(), "input"):
            w.place(f"{path}/{side}", placement, f"{target}/{side}", placement)
    return _results(w, node, call)


def _constructor(w: KerasWriter, cell: Any, path: str) -> str:
    """Return the constructor of a layer in one direction without its end."""
    if cell.masked or cell.initial_state:
        raise w.refuse(path, "a recurrent layer with a mask or an initial state", "Leave it out.")
    given = [cell.activation, *([cell.recurrent_activation] if hasattr(cell, "recurrent_activation") else [])]
    names = [named(function) for function in given]
    if None in names:
        raise w.refuse(path, f"{given} inside a recurrent layer", "Use activation functions that Keras has by name.")
    head = f"layers.{type(cell).__name__}({cell.units}" + options(activation=unless(names[0], "tanh"))
    head += options(recurrent_activation=unless(names[-1], "sigmoid")) if len(names) > 1 else ""
    return head + options(
        use_bias=unless(cell.use_bias, True),
        return_sequences=unless(cell.return_sequences, False),
        return_state=unless(cell.return_state, False),
        go_backwards=unless(cell.reverse, False),
        reset_after=unless(getattr(cell, "reset_after", True), True),
    )


def _results(w: KerasWriter, node: Node, call: str) -> tuple[Value, ...]:
    if len(node.shapes) == 1:
        return (Value(call, node.shapes[0]),)
    names = [w.identifier(f"{node.name}_{index}") for index in range(len(node.shapes))]
    w.scope.calls.append(f"{', '.join(names)} = {call}")
    return tuple(Value(name, shape) for name, shape in zip(names, node.shapes, strict=True))


def _emit(w: KerasWriter, kind: Kind, node: Node, path: str, arguments: list[Value]) -> tuple[Value, ...]:
    return _one(w, node, path, kind, arguments)


EMITTERS: dict[type[Kind], Callable[..., Any]] = {
    **dict.fromkeys((kinds.SimpleRNN, kinds.LSTM, kinds.GRU), _emit),
    kinds.Bidirectional: _both,
}
