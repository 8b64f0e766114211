"""Penalties in Keras' own slots: the division rule of its version, masks, saving, gradients."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import arspec as ar
import keras
from arspec_keras import ActivityRegularization, Regularizer
from bits import assert_same_bits
from keras_models import B1, W1, X, Y, compiled, nothing, number

LAYERS = keras.layers
JITS = [False, True] if keras.backend.backend() != "torch" else [False]


def model_of(**slots: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((3,)), LAYERS.Dense(5, activation="relu", name="d", **slots)])
    model.set_weights([W1, B1])
    return model


AFTER = np.maximum(X @ W1 + B1, 0)
SHARES = {"sum": 1, "batchmean": 7, "mean": 35}


@pytest.mark.parametrize("mean_over", SHARES)
@pytest.mark.parametrize("jit", JITS)
def test_b1_an_activity_is_averaged_as_it_says(mean_over: str, jit: bool) -> None:
    """Whatever this version of Keras divides by."""
    model = model_of(activity_regularizer=Regularizer(ar.L1(0.5), mean_over=mean_over))
    model(X)
    expected = 0.5 * AFTER.sum() / SHARES[mean_over]
    np.testing.assert_allclose(number(model.losses[0]), expected, rtol=1e-6)
    compiled(model, jit)
    np.testing.assert_allclose(model.evaluate(X, X[:, :1], verbose=0), expected, rtol=1e-6)
    np.testing.assert_allclose(model.train_on_batch(X, X[:, :1]), expected, rtol=1e-6)
    by_bias = (AFTER > 0).sum(0) * 0.5 / SHARES[mean_over]
    np.testing.assert_allclose(B1 - model.get_weights()[1], by_bias, rtol=1e-5, atol=1e-6)


def test_an_activity_is_averaged_over_the_batch_by_default() -> None:
    model = model_of(activity_regularizer=Regularizer(ar.L2(0.5)))
    model(X)
    np.testing.assert_allclose(number(model.losses[0]), 0.5 * np.square(AFTER).sum() / 7, rtol=1e-6)


@pytest.mark.parametrize("jit", JITS)
def test_a1_weights_have_the_gradient_of_the_definition(jit: bool) -> None:
    """Keras' own L1 moves a zero by -0.5 on JAX."""
    slots = {"kernel_regularizer": Regularizer(ar.L1(0.25)), "bias_regularizer": Regularizer(ar.L1(0.5))}
    model = compiled(model_of(**slots), jit)
    model.set_weights([np.sign(W1), np.zeros(5)])
    np.testing.assert_allclose(model.train_on_batch(X, Y), 0.25 * 15, rtol=1e-7)
    assert_same_bits(model.get_weights()[0], np.float32(0.75) * np.sign(W1), "kernel")
    assert_same_bits(model.get_weights()[1], np.zeros(5, np.float32), "bias")


@pytest.mark.parametrize(
    "layer",
    [LAYERS.Dense(4), LAYERS.Conv1D(4, 2), LAYERS.Conv2D(4, 2), LAYERS.Conv3D(4, 2)],
    ids=lambda layer: layer.name,
)
def test_the_axes_of_a_kernel(layer: Any) -> None:
    penalty = ar.GroupLasso(1.0, norm_over=("input",))
    layer.kernel_regularizer = Regularizer(penalty, mean_over=("output",))
    layer(np.ones((2, *(5,) * getattr(layer, "rank", 0), 3)))
    names = {2: "", 3: "time ", 4: "height width ", 5: "depth height width "}[len(layer.kernel.shape)]
    kernel = number(layer.kernel)
    expected = ar.value(penalty, kernel, axes=f"{names}input output", mean_over=("output",))
    assert_same_bits(number(layer.losses[0]), expected, "loss")


def test_c18_a_regularizer_is_saved(tmp_path: Path) -> None:
    penalty = ar.L1(0.1) + 0.5 * ar.GroupLasso(0.2, norm_over=("feature",))
    slots = {
        "kernel_regularizer": Regularizer(ar.L1L2(0.1, 0.3), mean_over=("input",)),
        "activity_regularizer": Regularizer(penalty, mean_over="sum", axes="batch feature"),
    }
    model = model_of(**slots)
    model.add(ActivityRegularization(ar.L2(0.7), name="here"))
    model(X)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded(X)
    assert len(model.losses) == 3
    for one, other in zip(loaded.losses, model.losses, strict=True):
        assert_same_bits(number(one), number(other), "loss")
    held = loaded.layers[0].activity_regularizer
    assert held.rule == slots["activity_regularizer"].rule
    assert held.get_config()["axes"] == "batch feature"
    config = {**held.get_config(), "penalty": {"name": "l9"}}
    with pytest.raises(ar.SpecError, match="unknown penalty 'l9'"):
        Regularizer.from_config(config)


@pytest.mark.parametrize("jit", JITS)
def test_b3_a_layer_that_regularizes_knows_the_mask(jit: bool) -> None:
    layer = ActivityRegularization(ar.L1(0.5), mean_over=("batch", "time"))
    model = keras.Sequential([keras.Input((3,)), LAYERS.Embedding(5, 2, mask_zero=True), layer])
    tokens = np.array([[1, 0, 0], [1, 2, 0]])
    outputs = number(model(tokens))
    expected = 0.5 * np.abs(outputs[tokens > 0]).sum() / 3
    np.testing.assert_allclose(number(model.losses[0]), expected, rtol=1e-6)
    model.compile(keras.optimizers.SGD(0.0), nothing, jit_compile=jit)
    np.testing.assert_allclose(model.train_on_batch(tokens, Y[:2]), expected, rtol=1e-6)
    assert outputs.shape == (2, 3, 2)


def test_wrong_arguments() -> None:
    with pytest.raises(ar.SpecError, match="expected a penalty such as L1"):
        Regularizer("l1")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ar.SpecError, match="unknown mean_over shorthand"):
        ActivityRegularization(ar.L1(0.1), mean_over="batchsum")
    with pytest.raises(ar.SpecError, match="unknown axis 'rows'"):
        Regularizer(ar.L1(0.1), axes="rows")


def test_c15_no_coefficient_is_forgotten() -> None:
    """keras.regularizers.l1_l2() is a silent (0, 0)."""
    with pytest.raises(TypeError, match="coefficient"):
        Regularizer(ar.L1())  # pyright: ignore[reportCallIssue]
