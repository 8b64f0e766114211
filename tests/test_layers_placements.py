"""What the reference layers define: which placements there are, masks, errors."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import arspec as ar
from arspec import layers
from arspec._axes import resolve_axes
from arspec._placements import PLACEMENTS
from reference_layers import (
    BATCH,
    CASES,
    FEATURES,
    MASKS,
    SEQUENCE,
    TIME,
    TOKENS,
    UNITS,
    attention,
    batch_normalization,
    bidirectional,
    convolution,
    depthwise,
    gru,
    lstm,
    random,
    separable,
    simple_rnn,
)

SERVED = {
    "dense": {"input", "pre_activation", "output", "kernel", "bias"},
    "flatten": {"input", "output"},
    "conv 2-D groups": {"input", "pre_activation", "output", "kernel", "bias"},
    "depthwise 2-D": {"input", "pre_activation", "output", "kernel", "bias"},
    "separable 2-D": {"input", "pre_activation", "output", "depthwise_kernel", "pointwise_kernel", "bias"},
    "simple rnn": {"input", "pre_activation", "output", "hidden_state", "kernel", "recurrent_kernel", "bias"},
    "lstm": {
        *("input", "output", "hidden_state", "cell_state", "input_gate", "forget_gate", "cell_gate", "output_gate"),
        *("kernel", "recurrent_kernel", "bias"),
    },
    "gru": {
        *("input", "output", "hidden_state", "cell_gate", "reset_gate", "update_gate"),
        *("kernel", "recurrent_kernel", "bias"),
    },
    "bidirectional lstm": {"input", "output"},
    "attention": {
        *("input", "output", "query_kernel", "key_kernel", "value_kernel", "output_kernel"),
        *("query_bias", "key_bias", "value_bias", "output_bias"),
    },
    "embedding": {"input", "output", "embeddings"},
    "batch normalization": {"input", "output", "scale", "shift"},
    "layer normalization": {"input", "output", "scale", "shift"},
}


@pytest.mark.parametrize("name", SERVED)
def test_which_placements_a_layer_has(name: str) -> None:
    layer, x = CASES[name]
    assert {n for n in layer.forward(x) if n in PLACEMENTS} == SERVED[name]


def test_every_placement_is_defined_by_a_layer() -> None:
    assert set().union(*SERVED.values()) == {*PLACEMENTS}


@pytest.mark.parametrize("name", CASES)
def test_axes_of_what_a_penalty_sees(name: str) -> None:
    """Each parameter's axes end in "input output" or are "output"; the names fit the rank."""
    layer, x = CASES[name]
    record = layer.forward(x)
    for placement, parameter in layer.parameters().items():
        seen, axes = layer.penalized(placement, record[placement]), layer.axes(placement)
        assert axes is not None
        assert axes == "output" or axes.endswith("input output")
        assert len(resolve_axes(seen.ndim, axes).names) == seen.ndim
        np.testing.assert_array_equal(np.ravel(seen), np.ravel(parameter))


@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_its_record_and_changes_nothing(name: str) -> None:
    layer, x = CASES[name]
    before = x.copy()
    one, two = layer.forward(x), layer.forward(x)
    assert all(np.array_equal(one[key], two[key]) for key in one)
    np.testing.assert_array_equal(x, before)
    assert one["output"] is not one.get("hidden_state")


def test_input_gate_and_all_others_are_after_their_functions() -> None:
    for make, gates in ((lstm, ("input_gate", "forget_gate", "output_gate")), (gru, ("reset_gate", "update_gate"))):
        record = make().forward(10 * SEQUENCE)
        for gate in gates:
            assert record[gate].min() >= 0
            assert record[gate].max() <= 1
        assert record["cell_gate"].min() < 0
        assert np.abs(record["cell_gate"]).max() <= 1


def test_an_open_update_gate_keeps_the_old_state() -> None:
    layer = gru()
    bias = np.zeros((2, 3 * UNITS))
    bias[0, :UNITS] = 1000.0
    kept = layers.GRU(layer.kernel, layer.recurrent_kernel, bias)
    state = random(BATCH, UNITS)
    record = kept.forward(SEQUENCE, initial_state=state)
    np.testing.assert_array_equal(record["update_gate"], np.ones((BATCH, TIME, UNITS)))
    np.testing.assert_array_equal(record["hidden_state"], np.broadcast_to(state[:, None], (BATCH, TIME, UNITS)))


@pytest.mark.parametrize("make", [simple_rnn, lstm, gru])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("mask", ["behind", "in front", "holes", "an empty example"])
def test_a_padded_step_does_not_happen(make: Any, reverse: bool, mask: str) -> None:
    """Valid steps are those of the sequence without the padded ones; on them the state is carried."""
    layer, valid = make(reverse=reverse), MASKS[mask]
    record = layer.forward(SEQUENCE, mask=valid)
    for b in range(BATCH):
        alone = layer.forward(SEQUENCE[b : b + 1, valid[b]])
        for name in (*layer.state_names, *layer.step_names):
            np.testing.assert_allclose(record[name][b, valid[b]], alone[name][0], rtol=1e-13, err_msg=name)
        for name in layer.step_names:
            assert not np.any(record[name][b, ~valid[b]])
        for name in layer.state_names:
            carried = np.zeros(UNITS)
            for t in reversed(range(TIME)) if reverse else range(TIME):
                carried = record[name][b, t] if valid[b, t] else carried
                np.testing.assert_array_equal(record[name][b, t], carried)


def test_a_walk_in_reverse_is_the_walk_over_the_reversed_sequence() -> None:
    forward = lstm().forward(SEQUENCE[:, ::-1])
    reverse = lstm(reverse=True).forward(SEQUENCE)
    for name in ("hidden_state", "cell_state", "input_gate", "output"):
        np.testing.assert_array_equal(reverse[name], forward[name][:, ::-1])


def test_output_of_padded_steps() -> None:
    valid = MASKS["behind"]
    carried, zero = (lstm(zero_output_for_mask=flag).forward(SEQUENCE, mask=valid) for flag in (False, True))
    np.testing.assert_array_equal(carried["output"], carried["hidden_state"])
    assert np.any(carried["output"][~valid])
    assert not np.any(zero["output"][~valid])
    np.testing.assert_array_equal(zero["hidden_state"], carried["hidden_state"])
    penalty = {"mask": valid, "mean_over": ("batch", "time")}
    assert ar.value(ar.L2(1.0), zero["output"], **penalty) == ar.value(ar.L2(1.0), carried["output"], **penalty)


def test_where_a_mask_goes() -> None:
    valid, whole = MASKS["holes"], MASKS["of the batch"]
    keeps = [layers.Dense(random(FEATURES, UNITS)), lstm(), bidirectional(), attention(), batch_normalization()]
    keeps += [convolution(3, padding="same"), depthwise(3, padding="causal"), separable(3, padding=((2, 0),))]
    for layer in keeps:
        np.testing.assert_array_equal(layer.forward(SEQUENCE, mask=valid).mask, valid)
    for layer in (gru(return_sequences=False), layers.Flatten()):
        assert layer.forward(SEQUENCE, mask=valid).mask is None
        np.testing.assert_array_equal(layer.forward(SEQUENCE, mask=whole).mask, whole)
    embedded = layers.Embedding(random(4, FEATURES), mask_zero=True)
    both = embedded.forward(TOKENS, mask=np.array([True, False])).mask
    np.testing.assert_array_equal(both, (TOKENS != 0) & np.array([[True], [False]]))


@pytest.mark.parametrize(("padding", "strides"), [("valid", 1), ("same", 2), ("causal", 2), (((1, 0),), 1)], ids=str)
def test_a_mask_does_not_pass_where_positions_move(padding: Any, strides: int) -> None:
    layer = convolution(3, padding=padding, strides=strides)
    text = r"Convolution with padding=.* moves positions, so that the mask of shape \(3, 7\) has no meaning behind it;"
    with pytest.raises(ar.UnsupportedError, match=text):
        layer.forward(SEQUENCE, mask=MASKS["holes"])
    np.testing.assert_array_equal(layer.forward(SEQUENCE, mask=MASKS["of the batch"]).mask, MASKS["of the batch"])


ERRORS: dict[str, tuple[Any, str]] = {
    "rank": (lambda: layers.Dense(random(3)), r"Dense.kernel has shape \(3,\); expected 2 axes."),
    "bias": (lambda: layers.Dense(random(3, 2), random(3)), r"Dense.bias has shape \(3,\); expected \(2,\)."),
    "dtype": (lambda: layers.Dense(np.array([["a"]])), r"Dense.kernel has dtype <U1; expected numbers."),
    "function": (
        lambda: layers.Dense(random(3, 2), activation="rely"),
        r"unknown activation of Dense 'rely'; .*'relu'\?",
    ),
    "gates": (
        lambda: layers.LSTM(random(3, 6), random(2, 6)),
        r"recurrent_kernel has shape \(2, 6\); expected \(2, 8\).",
    ),
    "one bias": (lambda: gru(bias=(6,)), r"GRU.bias has shape \(6,\); expected \(2, 6\)."),
    "two biases": (lambda: gru(bias=(2, 6), reset_after=False), r"GRU.bias has shape \(2, 6\); expected \(6,\)."),
    "state": (
        lambda: lstm().forward(SEQUENCE, initial_state=random(BATCH, UNITS)),
        r"initial_state has the shapes \(3, 2\); expected 2 of shape \(3, 2\).",
    ),
    "features": (
        lambda: lstm().forward(random(3, 7, 4)),
        r"LSTM: x has shape \(3, 7, 4\); expected \(batch, ..., 5 features\).",
    ),
    "mask dtype": (
        lambda: lstm().forward(SEQUENCE, mask=np.ones((3, 7))),
        r"mask has dtype float64 and shape \(3, 7\);",
    ),
    "mask shape": (
        lambda: lstm().forward(SEQUENCE, mask=np.ones((3, 6), bool)),
        r"mask has dtype bool and shape \(3, 6\);",
    ),
    "padding": (lambda: convolution(3, 3, padding="causal"), r"padding='causal'; expected 'valid', 'same' or 2 pairs"),
    "strides": (
        lambda: convolution(3, 3, strides=(1, 0)),
        r"strides=\(1, 0\); expected a whole number >= 1, or 2 of them.",
    ),
    "groups": (lambda: convolution(3, groups=5, outputs=7), r"groups=5 does not divide 7 features."),
    "size": (lambda: convolution(9).forward(SEQUENCE), r"a kernel of size \(9,\) does not fit the padded input, shape"),
    "pointwise": (
        lambda: layers.SeparableConvolution(random(3, 5, 2), random(1, 9, 4)),
        r"pointwise_kernel \(1, 9, 4\); expected pointwise_kernel \(1, ..., 10, output\).",
    ),
    "directions": (
        lambda: layers.Bidirectional(lstm(), lstm()),
        r"reverse is \(False, False\) .* expected \(False, True\).",
    ),
    "sequences": (
        lambda: layers.Bidirectional(lstm(), lstm(reverse=True, return_sequences=False)),
        "return_sequences differs in its layers",
    ),
    "merge": (
        lambda: bidirectional(merge="add"),
        r"unknown merge of Bidirectional 'add'; allowed: ave, concat, mul, sum.",
    ),
    "no key": (
        lambda: attention().forward(SEQUENCE, attention_mask=np.eye(TIME, k=1, dtype=bool)),
        "a valid query has no key to attend to; mask the query too.",
    ),
    "key alone": (lambda: attention().forward(SEQUENCE, key=SEQUENCE), "key and value_mask need value"),
    "tokens": (lambda: layers.Embedding(random(4, 5)).forward(np.array([[4]])), r"tokens 4 to 4; expected 0 to 3."),
    "not tokens": (
        lambda: layers.Embedding(random(4, 5)).forward(SEQUENCE),
        r"x has dtype float64, .* integer tokens.",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    make, text = ERRORS[name]
    with pytest.raises(ar.SpecError, match=text):
        make()


def test_importing_arspec_leaves_the_layers_alone() -> None:
    code = "import sys, arspec; print(any(name.startswith('arspec.layers') for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
