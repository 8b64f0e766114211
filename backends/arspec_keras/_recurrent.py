"""Recurrent layers: the sequences of states and gates that their loops keep to themselves.

Hidden states are what the layer's own loop returns when it is asked for every step. For
cell states and gates the loop runs a second time over the layer's own cell, with its
dropout, its mask and its initial state, and returns what the cell's functions give.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
from arspec_keras import _backend
from arspec_keras._taps import Recorder, Records, Seen, Wrapped, activation_seen

_STEPS: dict[type, tuple[str, ...]] = {
    keras.layers.SimpleRNNCell: ("pre_activation",),
    keras.layers.LSTMCell: ("cell_state", "input_gate", "forget_gate", "cell_gate", "output_gate"),
    keras.layers.GRUCell: ("update_gate", "reset_gate", "cell_gate"),
}
ALL_STEPS = frozenset({"hidden_state"}.union(*_STEPS.values()))


def steps_of(layer: keras.Layer) -> tuple[str, ...]:
    """Return the placements besides hidden_state that the steps of a recurrent layer have."""
    return _STEPS.get(type(getattr(layer, "cell", None)), ())


def is_walked(layer: keras.Layer) -> bool:
    """Return whether the layer is an RNN whose cell defines the placements of a step."""
    return isinstance(layer, keras.layers.RNN) and type(layer.cell) in _STEPS


def tap_steps(layer: Any, recorder: Recorder, wanted: frozenset[str]) -> Wrapped:
    """Record the sequences of a recurrent layer, in the order of time, under their placements."""

    def make(inner: Callable[..., Any]) -> Callable[..., Any]:
        def inner_loop(sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
            records = recorder.records
            if records is None:
                return inner(sequences, initial_state, mask, training)
            valid = mask[0] if isinstance(mask, list | tuple) else mask
            with _every_step(layer):
                result = inner(sequences, initial_state, mask, training)
            _record(records, layer, {"hidden_state": result[1]}, valid)
            if wanted - {"hidden_state"}:
                _record(records, layer, _walk(layer, sequences, initial_state, valid, training), valid)
            return result

        return inner_loop

    return Wrapped(layer, make, "inner_loop")


def tap_directions(layer: Any) -> Wrapped:
    """Let a Bidirectional run its two layers; a fused kernel for both would go past them."""

    def make(inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            attributes = vars(layer)
            for name in ("_can_attempt_fused_lstm", "_can_attempt_fused_gru"):
                attributes[name] = _never
            try:
                return inner(*args, **kwargs)
            finally:
                for name in ("_can_attempt_fused_lstm", "_can_attempt_fused_gru"):
                    del attributes[name]

        return call

    return Wrapped(layer, make)


def _never(*_: Any, **__: Any) -> bool:
    return False


def _record(records: Records, layer: Any, sequences: dict[str, Any], mask: Any) -> None:
    for placement, sequence in sequences.items():
        in_time = keras.ops.flip(sequence, axis=1) if layer.go_backwards else sequence
        records.setdefault((id(layer), placement), []).append(Seen(in_time, mask))


@contextmanager
def _every_step(layer: Any) -> Iterator[None]:
    """Ask the loop for every step; it returns the last one besides, which the layer then takes."""
    attributes, asked = vars(layer), layer.return_sequences
    attributes["return_sequences"] = True
    try:
        yield
    finally:
        attributes["return_sequences"] = asked


def _walk(layer: Any, sequences: Any, initial_state: Any, mask: Any, training: bool) -> dict[str, Any]:
    """Run the loop over the layer's cell again and return its named sequences, in the order of the loop."""
    cell, names = layer.cell, steps_of(layer)
    options = {"training": training}

    def step(x: Any, states: Any) -> Any:
        inner: list[Any] = []
        gates: list[Any] = []
        simple = names == ("pre_activation",)
        with (
            activation_seen(cell, "activation", inner, inputs=simple),
            activation_seen(cell, "recurrent_activation", gates, inputs=False),
        ):
            _, after = cell.call(x, states, **options)
        after = after if isinstance(after, list | tuple) else [after]
        return keras.ops.concatenate(_named(names, inner, gates, after), axis=-1), after

    joined = _backend.loop(
        step, sequences, list(initial_state), go_backwards=layer.go_backwards, mask=mask, unroll=layer.unroll
    )
    return dict(zip(names, keras.ops.split(joined, len(names), axis=-1), strict=True))


def _named(names: tuple[str, ...], inner: list[Any], gates: list[Any], after: Any) -> list[Any]:
    """Order what the functions of one step gave: a cell calls them in the order i, f, g, o or z, r, n."""
    if "cell_state" in names:
        i, f, o = gates
        return [after[1], i, f, inner[0], o]
    return [*gates, inner[0]]
