"""What a Keras model already carries, as a Spec; and what its activations are like."""

from typing import Any

import numpy as np
import pytest

import arspec as ar
import keras
from arspec.dialects import DialectWarning
from arspec_keras import ActivityRegularization, Regularizer, attach, detach, extract, losses, sites, statistics, total
from keras_models import B1, SPEC, W1, Subclassed, X, functional, number, sequential, with_weights

LAYERS = keras.layers
R = keras.regularizers


def rule(penalty: Any, layer: str, placement: str, **options: Any) -> ar.Rule:
    return ar.Rule(penalty, layer=layer, placement=placement, **options)


def test_every_slot_of_keras() -> None:
    inputs = keras.Input((6,), dtype="int32")
    x = LAYERS.Embedding(5, 4, embeddings_regularizer=R.L2(0.25), name="table")(inputs)
    rnn = LAYERS.LSTM(3, return_sequences=True, recurrent_regularizer=R.L1(0.5), activity_regularizer=R.L2(0.125))
    x = LAYERS.Bidirectional(rnn, name="both")(x)
    x = LAYERS.MultiHeadAttention(2, 3, kernel_regularizer=R.L1L2(0.5, 0.25), name="mha")(x, x)
    x = LAYERS.SeparableConv1D(4, 2, depthwise_regularizer=R.L2(0.5), pointwise_regularizer=R.L1(0.5), name="sep")(x)
    x = LAYERS.LayerNormalization(gamma_regularizer=R.L2(0.5), beta_regularizer=R.L1(0.25), name="norm")(x)
    own = Regularizer(ar.Huber(0.5, delta=1.0), mean_over=("output",))
    x = LAYERS.Dense(2, kernel_regularizer=R.OrthogonalRegularizer(0.5, "columns"), bias_regularizer=own, name="d")(x)
    model = keras.Model(inputs, ActivityRegularization(ar.L1(0.5), mean_over="mean", name="here")(x))
    mean = {"mean_over": ("batch",)}
    attention = [rule(ar.L1L2(0.5, 0.25), "mha", f"{name}_kernel") for name in ("query", "key", "value", "output")]
    expected = [rule(ar.L2(0.25), "table", "embeddings")]
    for part in ("both/forward", "both/backward"):
        expected += [rule(ar.L1(0.5), part, "recurrent_kernel"), rule(ar.L2(0.125), part, "output", **mean)]
    expected += attention
    expected += [rule(ar.L2(0.5), "sep", "depthwise_kernel"), rule(ar.L1(0.5), "sep", "pointwise_kernel")]
    expected += [rule(ar.L2(0.5), "norm", "scale"), rule(ar.L1(0.25), "norm", "shift")]
    expected.append(rule(ar.Orthogonal(0.5, mode="columns"), "d", "kernel"))
    expected.append(rule(ar.Huber(0.5, delta=1.0), "d", "bias", mean_over=("output",)))
    expected.append(rule(ar.L1(0.5), "here", "output", mean_over="mean"))
    assert list(extract(model).rules) == expected


def test_the_spec_gives_the_losses_of_the_model() -> None:
    slots = {"kernel_regularizer": R.L2(0.25), "bias_regularizer": R.L1(0.5), "activity_regularizer": R.L1(0.125)}
    model = keras.Sequential([keras.Input((3,)), LAYERS.Dense(5, activation="relu", name="d", **slots)])
    model.set_weights([W1, B1])
    spec = extract(model)
    model(X)
    by_keras = sum(float(number(loss)) for loss in model.losses)
    plain = keras.Sequential([keras.Input((3,)), LAYERS.Dense(5, activation="relu", name="d")])
    plain.set_weights([W1, B1])
    attach(plain, spec)(X)
    np.testing.assert_allclose(number(total(plain)), by_keras, rtol=1e-6)


@pytest.mark.parametrize("make", [sequential, functional, Subclassed])
def test_an_attached_spec_comes_first(make: Any) -> None:
    model = attach(with_weights(make()), SPEC)
    assert extract(model) == SPEC
    assert extract(detach(model)) == ar.Spec([])


def test_c9_the_variable_counts_and_not_the_argument() -> None:
    layer = LAYERS.Dense(2, kernel_regularizer=R.L2(0.5), name="d")
    model = keras.Sequential([keras.Input((3,)), layer])
    layer.kernel_regularizer = R.L1(0.25)
    with pytest.warns(DialectWarning, match=r"d\.kernel: kernel_regularizer says L1.*but the variable has L2"):
        assert list(extract(model).rules) == [rule(ar.L2(0.5), "d", "kernel")]
    layer.kernel_regularizer = None
    with pytest.warns(DialectWarning, match=r"kernel_regularizer says None, but the variable has L2"):
        extract(model)
    model(X)
    np.testing.assert_allclose(number(model.losses[0]), 0.5 * np.square(number(layer.kernel)).sum(), rtol=1e-6)


def test_c8_a_frozen_weight_is_penalized_when_it_is_trainable() -> None:
    model = keras.Sequential([keras.Input((3,)), LAYERS.Dense(2, kernel_regularizer=R.L2(0.5), name="d")])
    model.layers[0].trainable = False
    (found,) = extract(model).rules
    assert found == rule(ar.L2(0.5), "d", "kernel", trainable_only=True)
    model(X)
    assert model.losses == []


def test_c7_a_tied_weight_gives_one_rule() -> None:
    dense = LAYERS.Dense(3, kernel_regularizer=R.L2(0.5), name="d")
    inputs = keras.Input((3,))
    assert len(extract(keras.Model(inputs, dense(dense(inputs)))).rules) == 1


def test_b4_time_distributed_loses_an_activity() -> None:
    inner = LAYERS.Dense(2, activity_regularizer="l1", name="d")
    model = keras.Sequential([keras.Input((4, 3)), LAYERS.TimeDistributed(inner, name="td")])
    with pytest.warns(DialectWarning, match=r"td/d\.activity_regularizer has no effect; Keras loses it inside Time"):
        assert extract(model) == ar.Spec([])
    model(np.ones((2, 4, 3)))
    assert model.losses == []


def test_what_is_no_rule_is_refused() -> None:
    states = LAYERS.LSTM(2, return_state=True, activity_regularizer="l2", name="l")
    cell = LAYERS.RNN(LAYERS.LSTMCell(2, name="cell"), name="r")
    cell.cell.activity_regularizer = R.L2(0.5)
    zero = LAYERS.Dense(2, kernel_regularizer=R.L1L2(), name="d")
    own = LAYERS.Dense(2, kernel_regularizer=lambda w: keras.ops.sum(w), name="d")
    cases = [
        (states, (4, 3), r"l\.activity_regularizer: the layer returns its state"),
        (cell, (4, 3), r"r/cell\.activity_regularizer: a cell counts its activity once per step"),
        (zero, (3,), r"d\.kernel: L1L2 with coefficient 0 is no penalty"),
        (LAYERS.PReLU(alpha_regularizer="l2", name="p"), (3,), r"p/alpha: a regularizer of a weight that is no place"),
    ]
    for layer, shape, message in cases:
        with pytest.raises(ar.UnsupportedError, match=message):
            extract(keras.Sequential([keras.Input(shape), layer]))
    with pytest.raises(ar.SpecError, match=r"d\.kernel: got <function"):
        extract(keras.Sequential([keras.Input((3,)), own]))
    with pytest.raises(ar.SpecError, match="is not built"):
        extract(sequential())


def test_d3_decay_is_decoupled() -> None:
    model = with_weights(functional())
    with pytest.raises(ar.UnsupportedError, match=r"SGD: weight_decay=0\.01 is decoupled"):
        extract(model, keras.optimizers.SGD(0.1, weight_decay=0.01))
    model.compile(keras.optimizers.AdamW(weight_decay=0.5))
    with pytest.warns(DialectWarning, match=r"weight_decay=0\.5, decoupled in Keras: no penalty"):
        extract(model)
    assert extract(model, keras.optimizers.SGD(0.1)) == ar.Spec([])


def test_statistics_of_attached_rules() -> None:
    model = attach(with_weights(sequential()), SPEC)
    model(X)
    before = repr(sites(model))
    found = statistics(model, [(X[:4], X[:4]), (X[4:], X[4:])])
    inner = X @ W1 + B1
    assert [(site.layer, site.placement, site.count) for site in found] == [
        ("hidden", "pre_activation", 7),
        ("hidden", "output", 7),
    ]
    np.testing.assert_allclose(found[0].mean, inner.mean(), rtol=1e-5)
    np.testing.assert_allclose(found[1].zeros, np.mean(inner <= 0), rtol=1e-12)
    np.testing.assert_allclose(found[1].unit_means, np.maximum(inner, 0).mean(0), rtol=1e-5)
    assert repr(sites(model)) == before
    assert len(losses(model)) == 5


def test_statistics_count_valid_steps_and_gates() -> None:
    layers = [keras.Input((3,), dtype="int32"), LAYERS.Embedding(5, 4, mask_zero=True), LAYERS.LSTM(2, name="rnn")]
    model = keras.Sequential(layers)
    tokens = np.array([[1, 0, 0], [1, 2, 0]], np.int32)
    spec = ar.Spec([rule(ar.L1(1.0), "rnn", placement) for placement in ("forget_gate", "hidden_state")])
    found = statistics(model, tokens, spec)
    assert [(site.count, site.units) for site in found] == [(3, 2), (3, 2)]
    assert 0.3 < found[0].mean < 0.9
    assert not any("call" in vars(layer) or "inner_loop" in vars(layer) for layer in model.layers)


def test_statistics_without_sites_or_data() -> None:
    model = with_weights(functional())
    with pytest.raises(ar.SpecError, match="expected a Spec, or a model with one attached"):
        statistics(model, X)
    with pytest.raises(ar.SpecError, match=r"no rule is at an activation; there is kernel/l1"):
        statistics(model, X, ar.Spec([rule(ar.L1(1.0), "**", "kernel")]))
    with pytest.raises(ar.SpecError, match="there are no data"):
        statistics(model, [], SPEC)
