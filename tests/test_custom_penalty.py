"""A user's own penalty works everywhere, with and without a gradient of its own."""

from collections.abc import Callable
from dataclasses import dataclass
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


@ar.register
class Cubic:
    """coefficient · Σ |x|³, the gradient left to autodiff."""

    name = "cubic_for_tests"
    coefficient: float

    def terms(self, x: Any, *, xp: ar.Namespace, axes: ar.Axes) -> Any:
        return xp.power(xp.abs(x), 3) + xp.abs(x)


@ar.register
@dataclass(frozen=True)
class CubicWithGradient:
    """The same with a gradient, as a dataclass of the user's own."""

    coefficient: float
    name = "cubic_with_gradient_for_tests"

    def terms(self, x: Any, *, xp: ar.Namespace, axes: ar.Axes) -> Any:
        return xp.power(xp.abs(x), 3) + xp.abs(x)

    def terms_gradient(self, x: Any, weight: Any, *, xp: ar.Namespace, axes: ar.Axes) -> Any:
        return xp.multiply(weight, xp.multiply(3.0, xp.multiply(x, xp.abs(x))) + xp.sign(x))


@ar.register
class LastAxisRange:
    """A penalty that reduces an axis without saying so."""

    name = "range_for_tests"
    coefficient: float

    def terms(self, x: Any, *, xp: ar.Namespace, axes: ar.Axes) -> Any:
        return xp.max(x, (len(x.shape) - 1,))


def in_torch(penalty: Any, x: np.ndarray) -> tuple[float, np.ndarray]:
    tensor = torch.from_numpy(x).requires_grad_()
    value = arspec_torch.value(penalty, tensor)
    value.backward()
    return value.item(), tensor.grad.numpy()


def in_jax(penalty: Any, x: np.ndarray) -> tuple[float, np.ndarray]:
    value, gradient = jax.jit(jax.value_and_grad(lambda x: arspec_jax.value(penalty, x)))(jnp.asarray(x))
    return float(value), np.asarray(gradient)


def in_tensorflow(penalty: Any, x: np.ndarray) -> tuple[float, np.ndarray]:
    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        value = arspec_tensorflow.value(penalty, tensor)
    return float(value), tape.gradient(value, tensor).numpy()


engines = pytest.mark.parametrize("engine", [in_torch, in_jax, in_tensorflow])
X = np.array([[-1.5, 0.0, 2.0], [0.25, -3.0, 0.0]], np.float32)


@engines
@pytest.mark.parametrize("cls", [Cubic, CubicWithGradient])
def test_value_and_gradient(engine: Callable[..., Any], cls: Any) -> None:
    value, gradient = engine(cls(0.5), X)
    expected = ar.gradient(CubicWithGradient(0.5), X)
    assert value == float(ar.value(cls(0.5), X)) == 0.5 * float((np.abs(X) ** 3 + np.abs(X)).sum())
    assert np.array_equal(gradient, expected)
    assert gradient[0, 1] == 0


@engines
def test_composition_and_json(engine: Callable[..., Any]) -> None:
    penalty = 2 * Cubic(0.5) + ar.L2(0.25)
    spec = ar.Spec([ar.Rule(penalty, layer="**", placement="kernel")])
    again = ar.Spec.from_json(spec.to_json()).rules[0].penalty
    assert again == penalty
    assert engine(again, X)[0] == float(ar.value(penalty, X))


@engines
def test_a11_terms_of_another_shape_are_an_error_with_the_cure(engine: Callable[..., Any]) -> None:
    text = r"LastAxisRange.terms returned \(2, 1\) for x of shape \(2, 3\); expected \(2, 3\).*define terms_shape"
    with pytest.raises(ar.SpecError, match=text):
        engine(LastAxisRange(1.0), X)
    with pytest.raises(ar.SpecError, match=text):
        ar.value(LastAxisRange(1.0), X)


def test_the_reference_has_no_autodiff() -> None:
    with pytest.raises(ar.UnsupportedError, match="defines no terms_gradient, and NumPy has no autodiff"):
        ar.gradient(Cubic(1.0), X)


def test_sites_say_autodiff() -> None:
    model = torch.nn.Linear(3, 2)
    spec = ar.Spec([ar.Rule(cls(1.0), layer="**", placement="kernel") for cls in (Cubic, CubicWithGradient)])
    lines = repr(arspec_torch.attach(model, spec)).splitlines()
    assert "kernel/cubic_for_tests (autodiff)" in lines[1]
    assert "autodiff" not in lines[2]


@pytest.mark.parametrize("coefficient", [-1.0, float("nan"), "1", True])
def test_the_coefficient_is_checked(coefficient: Any) -> None:
    with pytest.raises(ar.SpecError, match="Cubic: coefficient="):
        Cubic(coefficient)


def test_what_cannot_be_registered() -> None:
    class Nameless:
        def terms(self, x: Any, *, xp: Any, axes: Any) -> Any:
            return x

    class Termless:
        name = "termless"

    @dataclass
    class Mutable:
        coefficient: float
        name = "mutable"

        def terms(self, x: Any, *, xp: Any, axes: Any) -> Any:
            return x

    class Taken(Nameless):
        name = "l1"

    for cls, text in (
        (Nameless, "string attribute `name`"),
        (Termless, "expected a method terms"),
        (Mutable, "not frozen"),
        (Taken, "the penalty name 'l1' is taken by arspec.penalties.l1.L1"),
    ):
        with pytest.raises(ar.SpecError, match=text):
            ar.register(cls)
