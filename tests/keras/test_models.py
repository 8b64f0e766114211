"""A Spec attached to Keras models: the values and gradients of the reference, in every trainer."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import arspec as ar
import keras
from arspec_keras import attach, detach, losses, sites, total
from bits import assert_same_bits
from keras_models import (
    B1,
    B2,
    KEYS,
    SPEC,
    W1,
    W2,
    Subclassed,
    X,
    Y,
    compiled,
    expected_gradients,
    expected_losses,
    functional,
    number,
    sequential,
    with_weights,
)

# torch.compile itself looks at .grad where Keras' own calls break its graph.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")

MODELS = pytest.mark.parametrize("make", [sequential, functional, Subclassed])

# torch.compile takes minutes for what one architecture shows.
JITTED = [sequential] if keras.backend.backend() == "torch" else [sequential, functional, Subclassed]
STEPS = [(make, False) for make in (sequential, functional, Subclassed)] + [(make, True) for make in JITTED]


@pytest.fixture(autouse=True)
def room_for_keras_own_frames() -> Iterator[None]:
    """torch.compile keeps eight versions of a function; Keras' Layer.forward needs one per layer and shape."""
    if keras.backend.backend() != "torch":
        yield
        return
    import torch

    torch.compiler.reset()
    with torch._dynamo.config.patch(recompile_limit=64):
        yield


@MODELS
def test_losses_are_those_of_the_reference(make: Any) -> None:
    model = attach(with_weights(make()), SPEC)
    model(X)
    assert list(losses(model)) == KEYS
    assert len(model.losses) == 5
    np.testing.assert_allclose([number(v) for v in losses(model).values()], expected_losses(X), rtol=1e-6)
    np.testing.assert_allclose([number(v) for v in model.losses], expected_losses(X), rtol=1e-6)
    np.testing.assert_allclose(number(total(model)), sum(expected_losses(X)), rtol=1e-6)


def test_losses_have_the_bits_of_the_reference_on_the_same_tensors() -> None:
    model = with_weights(functional())
    after = number(keras.Model(model.inputs[0], model.get_layer("hidden").output)(X))
    attach(model, SPEC)
    model(X)
    found = {key: number(loss) for key, loss in losses(model).items()}
    assert_same_bits(found["hidden/output/l2"], ar.value(ar.L2(0.2), after, mean_over="batchmean"), "output")
    assert_same_bits(found["hidden/kernel/sum"], ar.value(SPEC.rules[2].penalty, W1), "kernel")
    assert_same_bits(found["head/bias/l1"], ar.value(ar.L1(0.5), B2), "bias")


@pytest.mark.parametrize(("make", "jit"), STEPS)
def test_one_step_of_sgd_takes_the_gradients_of_the_reference(make: Any, jit: bool) -> None:
    model = compiled(attach(with_weights(make()), SPEC), jit)
    loss = model.train_on_batch(X, Y)
    np.testing.assert_allclose(loss, sum(expected_losses(X)), rtol=1e-6)
    for new, old, gradient in zip(model.get_weights(), (W1, B1, W2, B2), expected_gradients(X), strict=True):
        np.testing.assert_allclose(old - new, gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_a1_gradients_of_weights_are_exact_and_zero_at_zero(jit: bool) -> None:
    """On JAX the bias would move by -0.5 if its own derivative of |x| were taken."""
    rules = [ar.Rule(ar.L1(0.5), layer="**", placement="bias"), ar.Rule(ar.L1(0.25), layer="**", placement="kernel")]
    model = compiled(attach(with_weights(sequential()), ar.Spec(rules)), jit)
    model.set_weights([np.sign(W1), np.zeros(5), np.zeros((5, 2)), np.array([0.0, -2.0])])
    model.train_on_batch(X, Y)
    new = model.get_weights()
    assert_same_bits(new[0], np.float32(0.75) * np.sign(W1), "kernel")
    for weight, expected in zip(new[1:], (np.zeros(5), np.zeros((5, 2)), [0.0, -1.5]), strict=True):
        assert_same_bits(weight, np.asarray(expected, np.float32), "weight at zero")


@pytest.mark.parametrize(("make", "jit"), STEPS)
def test_fit_and_evaluate_with_a_last_partial_batch(make: Any, jit: bool) -> None:
    model = compiled(attach(with_weights(make()), SPEC), jit)
    seen = model.evaluate(X, Y, batch_size=4, verbose=0)
    first, second = sum(expected_losses(X[:4])), sum(expected_losses(X[4:]))
    np.testing.assert_allclose(seen, (4 * first + 3 * second) / 7, rtol=1e-6)
    model.optimizer.learning_rate = 0.0
    history = model.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(history, [seen, seen], rtol=1e-6)
    assert model.predict(X, verbose=0).shape == (7, 2)


def test_an_unbuilt_model_is_matched_when_it_is_built() -> None:
    model = compiled(attach(sequential(), SPEC))
    assert not model.built
    model.fit(X, Y, batch_size=4, verbose=0)
    model(X)
    assert list(losses(model)) == KEYS


def test_c3_a_compiled_and_traced_model_is_traced_again() -> None:
    model = compiled(with_weights(functional()))
    assert model.evaluate(X, Y, verbose=0) == 0.0
    attach(model, SPEC)
    np.testing.assert_allclose(model.evaluate(X, Y, verbose=0), sum(expected_losses(X)), rtol=1e-6)
    detach(model)
    assert model.evaluate(X, Y, verbose=0) == 0.0
    assert not any("call" in vars(layer) for layer in (model, *model.layers))


@pytest.mark.parametrize(("mean_over", "divisor"), [("sum", 1), ("batchmean", 7), ("mean", 35)])
def test_b1_reductions(mean_over: str, divisor: int) -> None:
    rule = ar.Rule(ar.L1(1.0), layer="hidden", placement="pre_activation", mean_over=mean_over)
    model = attach(with_weights(sequential()), ar.Spec([rule]))
    model(X)
    np.testing.assert_allclose(number(total(model)), np.abs(X @ W1 + B1).sum() / divisor, rtol=1e-6)


def test_the_table_of_sites() -> None:
    model = attach(with_weights(sequential()), SPEC)
    assert [site.value for site in sites(model)] == [None] * 5
    model(X)
    lines = repr(sites(model)).splitlines()
    assert lines[1].split()[:5] == ["pre_activation/l1", "hidden", "input", "of", "layer.activation"]
    assert "7×5" in lines[1]
    assert f"{expected_losses(X)[0]:.5g}" in lines[1]
    assert [site.key for site in sites(model)] == KEYS
