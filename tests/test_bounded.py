"""numerics="bounded": the same definition within float32 rounding, and no float64 on the way."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
import torch

import arspec as ar
import arspec_jax
import arspec_tensorflow
import arspec_torch
from arspec_torch._checks import numerics_on
from cases import PENALTIES
from family import FAMILY, PROBABILITIES

U = 2.0**-24


def in_torch(penalty: Any, x: np.ndarray, **options: Any) -> tuple[Any, Any]:
    tensor = torch.from_numpy(x).requires_grad_()
    value = arspec_torch.value(penalty, tensor, numerics="bounded", **options)
    (gradient,) = torch.autograd.grad(value, tensor)
    return value.item(), gradient.numpy()


def in_jax(penalty: Any, x: np.ndarray, **options: Any) -> tuple[Any, Any]:
    function = jax.value_and_grad(lambda x: arspec_jax.value(penalty, x, numerics="bounded", **options))
    value, gradient = jax.jit(function)(jnp.asarray(x))
    return float(value), np.asarray(gradient)


def in_tensorflow(penalty: Any, x: np.ndarray, **options: Any) -> tuple[Any, Any]:
    @tf.function(jit_compile=True)
    def run(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = arspec_tensorflow.value(penalty, x, numerics="bounded", **options)
        return value, tape.gradient(value, x)

    value, gradient = run(tf.constant(x))
    return float(value), gradient.numpy()


ENGINES = {"torch": in_torch, "jax": in_jax, "tensorflow": in_tensorflow}
engines = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)


def example(penalty: Any) -> np.ndarray:
    """70 000 numbers: more than the small tensors that torch hands to NumPy."""
    rng = np.random.default_rng(0)
    draw = rng.random if penalty.name in PROBABILITIES else rng.standard_normal
    return draw((20, 35, 100)).astype(np.float32)


@engines
@pytest.mark.parametrize("penalty", FAMILY.values(), ids=FAMILY)
def test_within_the_rounding_of_float32(engine: Callable[..., Any], penalty: Any) -> None:
    x = example(penalty)
    value, gradient = engine(penalty, x, mean_over="batchmean")
    expected = float(ar.value(penalty, x.astype(np.float64), mean_over="batchmean"))
    slope = ar.gradient(penalty, x.astype(np.float64), mean_over="batchmean")
    # Terms are positive (Hoyer, Gram and entropy ones take a few more roundings): gamma_n of the sum.
    assert abs(value - expected) <= x.size * U * abs(expected)
    assert np.abs(gradient - slope).max() <= 3e-4 * np.abs(slope).max()


@engines
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_norms_neither_overflow_nor_underflow(engine: Callable[..., Any], scale: float) -> None:
    x = (np.random.default_rng(0).standard_normal((700, 100)) * scale).astype(np.float32)
    for penalty in (ar.GroupLasso(1.0, norm_over=("feature",)), ar.L2Norm(1.0), ar.Hoyer(1.0), ar.HoyerSquare(1.0)):
        value, gradient = engine(penalty, x, mean_over="batchmean")
        assert value == pytest.approx(float(ar.value(penalty, x, mean_over="batchmean")), rel=1e-4)
        slope = ar.gradient(penalty, x.astype(np.float64), mean_over="batchmean")
        assert np.abs(gradient - slope).max() <= 1e-4 * np.abs(slope).max()


@engines
@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
def test_kinks_and_special_values_stay(engine: Callable[..., Any], penalty: Any) -> None:
    x = np.zeros((700, 100), np.float32)
    x[0, :4] = [np.nan, 1.0, -1.0, -0.0]
    _, gradient = engine(penalty, x)
    assert np.isnan(gradient[0, 0])
    np.testing.assert_allclose(gradient[0, 1:], ar.gradient(penalty, x)[0, 1:], rtol=4 * U)
    assert not gradient[1:].any()


def test_no_float64_under_jit() -> None:
    x = jnp.ones((64, 32))
    for numerics, expected in (("bounded", False), ("identical", True)):
        function = jax.grad(lambda x, numerics=numerics: arspec_jax.value(ar.L1L2(0.1, 0.2), x, numerics=numerics))
        assert ("f64" in jax.jit(function).lower(x).as_text()) is expected


def test_rules_carry_it(tmp_path: Any) -> None:
    rule = ar.Rule(ar.L2(0.5), layer="**", placement="kernel", numerics="bounded")
    spec = ar.Spec([rule])
    assert ar.Spec.from_json(spec.to_json()) == spec
    assert '"numerics": "bounded"' in spec.to_json()
    model = torch.nn.Linear(400, 300)
    total = arspec_torch.attach(model, spec).total()
    assert total.item() == pytest.approx(float(ar.value(ar.L2(0.5), model.weight.detach().numpy())), rel=1e-5)
    with pytest.raises(ar.SpecError, match="unknown numerics 'fast'; allowed: bounded, identical"):
        ar.Rule(ar.L2(0.5), layer="**", placement="kernel", numerics="fast")
    with pytest.raises(ar.SpecError, match=r"rules\[0\].numerics: unknown numerics"):
        ar.Spec.from_json(spec.to_json().replace("bounded", "bonded"))


def test_a_device_without_float64_says_so() -> None:
    with pytest.warns(UserWarning, match="MPS, which has no float64"):
        assert numerics_on("mps", "identical") == "bounded"
    assert numerics_on("mps", "bounded") == "bounded"
    assert numerics_on("cpu", "identical") == "identical"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_small_tensor(engine: str) -> None:
    x = np.array([[-2.0, 0.0], [0.5, 3.0]], np.float32)
    value, gradient = ENGINES[engine](ar.L1(0.5), x, mean_over=("batch",))
    assert float(value) == 1.375
    np.testing.assert_array_equal(gradient, [[-0.25, 0.0], [0.25, 0.25]])
