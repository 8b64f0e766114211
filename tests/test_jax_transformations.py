"""Layers inside checkpoint, scan and vmap in JAX: the right value and gradient, counted once per call, or an error."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arspec as ar
import arspec_jax
from bits import assert_same_bits

KEY = jax.random.key(11)
X = np.random.default_rng(5).standard_normal((7, 3)).astype(np.float32)
KERNEL = np.random.default_rng(6).standard_normal((3, 3)).astype(np.float32)
STACK = np.random.default_rng(7).standard_normal((5, 3, 3)).astype(np.float32)
RTOL = 1e-5  # of float32 sums of at most 100 terms


def spec(*placements: str, layer: str = "hidden", penalty: Any = None, **options: Any) -> ar.Spec:
    chosen = ar.L1(0.1) if penalty is None else penalty
    return ar.Spec([ar.Rule(chosen, layer=layer, placement=placement, **options) for placement in placements])


def mean_l1(x: Any) -> Any:
    return ar.value(ar.L1(0.1), np.asarray(x), mean_over="batchmean")


def dense(params: Any, x: Any) -> Any:
    h = x @ params["hidden"]["kernel"]
    return jax.nn.relu(arspec_jax.site(h, layer="hidden", placement="pre_activation"))


PARAMS = {"hidden": {"kernel": jnp.asarray(KERNEL)}}


def gradients(model: Callable[..., Any], rules: ar.Spec) -> tuple[Any, Any]:
    """Return the penalties of a function and the gradient of their total along the kernel."""
    forward = arspec_jax.attach(model, rules)

    def total(params: Any) -> Any:
        _, penalties = forward(params, jnp.asarray(X))
        return penalties.total(), penalties

    grads, penalties = jax.grad(total, has_aux=True)(PARAMS)
    return penalties, grads["hidden"]["kernel"]


NOTHING_SAVED = jax.checkpoint_policies.nothing_saveable


@pytest.mark.parametrize("placement", ["pre_activation", "output"])
@pytest.mark.parametrize(
    "transform",
    [
        jax.checkpoint,
        lambda f: jax.checkpoint(jax.jit(f), policy=NOTHING_SAVED),
        lambda f: jax.checkpoint(jax.checkpoint(f)),
        lambda f: jax.jit(jax.checkpoint(lambda p, x: f(p, jnp.asarray(np.ones((7, 3), np.float32)) * x))),
    ],
    ids=["plain", "policy", "nested", "with a constant"],
)
def test_c4_a_checkpointed_layer_counts_once_with_its_gradient(transform: Any, placement: str) -> None:
    inside, gradient = gradients(transform(dense), spec(placement))
    outside, expected = gradients(dense, spec(placement))
    assert_same_bits(inside.total(), outside.total(), placement)
    assert_same_bits(gradient, expected, "gradient")
    assert np.any(np.asarray(gradient))


def test_c4_an_activation_function_outside_of_the_checkpoint_is_found() -> None:
    def affine(params: Any, x: Any) -> Any:
        return arspec_jax.site(x @ params["hidden"]["kernel"], layer="hidden", placement="pre_activation")

    def model(params: Any, x: Any) -> Any:
        return jnp.tanh(jax.checkpoint(affine)(params, x))

    penalties, _ = gradients(model, spec("output"))
    assert_same_bits(penalties.total(), mean_l1(jnp.tanh(jnp.asarray(X) @ KERNEL)), "output")
    with pytest.raises(ar.UnsupportedError, match=r"leaves jax\.checkpoint \(remat\) before any activation function"):
        gradients(lambda p, x: jax.nn.relu(jax.checkpoint(lambda p, x: 2 * affine(p, x))(p, x)), spec("output"))
    with pytest.raises(ar.UnsupportedError, match="comes another elementwise function"):
        gradients(lambda p, x: jnp.tanh(jax.checkpoint(dense)(p, x)), spec("output"))


class LinenRemat(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.relu(nn.remat(nn.Dense)(4, name="hidden")(x))


class NnxRemat(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(3, 4, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return nnx.relu(nnx.remat(lambda layer, x: layer(x))(self.hidden, x))


class EquinoxRemat(eqx.Module):
    hidden: eqx.nn.Linear

    def __call__(self, x: Any) -> Any:
        return jax.nn.relu(eqx.filter_checkpoint(lambda layer, x: layer(x))(self.hidden, x))


def _linen() -> tuple[Any, Any, Any, Any]:
    module = LinenRemat()
    variables = module.init(KEY, X)
    return module, variables, jax.grad, module.apply(variables, X)


def _nnx() -> tuple[Any, Any, Any, Any]:
    model = NnxRemat(nnx.Rngs(0))
    return model, model, nnx.grad, model(jnp.asarray(X))


def _equinox() -> tuple[Any, Any, Any, Any]:
    model = EquinoxRemat(eqx.nn.Linear(3, 4, key=KEY))
    return model, model, eqx.filter_grad, jax.vmap(model)(jnp.asarray(X))


@pytest.mark.parametrize("make", [_linen, _nnx, _equinox])
def test_c4_remat_of_each_framework(make: Callable[[], tuple[Any, Any, Any, Any]]) -> None:
    attached, argument, grad, output = make()
    forward = arspec_jax.attach(attached, spec("output", "kernel"))
    got, penalties = forward(argument, jnp.asarray(X))
    np.testing.assert_allclose(got, output, rtol=RTOL)
    assert_same_bits(penalties["hidden/output/l1"], mean_l1(got), "output")
    grads = grad(lambda argument: forward(argument, jnp.asarray(X))[1].total())(argument)
    plain = grad(lambda argument: 0.1 * jnp.abs(forward(argument, jnp.asarray(X))[0]).sum() / 7)(argument)
    weight = grad(lambda argument: forward(argument, jnp.asarray(X))[1]["hidden/kernel/l1"])(argument)
    summed = jax.tree.map(lambda a, b: a + b, plain, weight)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=RTOL, atol=1e-6), grads, summed)


# Scan over layers: every iteration is a call, every slice of the weights a weight.


def expected_stack(penalty: ar.Penalty, x: np.ndarray, activation: Callable[[Any], Any]) -> tuple[Any, Any, Any]:
    """Return the values at the pre-activations, outputs and kernels of layers in a row."""
    pre_activation = output = kernel = 0.0
    h = jnp.asarray(x)
    for weight in STACK:
        z = h @ weight
        h = activation(z)
        pre_activation += ar.value(penalty, np.asarray(z), mean_over="batchmean")
        output += ar.value(penalty, np.asarray(h), mean_over="batchmean")
        kernel += ar.value(penalty, weight, axes="input output")
    return pre_activation, output, kernel


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x: Any, _: Any) -> Any:
        return jnp.tanh(nn.Dense(3, use_bias=False, name="hidden")(x)), None


class LinenScan(nn.Module):
    axis: int = 0

    @nn.compact
    def __call__(self, x: Any) -> Any:
        rngs: dict[Any, bool] = {"params": True}
        body = nn.scan(nn.remat(LinenBlock), variable_axes={"params": self.axis}, split_rngs=rngs, length=5)
        return body(name="blocks")(x, None)[0]


def _linen_stack(axis: int) -> tuple[Any, Any, str, Any]:
    return (
        LinenScan(axis),
        {"params": {"blocks": {"hidden": {"kernel": jnp.moveaxis(STACK, 0, axis)}}}},
        "blocks",
        jax.grad,
    )


class NnxBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(3, 3, use_bias=False, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return jnp.tanh(self.hidden(x))


class NnxScan(nnx.Module):
    def __init__(self) -> None:
        @nnx.split_rngs(splits=5)
        @nnx.vmap(axis_size=5)
        def create(rngs: nnx.Rngs) -> NnxBlock:
            return NnxBlock(rngs)

        self.blocks = create(nnx.Rngs(0))
        self.blocks.hidden.kernel[...] = STACK

    def __call__(self, x: Any) -> Any:
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def body(x: Any, block: NnxBlock) -> Any:
            return block(x)

        return body(x, self.blocks)


def _nnx_stack() -> tuple[Any, Any, str, Any]:
    model = NnxScan()
    return model, model, "blocks", nnx.grad


class EquinoxBlock(eqx.Module):
    hidden: eqx.nn.Linear

    def __call__(self, x: Any) -> Any:
        return jnp.tanh(self.hidden(x))


class EquinoxScan(eqx.Module):
    blocks: EquinoxBlock

    def __call__(self, x: Any) -> Any:
        arrays, static = eqx.partition(self.blocks, eqx.is_array)
        return jax.lax.scan(lambda x, block: (eqx.combine(block, static)(x), None), x, arrays)[0]


def _equinox_stack() -> tuple[Any, Any, str, Any]:
    make = lambda key: EquinoxBlock(eqx.nn.Linear(3, 3, use_bias=False, key=key))  # noqa: E731
    blocks = eqx.filter_vmap(make)(jax.random.split(KEY, 5))
    model = EquinoxScan(eqx.tree_at(lambda b: b.hidden.weight, blocks, jnp.swapaxes(jnp.asarray(STACK), 1, 2)))
    return model, model, "blocks", eqx.filter_grad


STACKS = {
    "linen": lambda: _linen_stack(0),
    "linen along another axis": lambda: _linen_stack(1),
    "nnx": _nnx_stack,
    "equinox": _equinox_stack,
}


@pytest.mark.parametrize("name", STACKS)
def test_c7_a_scan_over_layers_counts_every_layer(name: str) -> None:
    attached, argument, path, grad = STACKS[name]()
    penalty = ar.PseudoHuber(0.2, delta=0.5) + ar.L2Norm(0.3)
    rules = spec("pre_activation", "output", "kernel", layer=f"{path}/hidden", penalty=penalty)
    forward = arspec_jax.attach(attached, rules)
    _, penalties = forward(argument, jnp.asarray(X))
    for got, wanted in zip(penalties.values(), expected_stack(penalty, X, jnp.tanh), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=RTOL)
    assert [site.shape for site in forward.sites][:2] == [(7, 3), (7, 3)]
    weights = spec("kernel", layer=f"{path}/hidden", penalty=ar.L2Norm(0.3))
    forward = arspec_jax.attach(attached, weights)
    leaf = jax.tree.leaves(grad(lambda argument: forward(argument, jnp.asarray(X))[1].total())(argument))[0]
    wanted = np.stack([ar.gradient(ar.L2Norm(0.3), kernel) for kernel in STACK])
    leaf = np.moveaxis(np.asarray(leaf), 1, 0) if "another" in name else np.asarray(leaf)
    np.testing.assert_allclose(np.swapaxes(leaf, 1, 2) if name == "equinox" else leaf, wanted, rtol=RTOL)


def test_a_site_in_a_scan_within_a_checkpoint_within_a_scan() -> None:
    def model(params: Any, x: Any) -> Any:
        inner = jax.checkpoint(lambda c, _: (dense(params, c), None))
        outer = lambda c, _: (jax.lax.scan(inner, c, None, length=2)[0], None)  # noqa: E731
        return jax.lax.scan(outer, x, None, length=3)[0]

    penalties, gradient = gradients(model, spec("pre_activation"))

    def unrolled(kernel: Any) -> Any:
        h, total = jnp.asarray(X), 0.0
        for _ in range(6):
            total += arspec_jax.value(ar.L1(0.1), h @ kernel, mean_over="batchmean")
            h = jax.nn.relu(h @ kernel)
        return total

    wanted, slope = jax.value_and_grad(unrolled)(jnp.asarray(KERNEL))
    np.testing.assert_allclose(penalties.total(), wanted, rtol=RTOL)
    np.testing.assert_allclose(gradient, slope, rtol=RTOL)


def test_a_result_that_the_next_iteration_bends_is_refused() -> None:
    def model(params: Any, x: Any) -> Any:
        def body(c: Any, _: Any) -> Any:
            return arspec_jax.site(
                jax.nn.relu(c) @ params["hidden"]["kernel"], layer="hidden", placement="pre_activation"
            ), None

        return jax.lax.scan(body, x, None, length=2)[0]

    with pytest.raises(ar.UnsupportedError, match="its result goes into the next step of a scan"):
        gradients(model, spec("output"))


def test_a_state_named_in_a_scan_is_a_sequence_with_its_mask() -> None:
    mask = np.arange(7) < np.array([7, 2, 4])[:, None]
    x = np.random.default_rng(3).standard_normal((3, 7, 2)).astype(np.float32)

    def model(params: Any, x: Any, mask: Any, *, per_step: bool) -> Any:
        def body(h: Any, step: Any) -> Any:
            row, valid = step
            h = jnp.tanh(row + params["w"] * h)
            given = valid if per_step else mask
            return h, arspec_jax.site(h, layer="rnn", placement="hidden_state", mask=given)

        return jnp.moveaxis(jax.lax.scan(body, x[:, 0], (jnp.moveaxis(x, 1, 0), mask.T))[1], 0, 1)

    penalty = ar.TemporalDifference(0.3) + ar.L2(0.1)
    rules = spec("hidden_state", layer="rnn", penalty=penalty, mean_over=("batch", "time"))
    for per_step in (False, True):
        states, penalties = arspec_jax.attach(model, rules)({"w": 0.5}, x, mask, per_step=per_step)
        wanted = ar.value(penalty, np.asarray(states), mean_over=("batch", "time"), mask=mask)
        np.testing.assert_allclose(penalties.total(), wanted, rtol=RTOL)


# vmap: the axis that it adds has no name.


def test_vmap_over_examples_is_the_batch_and_over_more_is_refused_where_names_matter() -> None:
    examples = lambda params, x: jax.vmap(dense, (None, 0))(params, x)  # noqa: E731
    penalties, _ = gradients(examples, spec("pre_activation"))
    np.testing.assert_allclose(penalties.total(), mean_l1(jnp.asarray(X) @ KERNEL), rtol=RTOL)
    ensembles = lambda params, x: jax.vmap(dense, (None, 0))(params, jnp.stack([x, 2 * x]))  # noqa: E731
    with pytest.raises(ar.UnsupportedError, match="the layer runs inside vmap, and which axis of its 3"):
        gradients(ensembles, spec("pre_activation"))
    penalties, _ = gradients(ensembles, spec("pre_activation", mean_over="sum"))
    h = jnp.asarray(X) @ KERNEL
    np.testing.assert_allclose(penalties.total(), ar.value(ar.L1(0.1), np.asarray(jnp.stack([h, 2 * h]))), rtol=RTOL)


def test_a_loop_whose_length_is_not_known_is_refused_with_the_cure() -> None:
    loop = lambda p, x: jax.lax.while_loop(lambda c: c[0, 0] < 0, lambda c: dense(p, c), x)  # noqa: E731
    with pytest.raises(ar.UnsupportedError, match=r"runs inside while_loop, .* Apply such a transformation around"):
        arspec_jax.attach(loop, spec("pre_activation"))(PARAMS, jnp.asarray(X))
    counted = lambda p, x: jax.lax.fori_loop(0, 2, lambda _, c: dense(p, c), x)  # noqa: E731
    penalties, _ = gradients(counted, spec("pre_activation"))
    first = jnp.asarray(X) @ KERNEL
    wanted = mean_l1(first) + mean_l1(jax.nn.relu(first) @ KERNEL)
    np.testing.assert_allclose(penalties.total(), wanted, rtol=RTOL)
