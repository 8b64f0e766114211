"""`arspec_jax.value` under JAX's transformations, and what it refuses."""

import doctest
import importlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arspec as ar
import arspec_jax
from bits import assert_same_bits
from cases import DTYPES, PENALTIES, random_array

penalties = pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
x64_is_off = not jax.config.jax_enable_x64


def of(penalty: Any, **options: Any) -> Callable[..., jax.Array]:
    return lambda x: arspec_jax.value(penalty, x, **options)


def reference_hessian(penalty: Any, size: int) -> np.ndarray:
    """Second derivative: 2·(coefficient of x²) on the diagonal."""
    curvature = {"l1": 0.0, "l2": 1.4, "l1_l2": 0.9, "sum": 1e-3}
    name = next(name for name, one in PENALTIES.items() if one is penalty)
    return curvature[name] * np.eye(size)


def test_x64_stays_as_it_was() -> None:
    assert x64_is_off
    assert arspec_jax.value(ar.L2(1.0), jnp.ones(3)).dtype == jnp.float32
    assert jnp.ones(3).dtype == jnp.float32


@penalties
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_vmap_is_one_penalty_per_example(penalty: Any, dtype: str) -> None:
    x = random_array((4, 3, 5), dtype)
    value, gradient = jax.vmap(jax.value_and_grad(of(penalty, mean_over=("batch",))))(jnp.asarray(x))
    for index, example in enumerate(x):
        assert_same_bits(value[index], ar.value(penalty, example, mean_over=("batch",)), "value")
        assert_same_bits(gradient[index], ar.gradient(penalty, example, mean_over=("batch",)), "gradient")


@penalties
def test_vmap_of_another_axis_and_of_a_mask(penalty: Any) -> None:
    x, mask = random_array((3, 4), "float32"), np.random.default_rng(1).random((4, 3)) > 0.4
    masked = jax.grad(lambda x, m: arspec_jax.value(penalty, x, mask=m, mean_over="mean"))
    gradient = jax.jit(jax.vmap(masked, in_axes=(1, 0)))(jnp.asarray(x), jnp.asarray(mask))
    by_mask_alone = jax.vmap(masked, in_axes=(None, 0))(jnp.asarray(x[:, 0]), jnp.asarray(mask))
    for index in range(4):
        want = ar.gradient(penalty, x[:, index], mask=mask[index], mean_over="mean")
        assert_same_bits(gradient[index], want, "x and mask mapped")
        want = ar.gradient(penalty, x[:, 0], mask=mask[index], mean_over="mean")
        assert_same_bits(by_mask_alone[index], want, "mask mapped")


@penalties
def test_grad_of_vmap(penalty: Any) -> None:
    x = random_array((4, 3), "float32")
    gradient = jax.jit(jax.grad(lambda x: jax.vmap(of(penalty))(x).sum()))(jnp.asarray(x))
    assert_same_bits(gradient, np.stack([ar.gradient(penalty, row) for row in x]), "gradient")


@penalties
@pytest.mark.parametrize("compiled", [False, True])
def test_forward_mode_is_gradient_times_dx(penalty: Any, compiled: bool) -> None:
    x, dx = random_array((5, 7), "float32", 1), random_array((5, 7), "float32", 2)

    def push(x: jax.Array, dx: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.jvp(of(penalty), (x,), (dx,))

    value, tangent = (jax.jit(push) if compiled else push)(jnp.asarray(x), jnp.asarray(dx))
    assert_same_bits(value, ar.value(penalty, x), "value")
    products = ar.gradient(penalty, x).astype(np.float64) * dx.astype(np.float64)
    assert tangent.dtype == jnp.float32
    np.testing.assert_allclose(float(tangent), products.sum(), rtol=2.0**-23, atol=2.0**-40 * np.abs(products).sum())


@penalties
@pytest.mark.parametrize(
    "twice",
    [
        jax.hessian,
        lambda f: jax.jit(jax.hessian(f)),
        lambda f: jax.jacfwd(jax.jacfwd(f)),
        lambda f: jax.jacrev(jax.jacrev(f)),
        lambda f: jax.jacrev(jax.jacfwd(f)),
        lambda f: jax.jit(jax.jacrev(jax.jacrev(f))),
    ],
)
def test_second_order(penalty: Any, twice: Callable[..., Any]) -> None:
    x = jnp.asarray([0.0, -1.5, 2.0, 1e-3])
    assert_same_bits(twice(of(penalty))(x), reference_hessian(penalty, 4).astype(np.float32), "hessian")


def test_second_order_under_vmap_and_third_order() -> None:
    x = jnp.asarray(random_array((3, 4), "float32"))
    hessians = jax.vmap(jax.hessian(of(ar.L2(0.7))))(x)
    assert_same_bits(hessians, np.broadcast_to(np.float32(1.4) * np.eye(4, dtype=np.float32), (3, 4, 4)), "hessians")
    assert not jax.jacfwd(jax.hessian(of(ar.L2(0.7))))(x[0]).any()


def test_gradient_penalty_of_a_penalty() -> None:
    x = jnp.asarray([1.0, -2.0, 0.5])
    squared = jax.grad(lambda x: jnp.sum(jax.grad(of(ar.L2(0.5)))(x) ** 2))
    np.testing.assert_array_equal(squared(x), 2 * x)
    np.testing.assert_array_equal(jax.jit(squared)(x), 2 * x)


@penalties
def test_scan_and_checkpoint(penalty: Any) -> None:
    x = random_array((6, 5), "float32")

    def over_time(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda total, row: (total + of(penalty)(row), None), jnp.float32(0), x)[0]

    want = np.stack([ar.gradient(penalty, row) for row in x])
    assert_same_bits(jax.grad(over_time)(jnp.asarray(x)), want, "scan")
    assert_same_bits(jax.jit(jax.grad(over_time))(jnp.asarray(x)), want, "scan, jit")
    kept = jax.jit(jax.grad(jax.checkpoint(of(penalty))))(jnp.asarray(x))
    assert_same_bits(kept, ar.gradient(penalty, x), "checkpoint")


def test_shard_map() -> None:
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("data")
    x = random_array((4, 3), "float32")

    def local(x: jax.Array) -> jax.Array:
        return jax.lax.psum(arspec_jax.value(ar.L2(0.7), x), "data")

    total = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=jax.sharding.PartitionSpec())
    assert_same_bits(jax.jit(jax.grad(total))(jnp.asarray(x)), ar.gradient(ar.L2(0.7), x), "gradient")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gradient_keeps_its_bits_inside_a_total(dtype: str) -> None:
    """XLA must not merge the penalty's gradient, a product, into the sum with the task's."""
    array = random_array((4099,), dtype)
    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray(array)
        task = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(x))))(x)
        both = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(x)) + arspec_jax.value(ar.L2(1 / 3), x)))(x)
    assert_same_bits(both, np.asarray(task) + ar.gradient(ar.L2(1 / 3), array), "total gradient")


def test_a_mask_may_be_traced() -> None:
    x = np.array([[1.0, np.nan], [3.0, -4.0]], np.float32)
    mask = np.array([[True, False], [True, True]])
    masked = jax.jit(jax.value_and_grad(lambda x, m: arspec_jax.value(ar.L1(1.0), x, mask=m, mean_over="mean")))
    value, gradient = masked(x, mask)
    assert_same_bits(value, ar.value(ar.L1(1.0), x, mask=mask, mean_over="mean"), "value")
    assert_same_bits(gradient, ar.gradient(ar.L1(1.0), x, mask=mask, mean_over="mean"), "gradient")


@pytest.mark.parametrize("size", [*range(1, 20), 63, 64, 65, 4095, 4097, 100_003])
def test_the_sum_has_the_order_of_the_core(size: int) -> None:
    x = random_array((size,), "float64", size)
    with jax.enable_x64(True):
        got = jax.jit(of(ar.L1(1.0)))(jnp.asarray(x))
    assert_same_bits(got, ar.value(ar.L1(1.0), x), f"sum of {size}")


def test_numpy_arrays_and_lists_are_taken() -> None:
    assert float(arspec_jax.value(ar.L1(1.0), np.ones(3, np.float32))) == 3.0
    assert float(arspec_jax.value(ar.L1(1.0), [1.0, -2.0])) == 3.0


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (ar.SpecError, "x is int32; expected one of float16", lambda: arspec_jax.value(ar.L1(1.0), jnp.ones(3, int))),
        (ar.SpecError, "x is bool", lambda: arspec_jax.value(ar.L1(1.0), jnp.ones(3, bool))),
        (ar.SpecError, "x is key<", lambda: arspec_jax.value(ar.L1(1.0), jax.random.key(0))),
        (ar.UnsupportedError, "complex64", lambda: arspec_jax.value(ar.L1(1.0), jnp.ones(3, complex))),
        (
            ar.SpecError,
            "names 1 axes, but x has 2",
            lambda: arspec_jax.value(ar.L1(1.0), jnp.ones((2, 3)), axes="batch"),
        ),
        (ar.SpecError, "unknown axis 'bach'", lambda: arspec_jax.value(ar.L1(1.0), jnp.ones(3), mean_over=("bach",))),
        (
            ar.SpecError,
            "mean_over names 'time'",
            lambda: arspec_jax.value(ar.L1(1.0), jnp.ones(3), mean_over=("time",)),
        ),
        (ar.SpecError, "mask has dtype float32", lambda: arspec_jax.value(ar.L1(1.0), jnp.ones(3), mask=jnp.ones(3))),
        (ar.SpecError, "1.0 is not a penalty", lambda: arspec_jax.value(1.0, jnp.ones(3))),
        (ar.SpecError, "x is int32", lambda: jax.jit(of(ar.L1(1.0)))(jnp.ones(3, int))),
    ],
)
def test_refusals(error: type[Exception], text: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("dtype", sorted(set(DTYPES) - {"float64"}))
def test_dtypes_of_value_and_gradient(dtype: str) -> None:
    value, gradient = jax.value_and_grad(of(ar.L2(1.0)))(jnp.asarray(random_array((3,), dtype)))
    assert value.dtype == jnp.float32
    assert gradient.dtype == DTYPES[dtype]


@pytest.mark.parametrize("module", ["_engine", "_site", "_attach", "_penalties"])
def test_examples_in_the_documentation(module: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"arspec_jax.{module}"))
    assert tried > 0
    assert failed == 0


def test_jax_alone_is_enough() -> None:
    """Neither flax nor equinox is imported before a model of theirs is."""
    code = (
        "import sys, arspec_jax; print(sorted({'flax', 'equinox', 'torch', 'tensorflow', 'keras'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


def test_eager_gradients_trace_the_formula_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace takes ten times as long as the gradient itself."""
    traced: list[Any] = []
    gradient = arspec_jax._engine._evaluate.gradient
    monkeypatch.setattr(
        arspec_jax._engine._evaluate,
        "gradient",
        lambda *given, **options: traced.append(0) or gradient(*given, **options),
    )
    ask = jax.grad(of(ar.L1(0.3125), mean_over=("batch",)))  # a coefficient of its own: nothing of it is kept
    ask(jnp.ones((3, 5)))
    assert traced
    traced.clear()
    for number in range(3):
        ask(jnp.asarray(np.full((3, 5), number, np.float32)))
    assert not traced
