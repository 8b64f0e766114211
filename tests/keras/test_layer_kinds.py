"""Every other kind of Keras layer beside its reference layer: placements, weights, axes, masks."""

from typing import Any

import numpy as np
import pytest

import arspec as ar
import keras
from arspec import layers
from arspec.layers import Network
from arspec_keras import attach, losses, sites, total
from keras_models import nothing, number
from keras_reference import TOLERANCE, assert_model_same, assert_same, close, weights_of
from reference_layers import (
    FEATURES,
    IMAGE,
    MASKS,
    SEQUENCE,
    UNITS,
    VOLUME,
    attention,
    convolution,
    depthwise,
    random,
    separable,
)

LAYERS = keras.layers


def rules(*placements: str, layer: str = "it") -> list[ar.Rule]:
    """Return a rule per placement, elementwise ones and, at kernels, one that looks at the axes."""
    listed = [ar.Rule(ar.L1L2(0.2, 0.3), layer=layer, placement=placement) for placement in placements]
    kernels = [placement for placement in placements if placement.endswith("kernel")]
    return listed + [
        ar.Rule(ar.GroupLasso(0.4, norm_over=("input",)), layer=layer, placement=kernel) for kernel in kernels
    ]


def attend(**options: Any) -> Any:
    return LAYERS.MultiHeadAttention(2, 3, output_shape=7, name="it", **options)


ACTIVE = ("input", "pre_activation", "output")
ATTENTION = [f"{name}_{role}" for role in ("kernel", "bias") for name in ("query", "key", "value", "output")]
NORMS = {"scale": random(FEATURES, seed=1), "shift": random(FEATURES, seed=2)}

KINDS: dict[str, tuple[Any, Any, Any, tuple[str, ...]]] = {
    "dense": (
        lambda: LAYERS.Dense(UNITS, activation="tanh", name="it"),
        layers.Dense(random(FEATURES, UNITS), random(UNITS), "tanh"),
        SEQUENCE,
        (*ACTIVE, "kernel", "bias"),
    ),
    "conv 1-D": (
        lambda: LAYERS.Conv1D(UNITS, 3, padding="causal", dilation_rate=2, activation="tanh", name="it"),
        convolution(3, padding="causal", dilation=2, activation="tanh"),
        SEQUENCE,
        (*ACTIVE, "kernel", "bias"),
    ),
    "conv 2-D with groups": (
        lambda: LAYERS.Conv2D(10, (3, 2), strides=(2, 3), padding="same", groups=5, activation="elu", name="it"),
        convolution(3, 2, padding="same", strides=(2, 3), groups=5, outputs=10, activation="elu"),
        IMAGE,
        (*ACTIVE, "kernel", "bias"),
    ),
    "conv 3-D": (
        lambda: LAYERS.Conv3D(UNITS, (2, 3, 1), padding="same", name="it"),
        convolution(2, 3, 1, padding="same"),
        VOLUME,
        (*ACTIVE, "kernel", "bias"),
    ),
    "depthwise": (
        lambda: LAYERS.DepthwiseConv2D((2, 3), depth_multiplier=2, activation="softplus", name="it"),
        depthwise(2, 3, activation="softplus"),
        IMAGE,
        (*ACTIVE, "kernel", "bias"),
    ),
    "separable": (
        lambda: LAYERS.SeparableConv1D(UNITS, 3, padding="same", depth_multiplier=3, activation="sigmoid", name="it"),
        separable(3, padding="same", activation="sigmoid"),
        SEQUENCE,
        (*ACTIVE, "depthwise_kernel", "pointwise_kernel", "bias"),
    ),
    "layer normalization": (
        lambda: LAYERS.LayerNormalization(name="it"),
        layers.LayerNormalization(**NORMS),
        SEQUENCE,
        ("input", "output", "scale", "shift"),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_and_its_reference(kind: str) -> None:
    theirs, ours, x, placements = KINDS[kind]
    assert_same(theirs(), ours, rules(*placements), x)


def test_b3_every_placement_of_a_masked_layer() -> None:
    """A pre-activation has no mask of its own in Keras; it is that of the output."""
    theirs, ours, _, placements = KINDS["dense"]
    mask = MASKS["holes"]
    x = np.where(mask[..., None], SEQUENCE, 0.0)
    model = keras.Sequential([keras.Input(x.shape[1:]), LAYERS.Masking(), theirs()])
    model.set_weights([np.asarray(w, np.float32) for w in weights_of(ours)])
    means = [ar.Rule(ar.L2(0.3), layer="it", placement=placement, mean_over="mean") for placement in ACTIVE]
    assert_model_same(model, Network({"it": ours}), [*rules(*placements), *means], x, mask, told=False)


def test_b6_attention_has_a_placement_for_each_of_its_weights() -> None:
    x = keras.Input(SEQUENCE.shape[1:])
    layer = attend()
    model = keras.Model(x, layer(x, x))
    reference = attention(value_size=3)
    names = [f"{name}_{role}" for name in ("query", "key", "value", "output") for role in ("kernel", "bias")]
    order = [getattr(reference, name) for name in names]
    model.set_weights([np.asarray(w, np.float32) for w in order])
    spec = ar.Spec([*rules(*ATTENTION, "output", "input"), ar.Rule(ar.L2(0.5), layer="**", placement="output")])
    expected = Network({"it": reference}).penalties(spec, np.asarray(SEQUENCE, np.float32))
    attach(model, spec)
    model(np.asarray(SEQUENCE, np.float32))
    assert losses(model).keys() == expected.values.keys()
    for key, loss in losses(model).items():
        close(number(loss), expected.values[key], key)
    model.compile(keras.optimizers.SGD(1.0), nothing, run_eagerly=True, jit_compile=False)
    model.train_on_batch(np.asarray(SEQUENCE, np.float32), np.zeros(len(SEQUENCE)))
    # The exponential of a score s multiplies its relative error, of 5 + 3 products, by |s| < 64. What
    # reaches the bias of the keys cancels, so that S is that of the largest gradient.
    largest = max(float(np.abs(gradient).max()) for gradient in expected.gradients.values())
    for name, old, new in zip(names, order, model.get_weights(), strict=True):
        gradient = expected.gradients[f"it/{name}"]
        found = np.asarray(old, np.float32) - new
        np.testing.assert_allclose(found, gradient, rtol=0.0, atol=TOLERANCE * largest, err_msg=name)


def test_b6_grouped_attention_and_its_inner_layers() -> None:
    x = keras.Input(SEQUENCE.shape[1:])
    layer = LAYERS.GroupQueryAttention(3, 4, 2, name="it")
    model = attach(keras.Model(x, layer(x, x)), ar.Spec(rules("key_kernel", "output_kernel")))
    model(SEQUENCE)
    shapes = {site.rule.placement: site.shape for site in sites(model)}
    assert shapes == {"key_kernel": (FEATURES, 2 * 3), "output_kernel": (4 * 3, FEATURES)}
    with pytest.raises(ar.SpecError, match=r"layer 'it' \(.*\) has no placement 'kernel'.*'key_kernel'"):
        attach(keras.Model(model.inputs, model.outputs), ar.Spec(rules("kernel")))


def test_an_embedding_and_every_row_of_its_table() -> None:
    table = random(4, FEATURES)
    tokens = np.array([[3, 1, 0], [2, 0, 0]])
    theirs = LAYERS.Embedding(4, FEATURES, mask_zero=True, name="it")
    model = keras.Sequential([keras.Input((3,), dtype="int32"), theirs])
    model.set_weights([np.asarray(table, np.float32)])
    means = [ar.Rule(ar.L2(0.5), layer="it", placement="output", mean_over=("batch", "time"))]
    network = Network({"it": layers.Embedding(table, mask_zero=True)})
    assert_model_same(model, network, [*rules("embeddings", "output"), *means], tokens)


@pytest.mark.parametrize("training", [False, True])
def test_c13_batch_normalization_and_its_statistics(training: bool) -> None:
    """The moving statistics are weights of the layer, on torch even parameters; no rule meets them."""
    moving = {"moving_mean": random(FEATURES), "moving_variance": np.exp(random(FEATURES, seed=3))}
    theirs = LAYERS.BatchNormalization(name="it")
    model = keras.Sequential([keras.Input(SEQUENCE.shape[1:]), theirs])
    given = (NORMS["scale"], NORMS["shift"], moving["moving_mean"], moving["moving_variance"])
    model.set_weights([np.asarray(w, np.float32) for w in given])
    spec = ar.Spec([*rules("scale", "shift", "input", "output"), ar.Rule(ar.L1(1.0), layer="**", placement="scale")])
    x = np.asarray(SEQUENCE, np.float32)
    network = Network({"it": layers.BatchNormalization(**moving, **NORMS)})
    expected = network.penalties(spec, x, training=training)
    attach(model, spec)
    model(x, training=training)
    assert len(model.losses) == 5
    for key, loss in losses(model).items():
        np.testing.assert_allclose(number(loss), expected.values[key], rtol=2e-5, err_msg=key)


@pytest.mark.parametrize(
    "layer", [LAYERS.GroupNormalization(5, name="it"), LAYERS.RMSNormalization(name="it")], ids=repr
)
def test_other_normalizations(layer: Any) -> None:
    model = keras.Sequential([keras.Input((7, 5)), layer])
    attach(model, ar.Spec([ar.Rule(ar.L2(1.0), layer="it", placement="scale")]))(SEQUENCE)
    assert number(total(model)) == 5.0


def test_the_kernel_of_an_einsum() -> None:
    layer = LAYERS.EinsumDense("abc,cde->abde", output_shape=(None, 3, 2), bias_axes="de", activation="relu", name="it")
    model = attach(keras.Sequential([keras.Input((7, 5)), layer]), ar.Spec(rules("kernel", "bias", "pre_activation")))
    model(SEQUENCE)
    kernel = number(layer.kernel).reshape(5, 6)
    assert number(losses(model)["it/kernel/group_lasso"]) == ar.value(
        ar.GroupLasso(0.4, norm_over=("input",)), kernel, axes="input output"
    )


def test_transposed_convolutions_have_their_own_order_of_axes() -> None:
    for layer, x in (
        (LAYERS.Conv1DTranspose(3, 2, name="it"), SEQUENCE),
        (LAYERS.Conv3DTranspose(3, 2, name="it"), VOLUME),
    ):
        model = attach(keras.Sequential([keras.Input(x.shape[1:]), layer]), ar.Spec(rules("kernel", "output")))
        model(x)
        kernel = np.swapaxes(number(layer.kernel), -1, -2)
        spatial = {3: "time", 5: "depth height width"}[kernel.ndim]
        expected = ar.value(ar.GroupLasso(0.4, norm_over=("input",)), kernel, axes=f"{spatial} input output")
        np.testing.assert_allclose(number(losses(model)["it/kernel/group_lasso"]), expected, rtol=1e-6)


def test_several_inputs_are_no_placement() -> None:
    one, two = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([one, two], LAYERS.Add(name="add")([one, two]))
    attach(model, ar.Spec([ar.Rule(ar.L1(1.0), layer="add", placement="input")]))
    with pytest.raises(ar.UnsupportedError, match=r"layer 'add' is given 2 tensors; a placement names one tensor"):
        model([np.ones((2, 3)), np.ones((2, 3))])
