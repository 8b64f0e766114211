"""Reading Keras layers over sequences: embeddings, recurrent layers, attention."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

import keras
from arspec.port import _kinds as kinds
from arspec.port._kinds import Kind, refuse
from arspec_keras.port._settings import Held, Shapes, function, weights

L = keras.layers


def _embedding(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    kind = kinds.Embedding(layer.input_dim, layer.output_dim, layer.mask_zero)
    return kind, weights(layer, embeddings="embeddings")


def _masking(layer: Any, path: str, shapes: Shapes) -> tuple[Kind, Held]:
    return kinds.Masking(), {}


def _options(layer: Any, path: str, shapes: Shapes) -> dict[str, Any]:
    if layer.stateful:
        raise refuse(path, "stateful=True", "Return the states and give them to the next call.")
    if layer.dropout or layer.recurrent_dropout:
        raise refuse(path, "dropout inside a recurrent layer", "Put a Dropout layer before it.")
    return {
        "units": layer.units,
        "activation": function(layer.activation, path),
        "use_bias": layer.use_bias,
        "return_sequences": layer.return_sequences,
        "return_state": layer.return_state,
        "reverse": layer.go_backwards,
        "initial_state": len(shapes) > 1,
        "zero_masked": bool(layer.zero_output_for_mask),
    }


def _recurrent_weights(layer: Any) -> Held:
    return weights(layer.cell, kernel="kernel", recurrent_kernel="recurrent_kernel", bias="bias")


def _simple_rnn(layer: Any, path: str, shapes: Shapes) -> tuple[Kind, Held]:
    return kinds.SimpleRNN(**_options(layer, path, shapes)), _recurrent_weights(layer)


def _lstm(layer: Any, path: str, shapes: Shapes) -> tuple[Kind, Held]:
    gate = function(layer.recurrent_activation, path)
    return kinds.LSTM(**_options(layer, path, shapes), recurrent_activation=gate), _recurrent_weights(layer)


def _gru(layer: Any, path: str, shapes: Shapes) -> tuple[Kind, Held]:
    gate = function(layer.recurrent_activation, path)
    kind = kinds.GRU(**_options(layer, path, shapes), recurrent_activation=gate, reset_after=layer.reset_after)
    return kind, _recurrent_weights(layer)


_RECURRENT = {L.SimpleRNN: _simple_rnn, L.LSTM: _lstm, L.GRU: _gru}


def _bidirectional(layer: Any, path: str, shapes: Shapes) -> tuple[Kind, Held]:
    sides = (layer.forward_layer, layer.backward_layer)
    readers = [_RECURRENT.get(type(side)) for side in sides]
    if readers[0] is None or readers[0] is not readers[1] or layer.merge_mode is None:
        raise refuse(path, "this Bidirectional", "Use two LSTM, GRU or SimpleRNN and a merge_mode.")
    if len(shapes) > 1:
        raise refuse(path, "initial_state of a Bidirectional", "Write the two directions as layers of their own.")
    forward, held = readers[0](sides[0], f"{path}/forward", shapes)
    backward, back = readers[0](sides[1], f"{path}/backward", shapes)
    if not isinstance(backward, kinds.Recurrent) or replace(backward, reverse=False) != forward:
        raise refuse(path, "a Bidirectional of unlike layers", "Use the same settings in both directions.")
    found = {f"forward/{role}": variable for role, variable in held.items()}
    return kinds.Bidirectional(forward, layer.merge_mode), found | {f"backward/{role}": v for role, v in back.items()}


def _attention(layer: Any, path: str, shapes: Shapes) -> tuple[Kind, Held]:
    if getattr(layer, "_output_shape", None) is not None or getattr(layer, "_dropout", 0):
        raise refuse(path, "output_shape or dropout of an attention", "Leave them out.")
    if getattr(layer, "_use_gate", False) or getattr(layer, "_sliding_window", None):
        raise refuse(path, "use_gate or sliding_window of an attention", "Leave them out.")
    axes = getattr(layer, "_attention_axes", None)
    if len(shapes[0]) != 2 or (axes is not None and tuple(axes) not in ((1,), (-2,))):
        raise refuse(path, "attention over other axes than one of time", "Reshape to (batch, time, feature).")
    held = {}
    for name in ("query", "key", "value", "output"):
        projection = getattr(layer, f"_{name}_dense")
        held[f"{name}_kernel"] = projection.kernel
        if projection.bias is not None:
            held[f"{name}_bias"] = projection.bias
    value = layer._value_dim or layer._key_dim
    return kinds.MultiHeadAttention(layer._num_heads, layer._key_dim, value, layer._use_bias), held


def called(kind: Kind, options: Mapping[str, Any], path: str) -> Kind:
    """Return a kind with what only the call of an attention says."""
    if not isinstance(kind, kinds.MultiHeadAttention):
        return kind
    if options.get("return_attention_scores"):
        raise refuse(path, "return_attention_scores", "Leave the scores out of the model.")
    return replace(kind, causal=bool(options.get("use_causal_mask")))


def result_shapes(kind: Kind, shapes: Shapes) -> Shapes:
    """Return the shape of every result: a model says nothing of the states that nobody reads."""
    cell = kind.layer if isinstance(kind, kinds.Bidirectional) else kind
    if not isinstance(cell, kinds.Recurrent) or not cell.return_state:
        return shapes
    states = (1 + isinstance(cell, kinds.LSTM)) * (1 + isinstance(kind, kinds.Bidirectional))
    return (shapes[0], *[(cell.units,)] * states)


def _refused(what: str, cure: str) -> Callable[[Any, str, Shapes], NoReturn]:
    def reader(layer: Any, path: str, _: Shapes) -> NoReturn:
        held = getattr(layer, "cell", None) or getattr(layer, "layer", None)
        inner = f" of a {type(held).__name__}" if held is not None else ""
        raise refuse(path, what + inner, cure)

    return reader


_NO_TARGET = "No other framework has one; write its steps with convolutions."
READERS: dict[Any, Callable[[Any, str, Shapes], tuple[Kind, Held]]] = {
    L.Embedding: _embedding,
    L.Masking: _masking,
    **_RECURRENT,
    L.Bidirectional: _bidirectional,
    L.MultiHeadAttention: _attention,
    **dict.fromkeys((L.ConvLSTM1D, L.ConvLSTM2D, L.ConvLSTM3D), _refused("a ConvLSTM", _NO_TARGET)),
    L.RNN: _refused("an RNN", "Write it as the layer LSTM, GRU or SimpleRNN, without a cell."),
    L.TimeDistributed: _refused(
        "a TimeDistributed", "A Dense, an Embedding or a LayerNormalization runs over every step without it."
    ),
}
