"""Layers of every kind and arrangement: paths, calls, activations, axes, masks, dtypes."""

from typing import Any

import numpy as np
import pytest

import arspec as ar
import keras
from arspec_keras import attach, losses, total
from keras_models import B1, LAYERS, SPEC, W1, X, Y, compiled, expected_losses, number, sequential, with_weights


def test_c1_before_and_after_an_activation_of_its_own_layer() -> None:
    model = keras.Sequential([keras.Input((3,)), LAYERS.Dense(5, name="a"), LAYERS.ReLU(name="r")])
    pairs = [("a", "pre_activation"), ("a", "output"), ("r", "output")]
    attach(model, ar.Spec([ar.Rule(ar.L1(1.0), layer=a, placement=p, mean_over="sum") for a, p in pairs]))
    model.set_weights([W1, B1])
    model(X)
    before = X @ W1 + B1
    expected = [np.abs(before).sum(), np.abs(before).sum(), np.maximum(before, 0).sum()]
    np.testing.assert_allclose([number(v) for v in losses(model).values()], expected, rtol=1e-6)


def test_c1_before_and_after_an_activation_inside_a_layer() -> None:
    model = keras.Sequential([keras.Input((3,)), LAYERS.Dense(5, activation=LAYERS.LeakyReLU(0.5), name="a")])
    pairs = ["pre_activation", "output"]
    attach(model, ar.Spec([ar.Rule(ar.L1(1.0), layer="a", placement=p, mean_over="sum") for p in pairs]))
    model.set_weights([W1, B1])
    model(X)
    before = X @ W1 + B1
    expected = [np.abs(before).sum(), np.abs(np.where(before > 0, before, before / 2)).sum()]
    np.testing.assert_allclose([number(v) for v in losses(model).values()], expected, rtol=1e-6)
    assert isinstance(model.layers[0].activation, LAYERS.LeakyReLU)


def test_paths_of_nested_and_listed_layers() -> None:
    class Blocks(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = [LAYERS.Dense(4), LAYERS.Dense(3, name="last")]
            self.encoder = keras.Sequential([LAYERS.Dense(2, name="inner")])

        def call(self, x: Any) -> Any:
            for block in self.blocks:
                x = block(x)
            return self.encoder(x)

    model = attach(Blocks(), ar.Spec([ar.Rule(ar.L2(1.0), layer="**", placement="kernel")]))
    model(X)
    assert list(losses(model)) == [f"{path}/kernel/l2" for path in ("blocks/0", "last", "encoder/inner")]


def test_c7_a_shared_layer_counts_once_per_call_and_its_weights_once() -> None:
    inputs, dense = keras.Input((3,)), LAYERS.Dense(3, name="d")
    rules = [ar.Rule(ar.L1(1.0), layer="d", placement=p, mean_over="sum") for p in ("output", "kernel")]
    model = attach(keras.Model(inputs, dense(dense(inputs))), ar.Spec(rules))
    model.set_weights([W1[:, :3], B1[:3]])
    model(X)
    once = X @ W1[:, :3] + B1[:3]
    expected = [np.abs(once).sum() + np.abs(once @ W1[:, :3] + B1[:3]).sum(), np.abs(W1[:, :3]).sum()]
    np.testing.assert_allclose([number(v) for v in losses(model).values()], expected, rtol=1e-5)


@pytest.mark.parametrize("jit", [False, True][: 1 + (keras.backend.backend() != "torch")])
def test_a_regularized_model_called_twice_by_another(jit: bool) -> None:
    inner = keras.Sequential([keras.Input((3,)), LAYERS.Dense(3, name="d")], name="inner")
    rules = [ar.Rule(ar.L1(1.0), layer="d", placement=p, mean_over="sum") for p in ("output", "kernel")]
    attach(inner, ar.Spec(rules))
    inputs = keras.Input((3,))
    outer = compiled(keras.Model(inputs, inner(inner(inputs))), jit)
    outer.set_weights([W1[:, :3], B1[:3]])
    outer(X)
    once = X @ W1[:, :3] + B1[:3]
    expected = [np.abs(once).sum(), np.abs(W1[:, :3]).sum(), np.abs(once @ W1[:, :3] + B1[:3]).sum()]
    np.testing.assert_allclose([number(v) for v in outer.losses], expected, rtol=1e-5)
    np.testing.assert_allclose(outer.evaluate(X, X, verbose=0), sum(expected), rtol=1e-5)
    np.testing.assert_allclose(outer.train_on_batch(X, X), sum(expected), rtol=1e-5)


def test_every_trace_has_every_loss() -> None:
    """A trace once lost the losses of weights: they were told apart by `id`, which Python reuses."""
    model = compiled(attach(with_weights(sequential()), SPEC))
    model.optimizer.learning_rate = 0.0
    for batch in range(1, 8):
        for _ in range(3):
            found = model.train_on_batch(X[:batch], Y[:batch])
            model.reset_metrics()
            np.testing.assert_allclose(found, sum(expected_losses(X[:batch])), rtol=1e-6)


def test_layers_added_later_are_met() -> None:
    model = keras.Sequential([keras.Input((3,)), LAYERS.Dense(3)])
    attach(model, ar.Spec([ar.Rule(ar.L1(1.0), layer="**", placement="kernel")]))
    model(X)
    assert len(model.losses) == 1
    model.add(LAYERS.Dense(2))
    model(X)
    assert len(model.losses) == 2


def test_c8_frozen_weights_are_penalized() -> None:
    model = with_weights(sequential())
    model.trainable = False
    attach(model, ar.Spec([ar.Rule(ar.L1(1.0), layer="hidden", placement="kernel")]))
    model(X)
    np.testing.assert_allclose(number(total(model)), np.abs(W1).sum(), rtol=1e-6)


# JAX has no float64 unless x64 is enabled.
POLICIES = ["mixed_float16", "mixed_bfloat16"] + ["float64"] * (keras.backend.backend() != "jax")


@pytest.mark.parametrize("policy", POLICIES)
def test_dtype_policies(policy: str) -> None:
    model = keras.Sequential([keras.Input((3,)), LAYERS.Dense(5, dtype=policy, name="a"), LAYERS.Dense(1)])
    attach(model, ar.Spec([ar.Rule(ar.L1(1e3), layer="a", placement=p) for p in ("kernel", "output")]))
    kernel = model.layers[0].get_weights()[0]
    model(X)
    np.testing.assert_allclose(number(losses(model)["a/kernel/l1"]), float(ar.value(ar.L1(1e3), kernel)), rtol=1e-7)
    compiled(model).fit(X, Y[:, :1], verbose=0)


def test_b3_the_mask_of_keras_is_used() -> None:
    layers = [keras.Input((3,)), LAYERS.Embedding(5, 2, mask_zero=True), LAYERS.Dense(2, name="d")]
    rule = ar.Rule(ar.L1(1.0), layer="d", placement="output", mean_over=("batch", "time"))
    model = attach(keras.Sequential(layers), ar.Spec([rule]))
    tokens = np.array([[1, 0, 0], [1, 2, 0]])
    outputs = number(model(tokens))
    np.testing.assert_allclose(number(total(model)), np.abs(outputs[tokens > 0]).sum() / 3, rtol=1e-6)


def test_convolutions_have_named_axes() -> None:
    layers = [
        LAYERS.Conv2D(3, 3, name="c"),
        LAYERS.DepthwiseConv2D(2, name="w"),
        LAYERS.Conv2DTranspose(2, 3, name="t"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    rules = [ar.Rule(ar.L1(1.0), layer=name, placement="kernel", mean_over=("input", "width")) for name in "cwt"]
    rules.append(ar.Rule(ar.L1(1.0), layer="c", placement="output", mean_over=("height", "feature")))
    attach(model, ar.Spec(rules))
    outputs = number(keras.Sequential(model.layers[:1])(np.ones((2, 8, 8, 1))))
    model(np.ones((2, 8, 8, 1)))
    kernels = [np.abs(layer.get_weights()[0]).sum() for layer in layers]
    expected = [kernels[0] / 3, kernels[1] / 6, kernels[2] / 9, np.abs(outputs).sum() / 18]
    np.testing.assert_allclose([number(v) for v in losses(model).values()], expected, rtol=1e-6)


def test_the_axis_of_a_conv1d_is_time() -> None:
    layer = LAYERS.Conv1D(3, 2, name="c")
    model = keras.Sequential([keras.Input((8, 1)), layer])
    attach(model, ar.Spec([ar.Rule(ar.L1(1.0), layer="c", placement="output", mean_over=("batch", "time"))]))
    output = number(model(np.ones((2, 8, 1))))
    assert number(losses(model)["c/output/l1"]) == ar.value(ar.L1(1.0), output, mean_over=("batch", "time"))
