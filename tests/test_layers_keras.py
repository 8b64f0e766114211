"""The reference layers against Keras in float64: the layout of parameters, padding, masks, directions."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import keras
from arspec import layers
from reference_layers import (
    FEATURES,
    IMAGE,
    MASKS,
    SEQUENCE,
    UNITS,
    VOLUME,
    Array,
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

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Keras computes in float64 on TensorFlow only"
)
TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}


def run(layer: keras.Layer, weights: list[Array], x: Array, **options: Any) -> Array:
    """Run a Keras layer that is given these weights, in its own order."""
    layer.build(x.shape)
    layer.set_weights(weights)
    return keras.ops.convert_to_numpy(layer(x, **options))


def weights_of(layer: Any) -> list[Array]:
    parts = [parameter for held in layer.parts().values() for parameter in held.parameters().values()]
    return [*layer.parameters().values(), *parts]


def same(layer: Any, theirs: keras.Layer, x: Array, **options: Any) -> None:
    record = layer.forward(x, **options)
    np.testing.assert_allclose(record["output"], run(theirs, weights_of(layer), x, **options), **TOLERANCE)


CONVOLUTIONS = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}
INPUTS = {1: SEQUENCE, 2: IMAGE, 3: VOLUME}


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((3,), {"padding": "valid", "strides": 2}),
        ((4,), {"padding": "same", "strides": 3}),
        ((2,), {"padding": "same", "strides": 2}),
        ((4,), {"padding": "same", "dilation": 2}),
        ((3,), {"padding": "causal", "dilation": 2}),
        ((3,), {"padding": "causal", "strides": 2}),
        ((3, 2), {"padding": "same", "strides": (2, 3)}),
        ((1, 4), {"padding": "same", "strides": 4}),
        ((3, 2), {"padding": "same", "groups": 5, "outputs": 10}),
        ((2, 3, 1), {"padding": "same", "strides": (1, 2, 3)}),
    ],
    ids=str,
)
def test_convolution(size: tuple[int, ...], options: dict[str, Any]) -> None:
    layer = convolution(*size, activation="tanh", **options)
    arguments = {"strides": layer.strides, "dilation_rate": layer.dilation, "groups": layer.groups}
    theirs = CONVOLUTIONS[len(size)](
        layer.kernel.shape[-1], size, padding=layer.padding, activation="tanh", dtype="float64", **arguments
    )
    same(layer, theirs, INPUTS[len(size)])


@pytest.mark.parametrize(("padding", "strides"), [("same", 2), ("valid", 1)])
def test_depthwise_and_separable(padding: str, strides: int) -> None:
    options = {"padding": padding, "strides": strides}
    keras_options = {**options, "depth_multiplier": 3, "dtype": "float64"}
    same(depthwise(3, 2, multiplier=3, **options), keras.layers.DepthwiseConv2D((3, 2), **keras_options), IMAGE)
    same(depthwise(3, multiplier=3, **options), keras.layers.DepthwiseConv1D(3, **keras_options), SEQUENCE)
    same(separable(3, 3, **options), keras.layers.SeparableConv2D(UNITS, 3, **keras_options), IMAGE)
    same(separable(4, **options), keras.layers.SeparableConv1D(UNITS, 4, **keras_options), SEQUENCE)


RECURRENT: dict[str, tuple[Any, Any]] = {
    "simple rnn": (simple_rnn, keras.layers.SimpleRNN),
    "lstm": (lstm, keras.layers.LSTM),
    "gru": (gru, keras.layers.GRU),
    "gru reset before": (
        lambda **options: gru(reset_after=False, **options),
        lambda *a, **options: keras.layers.GRU(*a, reset_after=False, **options),
    ),
}
# With a padded first step Keras holds 0 in output until the first valid one; so does the carried state.
STEP_MASKS = ("behind", "in front", "holes", "an empty example")


@pytest.mark.parametrize("mask", [None, *STEP_MASKS])
@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent(kind: str, mask: str | None) -> None:
    ours, theirs = RECURRENT[kind]
    options = {} if mask is None else {"mask": MASKS[mask]}
    for sequences in (True, False):
        same(
            ours(return_sequences=sequences),
            theirs(UNITS, return_sequences=sequences, dtype="float64"),
            SEQUENCE,
            **options,
        )
    zero = {"zero_output_for_mask": True}
    same(ours(**zero), theirs(UNITS, return_sequences=True, dtype="float64", **zero), SEQUENCE, **options)


@pytest.mark.parametrize("kind", RECURRENT)
def test_keras_returns_a_reverse_walk_in_the_order_of_processing(kind: str) -> None:
    ours, theirs = RECURRENT[kind]
    layer = ours(reverse=True)
    backwards = theirs(UNITS, return_sequences=True, go_backwards=True, dtype="float64")
    expected = run(backwards, weights_of(layer), SEQUENCE)[:, ::-1]
    np.testing.assert_allclose(layer.forward(SEQUENCE)["output"], expected, **TOLERANCE)
    last = theirs(UNITS, go_backwards=True, dtype="float64")
    same(ours(reverse=True, return_sequences=False), last, SEQUENCE, mask=MASKS["holes"])


@pytest.mark.parametrize("merge", ["concat", "sum", "ave", "mul"])
@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("mask", [None, "behind", "holes"])
def test_bidirectional(merge: str, sequences: bool, mask: str | None) -> None:
    """Keras sets zero_output_for_mask where it merges sequences."""
    options = {} if mask is None else {"mask": MASKS[mask]}
    inner = keras.layers.GRU(UNITS, return_sequences=sequences, dtype="float64")
    theirs = keras.layers.Bidirectional(inner, merge_mode=merge, dtype="float64")
    ours = bidirectional(gru, merge=merge, return_sequences=sequences, zero_output_for_mask=sequences)
    same(ours, theirs, SEQUENCE, **options)


def test_initial_states() -> None:
    states = [random(len(SEQUENCE), UNITS, seed=seed) for seed in (0, 1)]
    layer = lstm()
    theirs = keras.layers.LSTM(UNITS, return_sequences=True, dtype="float64")
    expected = run(theirs, weights_of(layer), SEQUENCE, initial_state=[keras.ops.convert_to_tensor(s) for s in states])
    np.testing.assert_allclose(layer.forward(SEQUENCE, initial_state=states)["output"], expected, **TOLERANCE)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, "behind", "holes"])
def test_attention(causal: bool, mask: str | None) -> None:
    """Keras rounds 1 / √size to float32, whatever its dtype is; at size 4 nothing is lost."""
    layer = attention(size=4, value_size=3, causal=causal)
    theirs = keras.layers.MultiHeadAttention(2, 4, value_dim=3, output_shape=7, dtype="float64")
    order = [f"{name}_{kind}" for name in ("query", "key", "value", "output") for kind in ("kernel", "bias")]
    theirs.build(SEQUENCE.shape, SEQUENCE.shape)
    assert [v.shape for v in theirs.variables] == [getattr(layer, name).shape for name in order]
    theirs.set_weights([getattr(layer, name) for name in order])
    valid = np.ones(SEQUENCE.shape[:2], bool) if mask is None else MASKS[mask] | (np.arange(SEQUENCE.shape[1]) == 0)
    given = keras.ops.convert_to_tensor(SEQUENCE)
    pad = {name: keras.ops.convert_to_tensor(valid) for name in ("query_mask", "value_mask")}
    expected = keras.ops.convert_to_numpy(theirs(given, given, use_causal_mask=causal, **pad))
    found = layer.forward(SEQUENCE, mask=valid)["output"]
    np.testing.assert_allclose(found[valid], expected[valid], **TOLERANCE)


@pytest.fixture
def exact_counts() -> Iterator[None]:
    """Under a mask Keras divides by n + keras.config.epsilon(), 1e-7, where the mean has n."""
    before = keras.config.epsilon()
    keras.config.set_epsilon(0.0)
    yield
    keras.config.set_epsilon(before)


@pytest.mark.usefixtures("exact_counts")
def test_normalization() -> None:
    """Keras rounds epsilon to float32, whatever its dtype is; a power of two stays what it is."""
    epsilon = 2.0**-10
    layer = batch_normalization(epsilon=epsilon)
    weights = [layer.scale, layer.shift, layer.moving_mean, layer.moving_variance]
    for options in ({}, {"training": True}, {"training": True, "mask": MASKS["holes"]}):
        theirs = run(keras.layers.BatchNormalization(epsilon=epsilon, dtype="float64"), weights, SEQUENCE, **options)
        np.testing.assert_allclose(layer.forward(SEQUENCE, **options)["output"], theirs, **TOLERANCE)

    norm = layers.LayerNormalization(random(FEATURES), random(FEATURES, seed=1), epsilon)
    same(norm, keras.layers.LayerNormalization(epsilon=epsilon, dtype="float64"), IMAGE)


def test_embedding_and_its_mask() -> None:
    tokens = np.array([[3, 1, 0], [2, 0, 0]])
    layer = layers.Embedding(random(4, FEATURES), mask_zero=True)
    theirs = keras.layers.Embedding(4, FEATURES, mask_zero=True, dtype="float64")
    same(layer, theirs, tokens)
    expected = keras.ops.convert_to_numpy(theirs.compute_mask(keras.ops.convert_to_tensor(tokens)))
    np.testing.assert_array_equal(layer.forward(tokens).mask, expected)


def test_flatten_keeps_the_order_of_keras() -> None:
    expected = keras.ops.convert_to_numpy(keras.layers.Flatten(dtype="float64")(IMAGE))
    np.testing.assert_array_equal(layers.Flatten().forward(IMAGE)["output"], expected)
