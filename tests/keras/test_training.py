"""Penalties in Keras' trainers: logged apart, in training only, on frozen weights, in mixed precision."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import arspec as ar
import keras
from arspec_keras import PenaltyLogger, attach, detach, losses, total
from bits import assert_same_bits
from keras_models import (
    B1,
    KEYS,
    SPEC,
    W1,
    Subclassed,
    X,
    Y,
    compiled,
    expected_losses,
    functional,
    nothing,
    number,
    sequential,
    with_weights,
)

LAYERS = keras.layers
# torch.compile itself looks at .grad where Keras' own calls break its graph.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")

JITS = [False, True] if keras.backend.backend() != "torch" else [False]
NAMES = ["hidden/pre_activation/l1", "hidden/output/l2", "**/kernel/sum", "head/bias/l1"]


def of_rules(x: np.ndarray) -> list[float]:
    """Return the value of each rule: the two kernels are met by one."""
    one, two, three, four, five = expected_losses(x)
    return [one, two, three + four, five]


@pytest.mark.parametrize("jit", JITS)
@pytest.mark.parametrize("make", [sequential, functional, Subclassed])
def test_c17_task_loss_and_penalties_are_shown_apart(make: Any, jit: bool, capsys: Any) -> None:
    model = attach(with_weights(make()), SPEC)
    model.compile(keras.optimizers.SGD(0.0), "mse", metrics=["mae"], jit_compile=jit)
    task = float(np.mean(np.square(number(model(X)) - Y)))
    validation = {"validation_data": (X[:4], Y[:4])}
    history = model.fit(X, Y, batch_size=4, shuffle=False, verbose=2, callbacks=[PenaltyLogger()], **validation).history
    shares = [(4 * a + 3 * b) / 7 for a, b in zip(of_rules(X[:4]), of_rules(X[4:]), strict=True)]
    np.testing.assert_allclose([history[name][0] for name in NAMES], shares, rtol=1e-6)
    np.testing.assert_allclose(history["loss"][0], task + sum(shares), rtol=1e-6)
    # The difference loss - penalties rounds as the loss does.
    np.testing.assert_allclose(history["task_loss"][0], task, rtol=0.0, atol=8 * 2.0**-24 * history["loss"][0])
    np.testing.assert_allclose([history[f"val_{name}"][0] for name in NAMES], of_rules(X[:4]), rtol=1e-6)
    assert "hidden/output/l2: " in capsys.readouterr().out
    assert [metric.name for metric in model.metrics] == ["loss", "compile_metrics"]
    assert len(model.evaluate(X, Y, verbose=0)) == 2


def test_c17_evaluate_with_a_logger() -> None:
    model = compiled(attach(with_weights(functional()), SPEC))
    found = model.evaluate(X, Y, verbose=0, callbacks=[PenaltyLogger()], return_dict=True)
    assert set(found) == {"loss", "task_loss", *NAMES}
    np.testing.assert_allclose([found[name] for name in NAMES], of_rules(X), rtol=1e-6)
    np.testing.assert_allclose(found["task_loss"], 0.0, atol=8 * 2.0**-24 * found["loss"])
    with pytest.raises(ar.SpecError, match="nothing is attached to this model"):
        detach(model).evaluate(X, Y, verbose=0, callbacks=[PenaltyLogger()])


@pytest.mark.parametrize("jit", JITS)
def test_c17_a_rule_may_count_in_training_only(jit: bool) -> None:
    rules = [
        ar.Rule(ar.L1(1.0), layer="hidden", placement="output", mean_over="sum", when="train"),
        ar.Rule(ar.L2(1.0), layer="hidden", placement="kernel", when="train"),
        ar.Rule(ar.L1(0.5), layer="hidden", placement="kernel"),
    ]
    model = compiled(attach(with_weights(functional()), ar.Spec(rules)), jit)
    model.optimizer.learning_rate = 0.0
    activity, squares = np.abs(np.maximum(X @ W1 + B1, 0)).sum(), np.square(W1).sum()
    always = 0.5 * np.abs(W1).sum()
    np.testing.assert_allclose(model.evaluate(X, Y, verbose=0), always, rtol=1e-6)
    np.testing.assert_allclose(model.train_on_batch(X, Y), activity + squares + always, rtol=1e-6)
    model(X)
    np.testing.assert_allclose([number(v) for v in losses(model).values()], [0.0, 0.0, always], rtol=1e-6)
    model(X, training=True)
    np.testing.assert_allclose([number(v) for v in losses(model).values()], [activity, squares, always], rtol=1e-6)


def test_c17_a_model_that_is_not_told_whether_it_trains() -> None:
    rule = ar.Rule(ar.L2(1.0), layer="hidden", placement="kernel", when="train")
    with pytest.raises(ar.UnsupportedError, match=r"Subclassed\.call has no argument `training`.*def call\(self, x"):
        attach(Subclassed(), ar.Spec([rule]))


@pytest.mark.parametrize("jit", JITS)
def test_c8_frozen_weights(jit: bool) -> None:
    """The penalty of a frozen weight is a constant, as in tf-keras, or, with trainable_only, 0 as in Keras 3."""
    rules = [
        ar.Rule(ar.L1(1.0), layer="**", placement="kernel"),
        ar.Rule(ar.L2(1.0), layer="**", placement="kernel", trainable_only=True),
    ]
    model = with_weights(sequential())
    model.layers[0].trainable = False
    attach(model, ar.Spec(rules))
    w2 = model.get_weights()[2]
    compiled(model, jit)
    expected = [np.abs(W1).sum(), np.abs(w2).sum(), 0.0, np.square(w2).sum()]
    model(X)
    np.testing.assert_allclose([number(v) for v in losses(model).values()], expected, rtol=1e-6)
    before = model.get_weights()
    np.testing.assert_allclose(model.train_on_batch(X, Y), sum(expected), rtol=1e-6)
    assert_same_bits(model.get_weights()[0], before[0], "frozen kernel")
    model.layers[0].trainable = True
    model(X)
    np.testing.assert_allclose(number(losses(model)["hidden/kernel/l2"]), np.square(W1).sum(), rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a5_sums_do_not_overflow_in_mixed_precision(policy: str) -> None:
    """Keras' own regularizer gives inf here under mixed_float16: it sums in the compute dtype."""
    model = keras.Sequential(
        [keras.Input((512,)), LAYERS.Dense(512, kernel_initializer="ones", use_bias=False, dtype=policy, name="a")]
    )
    rules = [ar.Rule(ar.L1(1.0), layer="a", placement=placement, mean_over="sum") for placement in ("kernel", "output")]
    attach(model, ar.Spec(rules))
    model(np.full((3, 512), 0.5, np.float32))
    assert [float(number(v)) for v in losses(model).values()] == [512.0 * 512, 3 * 512 * 256.0]
    assert all("float32" in str(v.dtype) for v in model.losses)
    model.compile(keras.optimizers.SGD(2.0**-10), nothing)
    model.train_on_batch(np.zeros((3, 512), np.float32), np.zeros((3, 512)))
    assert_same_bits(model.get_weights()[0], np.full((512, 512), 1 - 2.0**-10, np.float32), "kernel after a step")


def test_c7_a_shared_layer_in_training() -> None:
    """An activity counts per call and a weight once; so do their gradients."""
    inputs, dense = keras.Input((3,)), LAYERS.Dense(3, name="d")
    rules = [ar.Rule(ar.L1(1.0), layer="d", placement=p, mean_over="sum") for p in ("output", "kernel")]
    model = compiled(attach(keras.Model(inputs, [dense(inputs), dense(2 * inputs)]), ar.Spec(rules)))
    kernel, bias = W1[:, :3], B1[:3]
    model.set_weights([kernel, bias])
    model.train_on_batch(X, [Y[:, :1], Y[:, :1]])
    signs = [np.sign(scale * X @ kernel + bias) for scale in (1, 2)]
    expected = X.T @ signs[0] + 2 * X.T @ signs[1] + np.sign(kernel)
    np.testing.assert_allclose(kernel - model.get_weights()[0], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(bias - model.get_weights()[1], (signs[0] + signs[1]).sum(0), rtol=1e-5, atol=1e-5)


def test_c12_rematerialized_layers_are_refused() -> None:
    """Keras' own activity regularizer crashes there on JAX. Weights are no part of what is recomputed."""
    with keras.RematScope(mode="full"):
        inner = keras.Sequential([keras.Input((3,)), LAYERS.Dense(2, name="d")], name="inner")
    model = keras.Sequential([keras.Input((3,)), inner])
    for path in ("inner", "inner/d"):
        with pytest.raises(ar.UnsupportedError, match=rf"layer '{path}' .*rematerialized \(RematScope\)"):
            attach(model, ar.Spec([ar.Rule(ar.L1(1.0), layer=path, placement="output")]))
    attach(model, ar.Spec([ar.Rule(ar.L1(1.0), layer="inner/d", placement="kernel")]))
    kernel = number(inner.layers[-1].kernel)
    model(X)
    np.testing.assert_allclose(number(total(model)), np.abs(kernel).sum(), rtol=1e-6)


def test_c19_two_models_in_two_threads() -> None:
    from threading import Thread

    models = [attach(with_weights(functional()), SPEC) for _ in range(2)]
    found: dict[int, list[float]] = {}

    def run(index: int) -> None:
        x = X[: 3 + index]
        for _ in range(5):
            models[index](x)
        found[index] = [float(number(loss)) for loss in losses(models[index]).values()]

    threads = [Thread(target=run, args=(index,)) for index in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for index in range(2):
        np.testing.assert_allclose(found[index], expected_losses(X[: 3 + index]), rtol=1e-6)


def test_logs_go_to_a_file(tmp_path: Path) -> None:
    model = compiled(attach(with_weights(functional()), SPEC))
    callbacks = [PenaltyLogger(), keras.callbacks.CSVLogger(tmp_path / "log.csv")]
    model.fit(X, Y, verbose=0, epochs=2, callbacks=callbacks)
    header, *rows = (tmp_path / "log.csv").read_text().splitlines()
    assert {"loss", "task_loss", *NAMES} <= set(header.split(","))
    assert len(rows) == 2
    model(X)
    assert list(losses(model)) == KEYS
    assert np.isfinite(number(total(model)))
