"""`arspec_jax.attach` on one network written in NNX, Linen, Equinox and as a function."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arspec as ar
import arspec_jax
from bits import assert_same_bits
from jax_models import BIASES, FLAVOURS, KERNELS, Flavour, X

SPEC = ar.Spec(
    [
        ar.Rule(ar.L1(0.1), layer="hidden", placement="pre_activation"),
        ar.Rule(ar.L1L2(0.2, 0.03), layer="hidden", placement="output", mean_over="sum"),
        ar.Rule(ar.L2(0.3), layer="*", placement="kernel"),
        ar.Rule(ar.L1(0.07), layer="**", placement="bias", mean_over="mean"),
    ]
)
KEYS = [
    "hidden/pre_activation/l1",
    "hidden/output/l1_l2",
    "hidden/kernel/l2",
    "out/kernel/l2",
    "hidden/bias/l1",
    "out/bias/l1",
]


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    return FLAVOURS[request.param]()


def one_rule(placement: str, layer: str = "hidden", **options: Any) -> ar.Spec:
    return ar.Spec([ar.Rule(ar.L1(0.1), layer=layer, placement=placement, **options)])


def pre_activation(flavour: Flavour) -> np.ndarray:
    """What the framework's own layer gives: a matrix product has different bits in NumPy."""
    if hasattr(flavour.attached, "hidden") and not isinstance(flavour.argument, dict):
        layer = flavour.attached.hidden
        return np.asarray(layer(X) if hasattr(layer, "kernel") else jax.vmap(layer)(jnp.asarray(X)))
    return np.asarray(jnp.asarray(X) @ KERNELS["hidden"] + BIASES["hidden"])


def expected_values(h: np.ndarray) -> dict[str, Any]:
    return {
        KEYS[0]: ar.value(ar.L1(0.1), h, mean_over="batchmean"),
        KEYS[1]: ar.value(ar.L1L2(0.2, 0.03), np.maximum(h, 0)),
        KEYS[2]: ar.value(ar.L2(0.3), KERNELS["hidden"]),
        KEYS[3]: ar.value(ar.L2(0.3), KERNELS["out"]),
        KEYS[4]: ar.value(ar.L1(0.07), BIASES["hidden"], mean_over="mean"),
        KEYS[5]: ar.value(ar.L1(0.07), BIASES["out"], mean_over="mean"),
    }


def expected_gradient_at_h(h: np.ndarray) -> np.ndarray:
    through_relu = np.where(h > 0, ar.gradient(ar.L1L2(0.2, 0.03), np.maximum(h, 0)), 0)
    return ar.gradient(ar.L1(0.1), h, mean_over="batchmean").astype(np.float64) + through_relu


@pytest.mark.parametrize("compiled", [False, True])
def test_output_and_every_penalty(flavour: Flavour, compiled: bool) -> None:
    forward = arspec_jax.attach(flavour.attached, SPEC)
    output, penalties = (flavour.jit(forward) if compiled else forward)(flavour.argument, X)
    np.testing.assert_allclose(output, flavour.predict(flavour.argument, X), rtol=1e-6)
    assert list(penalties) == KEYS
    expected = expected_values(pre_activation(flavour))
    for key in KEYS[2:] if compiled else KEYS:
        assert_same_bits(penalties[key], expected[key], key)
    for key in KEYS[:2]:
        np.testing.assert_allclose(penalties[key], expected[key], rtol=1e-6)
    total = np.float32(0)
    for key in KEYS:
        total = total + np.asarray(penalties[key])
    assert_same_bits(penalties.total(), total, "total")


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_of_every_parameter(flavour: Flavour, compiled: bool) -> None:
    forward = arspec_jax.attach(flavour.attached, SPEC)
    gradient = flavour.grad(lambda argument, x: forward(argument, x)[1].total())
    grads = (flavour.jit(gradient) if compiled else gradient)(flavour.argument, jnp.asarray(X))
    at_h = expected_gradient_at_h(pre_activation(flavour))
    through_x = {"hidden": X.astype(np.float64).T @ at_h, "out": 0.0}
    through_one = {"hidden": at_h.sum(0), "out": 0.0}
    for name in KERNELS:
        kernel = through_x[name] + ar.gradient(ar.L2(0.3), KERNELS[name])
        bias = through_one[name] + ar.gradient(ar.L1(0.07), BIASES[name], mean_over="mean")
        np.testing.assert_allclose(flavour.kernel(grads, name), kernel, rtol=2e-6, atol=1e-6)
        np.testing.assert_allclose(flavour.bias(grads, name), bias, rtol=2e-6, atol=1e-6)


def test_a_kernel_alone_has_the_reference_gradient(flavour: Flavour) -> None:
    forward = arspec_jax.attach(flavour.attached, one_rule("kernel", layer="out"))
    grads = flavour.jit(flavour.grad(lambda argument: forward(argument, jnp.asarray(X))[1].total()))(flavour.argument)
    assert_same_bits(flavour.kernel(grads, "out"), ar.gradient(ar.L1(0.1), KERNELS["out"]), "kernel")
    assert not np.any(flavour.kernel(grads, "hidden"))


def test_pre_activation_and_output_differ(flavour: Flavour) -> None:
    h = pre_activation(flavour)
    before = arspec_jax.attach(flavour.attached, one_rule("pre_activation"))(flavour.argument, X)[1].total()
    after = arspec_jax.attach(flavour.attached, one_rule("output"))(flavour.argument, X)[1].total()
    assert_same_bits(before, ar.value(ar.L1(0.1), h, mean_over="batchmean"), "before")
    assert_same_bits(after, ar.value(ar.L1(0.1), np.maximum(h, 0), mean_over="batchmean"), "after")
    assert float(after) < float(before)


def test_the_output_of_a_layer_without_activation_is_its_result(flavour: Flavour) -> None:
    output, penalties = arspec_jax.attach(flavour.attached, one_rule("output", layer="out"))(flavour.argument, X)
    assert_same_bits(penalties.total(), ar.value(ar.L1(0.1), np.asarray(output), mean_over="batchmean"), "output")


def test_a_given_activation_function_is_used(flavour: Flavour) -> None:
    activations = {"hidden": jnp.tanh}
    forward = arspec_jax.attach(flavour.attached, one_rule("output"), activations=activations)
    expected = np.asarray(jnp.tanh(pre_activation(flavour)))
    got = forward(flavour.argument, X)[1].total()
    assert_same_bits(got, ar.value(ar.L1(0.1), expected, mean_over="batchmean"), "told")
    none = arspec_jax.attach(flavour.attached, one_rule("output"), activations={"hidden": None})
    expected = ar.value(ar.L1(0.1), pre_activation(flavour), mean_over="batchmean")
    assert_same_bits(none(flavour.argument, X)[1].total(), expected, "told that there is none")


def test_globs_meet_every_layer(flavour: Flavour) -> None:
    for pattern in ("**", "*", "[hidden]", "h?dden"):
        spec = one_rule("kernel", layer=pattern)
        if pattern == "[hidden]":
            with pytest.raises(ar.SpecError, match="matches no layer"):
                arspec_jax.attach(flavour.attached, spec)(flavour.argument, X)
            continue
        penalties = arspec_jax.attach(flavour.attached, spec)(flavour.argument, X)[1]
        assert list(penalties) == ["hidden/kernel/l1", "out/kernel/l1"][: 1 if pattern == "h?dden" else 2]


def test_a_misspelt_layer_is_an_error_with_a_suggestion(flavour: Flavour) -> None:
    with pytest.raises(ar.SpecError, match=r"layer='hiden'; the model has .*Did you mean 'hidden'\?"):
        arspec_jax.attach(flavour.attached, one_rule("kernel", layer="hiden"))(flavour.argument, X)


def test_activations_for_a_misspelt_layer_or_no_function(flavour: Flavour) -> None:
    with pytest.raises(ar.SpecError, match=r"activations names 'hiden'.*Did you mean 'hidden'\?"):
        arspec_jax.attach(flavour.attached, SPEC, activations={"hiden": jax.nn.relu})(flavour.argument, X)
    with pytest.raises(ar.SpecError, match=r"activations\['hidden'\]='relu'; expected a function"):
        arspec_jax.attach(flavour.attached, SPEC, activations={"hidden": "relu"})(flavour.argument, X)


def test_an_axis_that_is_not_there_names_the_site(flavour: Flavour) -> None:
    forward = arspec_jax.attach(flavour.attached, one_rule("output", mean_over=("time",)))
    with pytest.raises(ar.SpecError, match="hidden/output/l1: mean_over names 'time', but x has the axes"):
        forward(flavour.argument, X)


def test_the_table_of_sites(flavour: Flavour) -> None:
    forward = arspec_jax.attach(flavour.attached, SPEC)
    _, penalties = forward(flavour.argument, X)
    rows = repr(forward.sites).splitlines()
    assert rows[0].split() == ["rule", "layer", "tensor", "shape", "mean", "over", "value"]
    assert [row.split()[:2] for row in rows[1:]] == [[key.split("/", 1)[1], key.split("/")[0]] for key in KEYS]
    assert "7×5" in rows[1]
    assert [site.value for site in forward.sites] == [float(penalties[key]) for key in KEYS]
    assert repr(forward) == repr(forward.sites)
    flavour.jit(forward)(flavour.argument, X)
    assert forward.sites[0].shape == (7, 5)
    assert [site.value for site in forward.sites] == [None] * len(KEYS)


def test_second_order(flavour: Flavour) -> None:
    """The derivative of |∇ penalty|² along the kernel: 2·(2c)²·w for L2."""
    forward = arspec_jax.attach(flavour.attached, ar.Spec([ar.Rule(ar.L2(0.25), layer="out", placement="kernel")]))

    def squared(argument: Any) -> jax.Array:
        grads = flavour.grad(lambda inner: forward(inner, jnp.asarray(X))[1].total())(argument)
        return jnp.sum(flavour.kernel(grads, "out") ** 2)

    np.testing.assert_allclose(flavour.kernel(flavour.grad(squared)(flavour.argument), "out"), KERNELS["out"] / 2)


def test_an_empty_spec_gives_zero(flavour: Flavour) -> None:
    output, penalties = arspec_jax.attach(flavour.attached, ar.Spec([]))(flavour.argument, X)
    assert len(penalties) == 0
    assert float(penalties.total()) == 0.0
    assert output.shape == (7, 1)


@pytest.mark.parametrize("name", ["nnx", "linen", "equinox"])
def test_the_first_argument_must_be_the_model(name: str) -> None:
    forward = arspec_jax.attach(FLAVOURS[name]().attached, SPEC)
    for wrong in ((), (X,)):
        with pytest.raises(ar.SpecError, match=r"forward takes the .* first: forward\(.*, x\); got"):
            forward(*wrong)


def test_penalties_are_a_mapping_and_a_pytree(flavour: Flavour) -> None:
    _, penalties = arspec_jax.attach(flavour.attached, SPEC)(flavour.argument, X)
    assert dict(penalties.items()).keys() == set(KEYS)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, penalties)
    assert isinstance(doubled, arspec_jax.Penalties)
    assert float(doubled[KEYS[2]]) == 2 * float(penalties[KEYS[2]])
    with pytest.raises(KeyError, match="no penalty 'hidden/kernel/l1'"):
        penalties["hidden/kernel/l1"]
    assert "nothing" not in penalties


@pytest.mark.parametrize("model", [3, None, jax.Array, "model"])
def test_what_is_no_model(model: Any) -> None:
    with pytest.raises(ar.SpecError, match=r"expected a flax\.nnx, flax\.linen or equinox module, or a function"):
        arspec_jax.attach(model, SPEC)


def test_what_is_no_spec(flavour: Flavour) -> None:
    with pytest.raises(ar.SpecError, match="expected a Spec"):
        arspec_jax.attach(flavour.attached, list(SPEC.rules))  # pyright: ignore[reportArgumentType]


def test_a_single_nnx_layer_is_its_own_layer() -> None:
    layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    rules = [ar.Rule(ar.L2(1.0), layer="model", placement=p) for p in ("kernel", "pre_activation")]
    y, penalties = arspec_jax.attach(layer, ar.Spec(rules))(layer, jnp.ones((4, 2)))
    expected = [
        ar.value(ar.L2(1.0), np.asarray(layer.kernel[...])),
        ar.value(ar.L2(1.0), np.asarray(y), mean_over="batchmean"),
    ]
    assert [float(one) for one in penalties.values()] == [float(one) for one in expected]
