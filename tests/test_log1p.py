"""log(1 + x) in float64: every engine's is within two units in the last place, and so is its derivative."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import tensorflow as tf
import torch

from arspec._numpy import NumpyNamespace
from arspec_jax._engine import JaxNamespace
from arspec_tensorflow._engine import TensorFlowNamespace
from arspec_torch._namespace import TorchNamespace

RANDOM = np.random.default_rng(5)
X = np.concatenate(
    [
        RANDOM.uniform(-0.7, 2.0, 400),
        10.0 ** RANDOM.uniform(-20, 300, 400),
        -(10.0 ** RANDOM.uniform(-20, -0.01, 400)),
        10.0 ** RANDOM.uniform(-16, -1, 50) - 1.0,
        [2.0**-53, -(2.0**-53), 2.0**53, -0.5, 1.0, 5e-324],
    ]
)
EDGES = np.array([0.0, -0.0, -1.0, np.inf, np.nan, -2.0])

JAX, TENSORFLOW, TORCH, NUMPY = JaxNamespace(), TensorFlowNamespace(), TorchNamespace(), NumpyNamespace()


def in_jax(x: np.ndarray) -> Any:
    with jax.enable_x64(True):
        return np.asarray(jax.jit(JAX.log1p)(jnp.asarray(x)))


def in_tensorflow(**options: Any) -> Callable[[np.ndarray], Any]:
    return lambda x: tf.function(TENSORFLOW.log1p, autograph=False, **options)(tf.constant(x)).numpy()


ENGINES: dict[str, Callable[[np.ndarray], Any]] = {
    "numpy": NUMPY.log1p,
    "numpy by log": NUMPY.log1p_by_log,
    "torch": lambda x: TORCH.log1p(torch.tensor(x)).numpy(),
    "jax": in_jax,
    "tensorflow": lambda x: TENSORFLOW.log1p(tf.constant(x)).numpy(),
    "tensorflow function": in_tensorflow(),
    "tensorflow xla": in_tensorflow(jit_compile=True),
}


@pytest.mark.parametrize("engine", ENGINES)
def test_log1p(engine: str) -> None:
    with np.errstate(all="ignore"):
        got, edges = ENGINES[engine](X), ENGINES[engine](EDGES)
    with mpmath.workprec(200):
        exact = [mpmath.log1p(mpmath.mpf(float(x))) for x in X]
        units = [abs(mpmath.mpf(float(y)) - t) / np.spacing(abs(float(t))) for y, t in zip(got, exact, strict=True)]
    assert float(max(units)) < 2.0
    np.testing.assert_array_equal(edges, [0.0, 0.0, -np.inf, np.inf, np.nan, np.nan])


def test_its_derivatives() -> None:
    x = X[np.abs(X) < 1e100]
    expected = 1.0 / (1.0 + x)
    with jax.enable_x64(True):
        slopes = np.asarray(jax.vmap(jax.grad(JAX.log1p))(jnp.asarray(x)))
        bends = np.asarray(jax.vmap(jax.grad(jax.grad(JAX.log1p)))(jnp.asarray(x)))
    np.testing.assert_allclose(slopes, expected, rtol=1e-15)
    np.testing.assert_allclose(bends, -(expected**2), rtol=1e-15)
    given = tf.constant(x)
    with tf.GradientTape() as outer:
        outer.watch(given)
        with tf.GradientTape() as inner:
            inner.watch(given)
            found = TENSORFLOW.log1p(given)
        slopes = inner.gradient(found, given)
    np.testing.assert_allclose(slopes.numpy(), expected, rtol=1e-15)
    np.testing.assert_allclose(outer.gradient(slopes, given).numpy(), -(expected**2), rtol=1e-15)
