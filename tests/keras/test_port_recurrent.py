"""Recurrent layers, masks and attention from Keras to PyTorch: every level of the certificate holds."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import arspec as ar
import keras
from arspec.port import Certificate
from arspec_keras.port import export
from arspec_keras.port._read import read_model
from arspec_torch.port import check, write
from arspec_torch.port._check import build

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="evidence is measured in float64, which Keras has on TensorFlow"
)

LAYERS = keras.layers
NO_MERGE: Any = None
EACH = ("batch",), ("batch", "time"), ()


def spec_of(*places: tuple[str, str], mean_over: Sequence[Any] = EACH) -> ar.Spec:
    """Return a rule for each place, by turns L1 and L2, with another reduction each."""
    penalties = ar.L1(0.03), ar.L2(0.02)
    return ar.Spec(
        [
            ar.Rule(penalties[k % 2], layer=layer, placement=placement, mean_over=mean_over[k % len(mean_over)])
            for k, (layer, placement) in enumerate(places)
        ]
    )


def joined(*specs: ar.Spec) -> ar.Spec:
    return ar.Spec([rule for spec in specs for rule in spec.rules])


def weights_of(*layers: str) -> ar.Spec:
    """Return rules for kernel, recurrent kernel and bias of layers."""
    names = ("kernel", "recurrent_kernel", "bias")
    return spec_of(*((layer, name) for layer in layers for name in names), mean_over=((),))


def certificate(model: keras.Model, spec: ar.Spec) -> Certificate:
    bundle = export(model, spec)
    written = write(bundle)
    return check(bundle, written, build(bundle, written), faults=False)


def require(model: keras.Model, spec: ar.Spec) -> Certificate:
    found = certificate(model, spec)
    assert found.holds, found.explain()
    assert set(found.levels()) == {"L0", "L1", "L2", "L3", "L4"}
    return found


def test_d4_gates_directions_and_merges() -> None:
    """TRAPS D4, C14: gate orders, one bias or two, and where the backward walk ends."""
    x = keras.Input((3, 5), name="x")
    y = LAYERS.LSTM(4, return_sequences=True, name="lstm")(x)
    y = LAYERS.GRU(3, return_sequences=True, name="gru")(y)
    y = LAYERS.Bidirectional(LAYERS.LSTM(2, return_sequences=True), name="bi")(y)
    y = LAYERS.Bidirectional(LAYERS.GRU(3, return_sequences=True), merge_mode="ave", name="mean")(y)
    y = LAYERS.SimpleRNN(4, activation="relu", return_sequences=True, go_backwards=True, name="rnn")(y)
    y = LAYERS.Bidirectional(LAYERS.SimpleRNN(2, use_bias=False), merge_mode="mul", name="last")(y)
    model = keras.Model(x, y, name="zoo")
    steps = spec_of(
        *(("lstm", "hidden_state"), ("lstm", "cell_state"), ("lstm", "forget_gate"), ("gru", "reset_gate")),
        *(("gru", "output"), ("bi/forward", "hidden_state"), ("bi/backward", "cell_gate"), ("bi", "output")),
        *(("mean", "output"), ("rnn", "pre_activation"), ("rnn", "input"), ("rnn", "output")),
    )
    last = ar.Spec([ar.Rule(ar.L2(0.1), layer="last", placement="output")])
    require(model, joined(steps, last, weights_of("lstm", "gru", "bi/backward", "rnn")))


def test_b3_masks_with_padding_behind_in_front_and_between() -> None:
    """TRAPS B3: padded steps are passed over and do not count, wherever they are."""
    ids = keras.Input((4,), dtype="int32", name="ids")
    x = LAYERS.Embedding(11, 3, mask_zero=True, name="words")(ids)
    x = LAYERS.LSTM(2, return_sequences=True, name="lstm")(x)
    x = LAYERS.Dense(3, activation="relu", name="dense")(x)
    y = LAYERS.Bidirectional(LAYERS.GRU(2), name="both")(x)
    z = LAYERS.GlobalAveragePooling1D(name="mean")(x)
    model = keras.Model(ids, [y, z], name="words_model")
    spec = spec_of(
        *(("words", "output"), ("lstm", "hidden_state"), ("lstm", "output"), ("lstm", "cell_state")),
        *(("lstm", "input"), ("dense", "input"), ("dense", "pre_activation"), ("dense", "output")),
        *(("both/forward", "hidden_state"), ("both/backward", "update_gate"), ("both", "input")),
    )
    steps = ar.Rule(ar.TemporalDifference(0.3), layer="lstm", placement="hidden_state", mean_over=("batch", "time"))
    require(model, joined(spec, ar.Spec([steps])))


def test_b3_masks_of_a_walk_from_the_end() -> None:
    """TRAPS B3: Masking, zeros where a Bidirectional is masked, and go_backwards under a mask."""
    model = keras.Sequential(
        [
            keras.Input((4, 2), name="x"),
            LAYERS.Masking(-1.0, name="masking"),
            LAYERS.Bidirectional(LAYERS.GRU(2, return_sequences=True), merge_mode="sum", name="both"),
            LAYERS.LSTM(3, return_sequences=True, go_backwards=True, name="back"),
            LAYERS.SimpleRNN(2, return_sequences=True, zero_output_for_mask=True, name="zeros"),
            LAYERS.SimpleRNN(2, go_backwards=True, name="last"),
        ],
        name="stack",
    )
    places = (("masking", "output"), ("both", "output"), ("both/backward", "cell_gate"), ("back", "hidden_state"))
    more = (("back", "output"), ("zeros", "output"), ("last", "hidden_state"), ("last", "input"))
    require(model, joined(spec_of(*places, *more), weights_of("back")))


def test_states_pass_from_an_encoder_to_a_decoder() -> None:
    source = keras.Input((3,), dtype="int32", name="source")
    target = keras.Input((2, 3), name="target")
    words = LAYERS.Embedding(7, 3, mask_zero=True, name="words")(source)
    steps, h, c = LAYERS.LSTM(2, return_sequences=True, return_state=True, name="encoder")(words)
    _, forward, backward = LAYERS.Bidirectional(LAYERS.GRU(2, return_state=True), name="both")(steps)
    decoded, _, _ = LAYERS.LSTM(2, return_sequences=True, return_state=True, use_bias=False, name="decoder")(
        target, initial_state=[h, c]
    )
    shared = LAYERS.SimpleRNN(2, name="shared")
    y = LAYERS.GRU(2, name="gru")(decoded, initial_state=forward)
    y = LAYERS.Concatenate(name="all")([y, backward, shared(decoded), shared(LAYERS.Dense(2, name="pre")(target))])
    model = keras.Model([source, target], y, name="translate")
    model.get_layer("decoder").trainable = False
    places = (("encoder", "cell_state"), ("both/backward", "hidden_state"))
    weights = (("decoder", "kernel"), ("shared", "bias"), ("gru", "recurrent_kernel"))
    require(model, joined(spec_of(*places), spec_of(*weights, mean_over=((),))))


def test_a_mask_inside_a_model_inside_and_a_frozen_direction() -> None:
    ids = keras.Input((5,), dtype="int32", name="ids")
    both = LAYERS.Bidirectional(LAYERS.LSTM(2), name="both")
    inner = keras.Model(ids, both(LAYERS.Embedding(7, 3, mask_zero=True, name="words")(ids)), name="inner")
    both.forward_layer.trainable = False
    given = keras.Input((5,), dtype="int32", name="given")
    model = keras.Model(given, LAYERS.Dense(1, name="score")(inner(given)), name="outer")
    require(model, spec_of(("inner/words", "output"), ("inner/both/forward", "hidden_state")))


def encoder(ids: Any, memory: Any, *, masked: bool) -> Any:
    """Return a block with attention to itself, one that looks back only, and one to a memory."""
    x = LAYERS.Embedding(11, 6, mask_zero=masked, name="words")(ids)
    other = LAYERS.Masking(5.0, name="masking")(memory) if masked else memory
    for name, to, causal in (("all", None, False), ("past", None, True), ("cross", other, False)):
        attention = LAYERS.MultiHeadAttention(2, 3, use_bias=not causal, name=name)
        y = attention(x, x if to is None else to, use_causal_mask=causal)
        x = LAYERS.LayerNormalization(name=f"norm_{name}")(LAYERS.Add(name=f"add_{name}")([x, y]))
    y = LAYERS.Dense(6, name="down")(LAYERS.Dense(7, activation="gelu", name="up")(x))
    return LAYERS.LayerNormalization(epsilon=1e-6, name="norm")(LAYERS.Add(name="add")([x, y]))


@pytest.mark.filterwarnings("ignore:.*counts every time step:UserWarning")  # Keras' attention takes masks off
@pytest.mark.parametrize("masked", [False, True])
def test_b6_attention_with_and_without_masks(masked: bool) -> None:
    ids, memory = keras.Input((4,), dtype="int32", name="ids"), keras.Input((5, 6), name="memory")
    model = keras.Model([ids, memory], encoder(ids, memory, masked=masked), name="encoder")
    steps = spec_of(("words", "output"), ("all", "output"), ("past", "input"), ("up", "output"))
    weights = [("all", "query_kernel"), ("all", "output_bias"), ("past", "value_kernel"), ("cross", "key_kernel")]
    require(model, joined(steps, spec_of(*weights, mean_over=((),))))


def test_d2_a_bias_that_trains_twice_is_noticed_by_the_step_alone() -> None:
    """TRAPS D2, C14: with both biases of torch training, only one step shows it."""
    model = keras.Sequential([keras.Input((3, 2), name="x"), LAYERS.LSTM(2, name="lstm")], name="one")
    bundle = export(model, ar.Spec([]))
    written = write(bundle)
    careless = replace(written, text=written.text.replace(".requires_grad_(False)", ""))
    assert careless.text != written.text
    found = check(bundle, careless, build(bundle, careless), faults=False)
    right = check(bundle, written, build(bundle, written))
    assert right.holds
    assert "first at 'lstm'" in right.faults["gates c and o swapped (lstm)"]
    assert {level: holds for level, (_, _, holds) in found.levels().items() if not holds} == {"L4": False}


def test_faults_are_planted_beside_rules_at_states_and_last_outputs() -> None:
    x = keras.Input((3, 2), name="x")
    both = LAYERS.Bidirectional(LAYERS.GRU(2), name="both")
    model = keras.Model(x, both(LAYERS.SimpleRNN(3, return_sequences=True, name="rnn")(x)), name="two")
    bundle = export(model, spec_of(("both/backward", "hidden_state"), ("rnn", "output")))
    written = write(bundle)
    found = check(bundle, written, build(bundle, written))
    assert found.holds, found.explain()
    assert "coefficient twice as large (both/backward)" in found.faults


def test_what_rules_at_padded_steps_need_is_said() -> None:
    ids, words = masked_words()
    written = write(export(keras.Model(ids, LAYERS.LSTM(2, name="lstm")(words)), spec_of(("lstm", "hidden_state"))))
    assert "Rules at lstm leave padded steps out where" in written.notes[0]
    assert "ids_mask" in written.notes[0]


def test_b3_a_target_without_the_mask_is_noticed() -> None:
    ids, words = masked_words()
    bundle = export(keras.Model(ids, LAYERS.LSTM(2, name="lstm")(words)), ar.Spec([]))
    written = write(bundle)
    careless = replace(written, text=written.text.replace("ids != 0", "ids != -1"))
    assert careless.text != written.text
    levels = check(bundle, careless, build(bundle, careless), faults=False).levels()
    assert not levels["L1"][2]
    assert check(bundle, written, build(bundle, written), faults=False).holds


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "gru reset before": (lambda: LAYERS.GRU(2, reset_after=False), "GRU with reset_after=False.*reset_after=True"),
    "lstm relu": (lambda: LAYERS.LSTM(2, activation="relu"), "LSTM with activation='relu'.*torch has tanh"),
    "hard gate": (lambda: LAYERS.GRU(2, recurrent_activation="hard_sigmoid"), "recurrent_activation='hard_sigmoid'"),
    "rnn elu": (lambda: LAYERS.SimpleRNN(2, activation="elu"), "activation='elu'.*tanh and relu"),
    "stateful": (lambda: LAYERS.LSTM(2, dropout=0.5), "dropout inside a recurrent layer.*Dropout layer before"),
    "cell": (lambda: LAYERS.RNN(LAYERS.LSTMCell(2)), "an RNN of a LSTMCell.*as the layer LSTM"),
    "time": (lambda: LAYERS.TimeDistributed(LAYERS.Dense(2)), "a TimeDistributed of a Dense.*every step without it"),
    "unlike": (
        lambda: LAYERS.Bidirectional(LAYERS.LSTM(2), backward_layer=LAYERS.LSTM(2, use_bias=False, go_backwards=True)),
        "a Bidirectional of unlike layers",
    ),
    "apart": (lambda: LAYERS.Bidirectional(LAYERS.LSTM(2), merge_mode=NO_MERGE), "this Bidirectional"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_torch_cannot_say_is_refused_by_name(name: str) -> None:
    make, text = REFUSED[name]
    x = keras.Input((3, 2), name="x")
    model = keras.Model(x, make()(x), name="one")
    with pytest.raises(ar.UnsupportedError, match=re.compile(text, re.DOTALL)) as caught:
        write(export(model, ar.Spec([])))
    assert repr(model.layers[-1].name) in str(caught.value) or model.layers[-1].name in str(caught.value)


def test_a_conv_lstm_is_refused_by_name() -> None:
    model = keras.Sequential([keras.Input((3, 4, 4, 1)), LAYERS.ConvLSTM2D(2, 3, name="frames")])
    with pytest.raises(ar.UnsupportedError, match=r"frames: a ConvLSTM.*cannot be ported exactly"):
        read_model(model)


def masked_words() -> tuple[Any, Any]:
    ids = keras.Input((4,), dtype="int32", name="ids")
    return ids, LAYERS.Embedding(7, 3, mask_zero=True, name="words")(ids)


@pytest.mark.parametrize(
    ("follow", "text"),
    [
        (lambda x: LAYERS.BatchNormalization(name="bn")(x), "bn: a BatchNormalization that is given a mask"),
        (lambda x: LAYERS.Softmax(name="soft")(x), "soft: a Softmax that is given a mask"),
        (lambda x: LAYERS.LSTM(2, zero_output_for_mask=True, name="zeros")(x), "'zeros': the last output of a masked"),
        (
            lambda x: LAYERS.LSTM(2, name="lstm")(LAYERS.Masking(name="second")(LAYERS.Dense(2, name="d")(x))),
            "d: a mask of a computed tensor",
        ),
    ],
)
def test_b3_masks_that_cannot_be_exact_are_refused_by_name(follow: Callable[[Any], Any], text: str) -> None:
    ids, words = masked_words()
    model = keras.Model(ids, follow(words), name="words_model")
    with pytest.raises(ar.UnsupportedError, match=text):
        write(export(model, ar.Spec([])))


@pytest.mark.filterwarnings("ignore:.*does not support masking:UserWarning")
def test_a_mask_that_nothing_uses_is_no_part_of_the_graph() -> None:
    ids, words = masked_words()
    model = keras.Model(
        ids, LAYERS.GlobalMaxPooling1D(name="max")(LAYERS.Dense(2, name="d")(words)), name="words_model"
    )
    bundle = export(model, ar.Spec([]))
    assert [node.name for node in bundle.graph.nodes] == ["words", "d", "max"]


def test_probes_of_masks_have_padding_of_every_kind() -> None:
    """TRAPS D12: a probe without padding would show nothing of a mask."""
    ids, words = masked_words()
    bundle = export(keras.Model(ids, LAYERS.GRU(2, name="gru")(words), name="words_model"), ar.Spec([]))
    valid = bundle.probe.inputs["a"][0] != 0
    assert [(~valid[:, cut]).any() for cut in (slice(-1, None), slice(1), slice(1, -1))] == [True] * 3
    assert valid.any(1).all()
    assert np.array_equal(valid.sum(1) < valid.shape[1], [True, True, True, False, True])
