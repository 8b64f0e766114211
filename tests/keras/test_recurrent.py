"""Recurrent layers of Keras: states, gates, weights and masks as in the reference layers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import arspec as ar
import keras
from arspec.layers import Network
from arspec_keras import attach, detach, losses, sites
from keras_models import number
from keras_reference import assert_model_same, assert_same, weights_of
from reference_layers import FEATURES, MASKS, SEQUENCE, TIME, UNITS, bidirectional, gru, lstm, random, simple_rnn

LAYERS = keras.layers
X = np.asarray(SEQUENCE, np.float32)
KINDS: dict[str, tuple[Any, Any, tuple[str, ...]]] = {
    "simple rnn": (simple_rnn, LAYERS.SimpleRNN, ("pre_activation",)),
    "lstm": (lstm, LAYERS.LSTM, ("cell_state", "input_gate", "forget_gate", "cell_gate", "output_gate")),
    "gru": (gru, LAYERS.GRU, ("update_gate", "reset_gate", "cell_gate")),
    "gru reset before": (
        lambda **options: gru(reset_after=False, **options),
        lambda *a, **options: LAYERS.GRU(*a, reset_after=False, **options),
        ("update_gate", "reset_gate", "cell_gate"),
    ),
}
WEIGHTS = ("kernel", "recurrent_kernel", "bias")


def rules_of(layer: str, steps: Sequence[str]) -> list[ar.Rule]:
    """Return a rule of its own for every placement."""
    listed = ["input", "hidden_state", "output", *steps]
    penalties = [ar.L2(0.3 + 0.1 * i) if i % 2 else ar.L1(0.2 + 0.1 * i) for i in range(len(listed))]
    rules = [
        ar.Rule(penalty, layer=layer, placement=placement, mean_over=("batch", "time") if i % 3 else "sum")
        for i, (penalty, placement) in enumerate(zip(penalties, listed, strict=True))
        if placement != "output"
    ]
    rules.append(ar.Rule(ar.L2(0.7), layer=layer, placement="output"))
    return rules + [ar.Rule(ar.L1L2(0.1, 0.2), layer=layer, placement=placement) for placement in WEIGHTS]


CASES = [(kind, sequences, mask) for kind in KINDS for sequences, mask in ((True, None), (False, "holes"))]
CASES += [("lstm", True, "behind"), ("gru", True, "in front"), ("lstm", False, None), ("simple rnn", True, "holes")]


@pytest.mark.parametrize(("kind", "sequences", "mask"), CASES)
def test_b3_states_and_gates_of_valid_steps(kind: str, sequences: bool, mask: str | None) -> None:
    ours, theirs, steps = KINDS[kind]
    layer = theirs(UNITS, return_sequences=sequences, name="rnn")
    valid = None if mask is None else MASKS[mask]
    assert_same(layer, ours(return_sequences=sequences), rules_of("rnn", steps), X, valid)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_b3_a_traced_step_with_a_mask(kind: str) -> None:
    ours, theirs, steps = KINDS[kind]
    layer = theirs(UNITS, return_sequences=True, name="rnn")
    assert_same(layer, ours(), rules_of("rnn", steps), X, MASKS["holes"], traced=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_walk_backwards_stands_in_the_order_of_time(kind: str) -> None:
    """The output is left out: Keras returns it in the order of the walk."""
    ours, theirs, steps = KINDS[kind]
    rules = [rule for rule in rules_of("rnn", steps) if rule.placement != "output"]
    tar = [ar.Rule(ar.TemporalDifference(0.3), layer="rnn", placement=step) for step in ("hidden_state", *steps)]
    layer = theirs(UNITS, return_sequences=True, go_backwards=True, name="rnn")
    assert_same(layer, ours(reverse=True), [*rules, *tar], X, MASKS["holes"])


@pytest.mark.parametrize(
    ("kind", "sequences", "merge", "mask"),
    [("lstm", True, "concat", "holes"), ("gru", False, "sum", "holes"), ("simple rnn", True, "mul", None)],
)
def test_bidirectional(kind: str, sequences: bool, merge: str, mask: str | None) -> None:
    ours, theirs, steps = KINDS[kind]
    layer = LAYERS.Bidirectional(theirs(UNITS, return_sequences=sequences), merge_mode=merge, name="both")
    reference = bidirectional(ours, merge=merge, return_sequences=sequences, zero_output_for_mask=sequences)
    rules = [ar.Rule(ar.L2(0.5), layer="both", placement="output")]
    for part in ("forward", "backward"):
        rules += [rule for rule in rules_of(f"both/{part}", steps) if rule.placement not in ("output", "input")]
    assert_same(layer, reference, rules, X, None if mask is None else MASKS[mask])


def test_stacked_layers_and_a_glob() -> None:
    first, second = LAYERS.LSTM(UNITS, return_sequences=True, name="one"), LAYERS.GRU(3, name="two")
    model = keras.Sequential([keras.Input((TIME, FEATURES)), first, second])
    upper = ar.layers.GRU(random(UNITS, 9), random(3, 9), random(2, 9), return_sequences=False)
    lower = lstm()
    model.set_weights([np.asarray(w, np.float32) for w in (*weights_of(lower), *weights_of(upper))])
    rules = [ar.Rule(ar.L2(0.3), layer="*", placement="hidden_state")]
    rules += [ar.Rule(ar.L1(0.2), layer="**", placement=placement) for placement in ("cell_gate", *WEIGHTS)]
    rules.append(ar.Rule(ar.TemporalDifference(0.4), layer="one", placement="hidden_state"))
    assert_model_same(model, Network({"one": lower, "two": upper}), rules, X)


def test_initial_states_and_an_embedding_with_padding() -> None:
    """The mask of the embedding reaches every placement behind it, and the initial state the first gates."""
    tokens = np.array([[3, 1, 0, 2], [2, 2, 1, 0], [0, 0, 0, 1]])
    table = random(4, FEATURES)
    embedding, reference = LAYERS.Embedding(4, FEATURES, mask_zero=True, name="table"), lstm()
    model = keras.Sequential([keras.Input((4,), dtype="int32"), embedding, LAYERS.LSTM(UNITS, name="rnn")])
    model.set_weights([np.asarray(w, np.float32) for w in (table, *weights_of(reference))])
    rules = [rule for rule in rules_of("rnn", KINDS["lstm"][2]) if rule.placement != "output"]
    rules.append(ar.Rule(ar.L1(0.2), layer="table", placement="output", mean_over="mean"))
    rules.append(ar.Rule(ar.L2(0.2), layer="table", placement="embeddings"))
    network = Network({"table": ar.layers.Embedding(table, mask_zero=True), "rnn": lstm(return_sequences=False)})
    assert_model_same(model, network, rules, tokens)


def test_an_initial_state() -> None:
    states = [np.asarray(random(len(X), UNITS, seed=seed), np.float32) for seed in (0, 1)]
    layer, reference = LAYERS.LSTM(UNITS, name="rnn"), lstm(return_sequences=False)
    given = [keras.Input((TIME, FEATURES)), keras.Input((UNITS,)), keras.Input((UNITS,))]
    model = keras.Model(given, layer(given[0], initial_state=given[1:]))
    layer.set_weights([np.asarray(w, np.float32) for w in weights_of(reference)])
    placements = ("hidden_state", *KINDS["lstm"][2])
    attach(model, ar.Spec([ar.Rule(ar.L2(1.0), layer="rnn", placement=p, mean_over="sum") for p in placements]))
    model([X, *states])
    record = reference.forward(X, initial_state=states)
    for key, loss in losses(model).items():
        np.testing.assert_allclose(
            number(loss), ar.value(ar.L2(1.0), record[key.split("/")[1]]), rtol=1e-5, err_msg=key
        )


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_that_of_the_layer(kind: str) -> None:
    """What the gates are computed from is what the layer computed its states from."""
    _, theirs, _ = KINDS[kind]
    inputs = keras.Input((TIME, FEATURES))
    layer = theirs(
        UNITS, dropout=0.5, recurrent_dropout=0.25, return_sequences=True, bias_initializer="normal", name="rnn"
    )
    model = keras.Model(inputs, layer(inputs))
    spec = [ar.Rule(ar.L2(1.0), layer="rnn", placement=p, mean_over="sum") for p in ("hidden_state", "output")]
    if kind == "lstm":
        spec.append(ar.Rule(ar.L2(1.0), layer="rnn", placement="cell_state", mean_over="sum"))
    attach(model, ar.Spec(spec))
    output = number(model(X, training=True))
    found = {key: float(number(loss)) for key, loss in losses(model).items()}
    np.testing.assert_allclose(found["rnn/hidden_state/l2"], ar.value(ar.L2(1.0), output), rtol=1e-6)
    assert not np.allclose(output, number(model(X)))


def test_b5_a_placement_names_one_tensor() -> None:
    model = keras.Sequential([keras.Input((TIME, FEATURES)), LAYERS.LSTM(UNITS, return_state=True, name="rnn")])
    attach(model, ar.Spec([ar.Rule(ar.L2(1.0), layer="rnn", placement="hidden_state")]))
    hidden = number(model(X)[0])
    assert len(model.losses) == 1
    table = sites(model)
    assert table[0].shape == (len(X), TIME, UNITS)
    assert table[0].tensor == "h of every step"
    assert np.isfinite(hidden).all()
    with pytest.raises(ar.UnsupportedError, match=r"layer 'rnn' returns 3 tensors; a placement names one tensor"):
        attach(keras.Sequential(model.layers), ar.Spec([ar.Rule(ar.L2(1.0), layer="rnn", placement="output")]))(X)


def test_c10_a_cell_is_refused_by_name() -> None:
    cell = LAYERS.LSTMCell(UNITS, name="cell")
    model = keras.Sequential([keras.Input((TIME, FEATURES)), LAYERS.RNN(cell, name="rnn")])
    for placement in ("output", "input"):
        with pytest.raises(ar.UnsupportedError, match=r"'rnn/cell' \(LSTMCell\), .*once per time step inside 'rnn'"):
            attach(model, ar.Spec([ar.Rule(ar.L1(1.0), layer="rnn/cell", placement=placement)]))
    attach(model, ar.Spec([ar.Rule(ar.L1(1.0), layer="rnn", placement="forget_gate")]))(X)


def test_cells_of_others_have_no_steps() -> None:
    class Cell(LAYERS.LSTMCell):
        pass

    stacked = LAYERS.RNN([LAYERS.GRUCell(3), LAYERS.GRUCell(2)], name="stack")
    model = keras.Sequential(
        [keras.Input((TIME, FEATURES)), LAYERS.RNN(Cell(2), return_sequences=True, name="own"), stacked]
    )
    for name in ("own", "stack"):
        with pytest.raises(
            ar.UnsupportedError, match=rf"layer '{name}' \(RNN\), hidden_state: .*LSTMCell, GRUCell or SimpleRNNCell"
        ):
            attach(model, ar.Spec([ar.Rule(ar.L1(1.0), layer=name, placement="hidden_state")]))
    attach(model, ar.Spec([ar.Rule(ar.L1(1.0), layer="**", placement="recurrent_kernel")]))(X)
    assert len(model.losses) == 3


def test_b4_time_distributed() -> None:
    """Keras 3 drops the activity penalty of the layer inside; the layer around it has all the steps."""
    inner = LAYERS.Dense(2, activity_regularizer="l1", name="d")
    model = keras.Sequential([keras.Input((TIME, FEATURES)), LAYERS.TimeDistributed(inner, name="td")])
    rules = [
        ar.Rule(ar.L1(0.01), layer="td", placement="output", mean_over=axes) for axes in (("batch",), ("batch", "time"))
    ]
    attach(model, ar.Spec([*rules, ar.Rule(ar.L2(0.1), layer="td/d", placement="kernel")]))
    output = number(model(X))
    assert len(model.losses) == 3
    found = [float(number(loss)) for loss in losses(model).values()]
    expected = [np.abs(output).sum() * 0.01 / len(X), np.abs(output).sum() * 0.01 / len(X) / TIME]
    np.testing.assert_allclose(found[:2], expected, rtol=1e-6)


def test_c6_a_fused_kernel_for_both_directions_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU Keras may run both directions at once, past the two layers inside."""
    monkeypatch.setattr(LAYERS.Bidirectional, "_call_fused_lstm", lambda *_: pytest.fail("both directions at once"))
    layer = LAYERS.Bidirectional(LAYERS.LSTM(UNITS, return_sequences=True), name="both")
    model = keras.Sequential([keras.Input((TIME, FEATURES)), layer])
    rule = ar.Rule(ar.L2(1.0), layer="both/*", placement="hidden_state")
    attach(model, ar.Spec([rule]))(X)
    assert len(model.losses) == 2
    detach(model)
    if hasattr(layer, "_can_attempt_fused_lstm"):
        with pytest.raises(pytest.fail.Exception):
            model(X)
