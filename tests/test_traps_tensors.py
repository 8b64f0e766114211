"""The traps of mathematics and reduction (rows A2-A9, B1, B2, B7 of the list), one test each.

Each shows the framework's own number, where there is one, beside that of arspec, so that a
framework that mends its side is noticed.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
import torch

import arspec as ar
import arspec_jax
import arspec_torch
from arspec import dialects
from arspec.kinks import KINKS
from bits import assert_same_bits
from modes import jax_modes, tensorflow_modes, torch_modes

MODES = {**torch_modes.MODES, **tensorflow_modes.MODES, **jax_modes.MODES}
QUICK = {name: MODES[name] for name in ("torch_eager", "tf_eager", "jax_jit")}
quick_modes = pytest.mark.parametrize("mode", QUICK)
RNG = np.random.default_rng(11)


@quick_modes
def test_a2_the_gradient_of_a_norm_at_zero(mode: str) -> None:
    x = np.zeros((3, 5), np.float32)
    value, gradient = QUICK[mode](ar.L2Norm(1.0), x)
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, 0.0)
    theirs = jax.grad(lambda x: jnp.sqrt(jnp.sum(x * x)))(jnp.asarray(x))
    assert np.isnan(theirs).all()


@quick_modes
@pytest.mark.parametrize("kink", KINKS, ids=lambda kink: kink.id)
def test_a3_kinks_are_data(mode: str, kink: Any) -> None:
    x = np.array(kink.x, np.float32)
    value, gradient = QUICK[mode](kink.penalty, x, axes=kink.axes, mean_over=kink.mean_over)
    assert_same_bits(value, np.float32(kink.value), f"{kink.id} value")
    assert_same_bits(gradient, np.array(kink.gradient, np.float32), f"{kink.id} gradient")


@quick_modes
@pytest.mark.parametrize("magnitude", [1e-19, 1e-25, 1e-30, 1e-37, 1e-40, 1e-45])
@pytest.mark.parametrize("group", [1, 4])
def test_a4_group_lasso_of_tiny_weights(mode: str, magnitude: float, group: int) -> None:
    penalty = ar.GroupLasso(1.0, norm_over=("feature",))
    x = (magnitude * np.sign(RNG.normal(size=(3, group)))).astype(np.float32)
    value, gradient = QUICK[mode](penalty, x)
    assert np.isfinite(gradient).all()
    assert_same_bits(gradient, ar.gradient(penalty, x), "gradient")
    assert_same_bits(value, ar.value(penalty, x), "value")
    expected = 0.0 if magnitude < 2.0**-126 else np.sign(x) / np.sqrt(group)
    np.testing.assert_allclose(gradient, expected * np.ones_like(x), rtol=1e-6)


def test_a7_half_or_not() -> None:
    x, where = RNG.normal(size=(4, 5)), {"layer": "**", "placement": "kernel"}
    squares = float((x * x).sum())
    assert float(ar.value(ar.L2(0.3), x)) == pytest.approx(0.3 * squares)
    rules = {
        "keras": dialects.keras(version="3.15.1").kernel("l2", 0.3, layer="**"),
        "tf-slim": dialects.tf_slim.rule("l2_regularizer", scale=0.6, **where),
    }
    for rule in rules.values():
        assert rule.penalty == ar.L2(0.3)
    weight = torch.nn.Parameter(torch.tensor(x))
    optimizer = torch.optim.SGD([weight], lr=1.0, weight_decay=0.6)
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    np.testing.assert_allclose(weight.detach().numpy(), x - ar.gradient(ar.L2(0.3), x), rtol=1e-12)
    assert "½" in (ar.L2.__doc__ or "")


def test_a8_ar_and_tar_of_the_code_and_of_the_paper() -> None:
    h = RNG.normal(size=(3, 7, 5))
    where = {"layer": "lstm", "placement": "output"}

    def total(rule: ar.Rule) -> float:
        return float(ar.value(rule.penalty, h, mean_over=rule.mean_over))

    code, paper = dialects.awd_lstm, dialects.awd_lstm_paper
    assert total(code.rule("AR", alpha=2.0, **where)) == pytest.approx(2.0 * (h**2).mean())
    steps = h[:, 1:] - h[:, :-1]
    assert total(code.rule("TAR", beta=1.5, **where)) == pytest.approx(1.5 * (steps**2).mean())
    norms = np.sqrt((h**2).sum(-1))
    assert total(paper.rule("AR", alpha=2.0, **where)) == pytest.approx(2.0 * norms.mean())


@quick_modes
def test_a9_the_mean_activation_comes_before_the_divergence(mode: str) -> None:
    x = RNG.uniform(0.05, 0.95, (16, 3)).astype(np.float32)
    penalty, rho = ar.KLSparsity(1.0, target=0.1), 0.1

    def divergence(q: np.ndarray) -> np.ndarray:
        return rho * np.log(rho / q) + (1 - rho) * np.log((1 - rho) / (1 - q))

    value, _ = QUICK[mode](penalty, x, mean_over=("batch",))
    mean_first = divergence(x.astype(np.float64).mean(0)).sum()
    mean_last = divergence(x.astype(np.float64)).mean(0).sum()
    assert float(value) == pytest.approx(mean_first, rel=1e-6)
    assert mean_last > 1.1 * mean_first
    mask = np.arange(16) < 9
    masked, _ = QUICK[mode](penalty, x, mask=mask, mean_over=("batch",))
    assert float(masked) == pytest.approx(divergence(x[mask].astype(np.float64).mean(0)).sum(), rel=1e-6)


@pytest.mark.parametrize(
    ("version", "divided"), [("2.3.1", False), ("2.15.0", True), ("3.3.0", False), ("3.12.2", False), ("3.14.0", True)]
)
def test_b1_an_activity_penalty_means_what_the_version_meant(version: str, divided: bool) -> None:
    rule = dialects.keras(version=version).activity("l1", 0.5, layer="hidden")
    assert rule.mean_over == (("batch",) if divided else ())
    assert ar.Spec.from_json(ar.Spec([rule]).to_json()).rules[0].mean_over == rule.mean_over


def test_b2_the_batch_is_the_axis_of_that_name() -> None:
    time_major = RNG.normal(size=(7, 3, 5)).astype(np.float32)
    batch_major = time_major.transpose(1, 0, 2)
    named = float(ar.value(ar.L1(1.0), time_major, axes="time batch feature", mean_over=("batch",)))
    assert named == pytest.approx(np.abs(time_major.astype(np.float64)).sum() / 3)
    assert named == pytest.approx(float(ar.value(ar.L1(1.0), batch_major, mean_over=("batch",))), rel=1e-6)
    rnn = torch.nn.RNN(5, 4)  # time first
    rule = ar.Rule(ar.L1(1.0), layer="0", placement="hidden_state", mean_over=("batch",))
    model = torch.nn.Sequential(rnn)
    regularization = arspec_torch.attach(model, ar.Spec([rule]))
    output, _ = model(torch.tensor(time_major))
    assert regularization.total().item() == pytest.approx(output.abs().sum().item() / 3, rel=1e-6)


@quick_modes
def test_b7_sparse_autoencoders_sum_features_and_average_the_rest(mode: str) -> None:
    latents = np.maximum(RNG.normal(size=(3, 7, 11)), 0.0).astype(np.float32)
    rule = dialects.sae_lens.rule(
        "standard",
        l1_coefficient=0.5,
        scale_sparsity_penalty_by_decoder_norm=False,
        layer="latents",
        placement="output",
    )
    value, _ = QUICK[mode](rule.penalty, latents, mean_over=("batch", "time"))
    assert float(value) == pytest.approx(0.5 * np.abs(latents).sum(-1).mean(), rel=1e-6)
    over_batch, _ = QUICK[mode](rule.penalty, latents[:, 0], mean_over=rule.mean_over)
    assert float(over_batch) == pytest.approx(0.5 * np.abs(latents[:, 0]).sum(-1).mean(), rel=1e-6)


def test_c1_before_and_after_the_activation() -> None:
    x = RNG.normal(size=(6, 3)).astype(np.float32)
    hidden_layer = torch.nn.Linear(3, 5)
    model = torch.nn.Sequential(hidden_layer, torch.nn.ReLU(), torch.nn.Linear(5, 2))
    rules = [ar.Rule(ar.L1(1.0), layer="0", placement=place) for place in ("pre_activation", "output")]
    regularization = arspec_torch.attach(model, ar.Spec(rules))
    model(torch.tensor(x))
    losses = {key: loss.item() for key, loss in regularization.losses().items()}
    before = hidden_layer(torch.tensor(x)).detach().numpy().astype(np.float64)
    expected = {"0/pre_activation/l1": np.abs(before).sum() / 6, "0/output/l1": np.maximum(before, 0).sum() / 6}
    assert losses == pytest.approx(expected, rel=1e-6)
    weights = {"hidden": {"kernel": hidden_layer.weight.detach().numpy().T}}

    def network(weights: Any, x: Any) -> Any:
        h = arspec_jax.site(x @ weights["hidden"]["kernel"], layer="hidden", placement="pre_activation")
        return arspec_jax.site(jax.nn.relu(h), layer="hidden", placement="output").sum()

    hidden = [ar.Rule(ar.L1(1.0), layer="hidden", placement=rule.placement) for rule in rules]
    _, penalties = arspec_jax.attach(network, ar.Spec(hidden))(weights, jnp.asarray(x))
    assert penalties["hidden/pre_activation/l1"] > penalties["hidden/output/l1"] > 0
    assert tf.nn.relu(-1.0).numpy() == 0.0
