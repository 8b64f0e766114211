"""Running a function in pieces: the numbers of `jax.jit`, and only what is the same is shared."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arspec_jax.port._pieces import Pieces

Function = Callable[[jax.Array, jax.Array], jax.Array]
X = np.linspace(-1.0, 2.0, 6, dtype=np.float32).reshape(2, 3)
W = np.linspace(-2.0, 1.0, 9, dtype=np.float32).reshape(3, 3)


def block(x: jax.Array, w: jax.Array, epsilon: float = 1e-3) -> jax.Array:
    h = x @ w
    return jax.nn.relu(h * jax.lax.rsqrt(h.var() + epsilon))


def loss(w: jax.Array, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    y = block(block(x, w), w)
    carry, _ = jax.lax.scan(lambda total, row: (total + row.sum(), None), jnp.zeros(()), y)
    return carry, {"y": y, "given": x, "constant": jnp.ones(2)}


def test_a_function_gives_what_jit_gives() -> None:
    function = jax.value_and_grad(loss, has_aux=True)
    (total, aux), gradient = Pieces().compiled(function)(W, X)
    (expected, expected_aux), expected_gradient = jax.jit(function)(W, X)
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5)
    assert list(aux) == list(expected_aux)
    for name, array in aux.items():
        np.testing.assert_allclose(array, expected_aux[name], rtol=1e-6)


def test_the_same_block_is_compiled_once() -> None:
    pieces = Pieces()
    pieces.compiled(lambda x, w: block(x, w))(X, W)
    once = len(pieces)
    np.testing.assert_allclose(pieces.compiled(lambda x, w: block(x, w))(2 * X, W), jax.jit(block)(2 * X, W), rtol=1e-5)
    assert len(pieces) == once


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x, w: block(x, w), lambda x, w: block(x, w, 2e-3)),
        (lambda x, w: 1.0 / (x @ w * 0.0), lambda x, w: 1.0 / (x @ w * -0.0)),
        (lambda x, w: x @ w - x, lambda x, w: x - x @ w),
        (lambda x, w: (x @ w).sum(0), lambda x, w: (x @ w).sum(1)),
        (lambda x, w: x @ w + np.arange(3.0, dtype="f"), lambda x, w: x @ w + np.arange(3.0, dtype="f") ** 2),
    ],
    ids=["constant", "sign of zero", "order of operands", "axis", "array"],
)
def test_what_differs_is_not_shared(one: Function, other: Function) -> None:
    pieces = Pieces()
    found = [pieces.compiled(function)(X, W) for function in (one, other)]
    expected = [jax.jit(function)(X, W) for function in (one, other)]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert not np.array_equal(*expected)
