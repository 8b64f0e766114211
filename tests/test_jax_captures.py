"""Where the JAX adapter finds a tensor: activation functions, transformations, shared and odd layers."""

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
from jax_models import X

KEY = jax.random.key(3)
PARAMS = {"hidden": {"kernel": jax.random.normal(KEY, (2, 5)), "bias": jnp.zeros(5)}, "out": {"w": jnp.ones((5, 1))}}


def spec(placement: str, layer: str = "hidden", **options: Any) -> ar.Spec:
    return ar.Spec([ar.Rule(ar.L1(0.1), layer=layer, placement=placement, **options)])


def mean_l1(x: Any) -> Any:
    return ar.value(ar.L1(0.1), np.asarray(x), mean_over="batchmean")


def network(activation: Callable[[Any], Any], *, compiled: bool = False) -> Callable[..., Any]:
    def model(params: Any, x: Any) -> Any:
        h = x @ params["hidden"]["kernel"] + params["hidden"]["bias"]
        h = arspec_jax.site(h, layer="hidden", placement="pre_activation")
        return activation(h) @ params["out"]["w"]

    return jax.jit(model) if compiled else model


FOUND = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "gelu": jax.nn.gelu,
    "exact gelu": lambda h: jax.nn.gelu(h, approximate=False),
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
    "leaky_relu": lambda h: jax.nn.leaky_relu(h, 0.1),
    "softplus": jax.nn.softplus,
    "log_softmax": jax.nn.log_softmax,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "maximum": lambda h: jnp.maximum(h, 0),
    "where": lambda h: jnp.where(h > 0, h, 0.0),
    "clip": lambda h: jnp.clip(h, 0.0, 1.0),
    "square": jnp.square,
    "in bfloat16": lambda h: jax.nn.relu(h.astype(jnp.bfloat16)),
    "identity": lambda h: h,
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", FOUND)
def test_activation_functions_that_are_found(name: str, compiled: bool) -> None:
    forward = arspec_jax.attach(network(FOUND[name], compiled=compiled), spec("output"))
    _, penalties = forward(PARAMS, X)
    h = jnp.asarray(X) @ PARAMS["hidden"]["kernel"] + PARAMS["hidden"]["bias"]
    assert_same_bits(penalties.total(), mean_l1(FOUND[name](h)), name)


AFTERWARDS = {
    "scale": lambda h: 0.5 * jax.nn.relu(h),
    "dropout": lambda h: jnp.where(jax.random.bernoulli(KEY, 0.5, h.shape), jax.nn.relu(h) / 0.5, 0.0),
    "residual": lambda h: jax.nn.relu(h) + jnp.asarray(X)[:, :1],
    "normalization": lambda h: jax.nn.standardize(jax.nn.relu(h)),
}


@pytest.mark.parametrize("name", AFTERWARDS)
def test_what_comes_after_an_activation_function_is_not_part_of_it(name: str) -> None:
    _, penalties = arspec_jax.attach(network(AFTERWARDS[name]), spec("output"))(PARAMS, X)
    h = jnp.asarray(X) @ PARAMS["hidden"]["kernel"] + PARAMS["hidden"]["bias"]
    assert_same_bits(penalties.total(), mean_l1(jax.nn.relu(h)), name)


LINEAR = {
    "scale": lambda h: 0.5 * h,
    "reshape": lambda h: h.reshape(-1, 1, 5).reshape(-1, 5),
    "gate": lambda h: h * jnp.tanh(jnp.asarray(X)[:, :1]),
    "residual": lambda h: h + jnp.tanh(jnp.asarray(X)[:, :1]),
    "slice": lambda h: jnp.concatenate([h[:, :2], h[:, 2:]], 1),
}


@pytest.mark.parametrize("name", LINEAR)
def test_layers_without_activation_function(name: str) -> None:
    _, penalties = arspec_jax.attach(network(LINEAR[name]), spec("output"))(PARAMS, X)
    h = jnp.asarray(X) @ PARAMS["hidden"]["kernel"] + PARAMS["hidden"]["bias"]
    assert_same_bits(penalties.total(), mean_l1(h), name)


DOUBTFUL = {
    "softmax": jax.nn.softmax,
    "two after another": lambda h: jnp.tanh(jax.nn.relu(h)),
    "squared relu": lambda h: jax.nn.relu(h) ** 2,
    "handwritten silu": lambda h: h * jax.nn.sigmoid(h),
    "handwritten softplus": lambda h: jnp.log1p(jnp.exp(h)),
    "handwritten sigmoid": lambda h: 1 / (1 + jnp.exp(-h)),
    "pre-activation used twice": lambda h: h + jax.nn.relu(h),
    "concatenated relu": lambda h: jax.nn.relu(h)[:, :5] + jax.nn.relu(-h),
    "reshape between": lambda h: jax.nn.relu(h.reshape(-1, 1, 5)).reshape(-1, 5),
    "layer norm": jax.nn.standardize,
    "unknown": jnp.sort,
    "its inverse": lambda h: jnp.asarray(X)[:, :1] / h,
    "loop": lambda h: jax.lax.fori_loop(0, 2, lambda _, x: jnp.tanh(x), h),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_is_doubtful_is_refused_with_the_cure(name: str, compiled: bool) -> None:
    model = network(DOUBTFUL[name], compiled=compiled)
    text = r"hidden/output/l1: which activation function .* cannot be told: .*activations=\{'hidden': jax\.nn\.relu\}"
    with pytest.raises(ar.UnsupportedError, match=text):
        arspec_jax.attach(model, spec("output"))(PARAMS, X)
    told = arspec_jax.attach(model, spec("output"), activations={"hidden": jax.nn.relu})(PARAMS, X)[1]
    h = jnp.asarray(X) @ PARAMS["hidden"]["kernel"] + PARAMS["hidden"]["bias"]
    assert_same_bits(told.total(), mean_l1(jax.nn.relu(h)), name)


# Plain functions.


def test_an_output_may_be_named() -> None:
    def model(params: Any, x: Any) -> Any:
        h = arspec_jax.site(x @ params["hidden"]["kernel"], layer="hidden", placement="pre_activation")
        return arspec_jax.site(h * jax.nn.sigmoid(h), layer="hidden", placement="output")

    output, penalties = arspec_jax.attach(model, spec("output"))(PARAMS, X)
    assert_same_bits(penalties.total(), mean_l1(output), "named output")


def test_site_outside_of_forward_does_nothing() -> None:
    x = jnp.asarray(X)
    name = lambda x: arspec_jax.site(x, layer="hidden", placement="output")  # noqa: E731
    for function in (name, jax.jit(name), jax.vmap(name), jax.vmap(name, in_axes=1, out_axes=0)):
        assert function(x).shape in (x.shape, x.T.shape)
    np.testing.assert_array_equal(jax.jit(name)(x), x)
    np.testing.assert_array_equal(jax.grad(lambda x: name(x).sum())(x), jnp.ones_like(x))


def test_site_refuses_other_names() -> None:
    with pytest.raises(ar.SpecError, match=r"unknown placement of an activation 'ouput'.*Did you mean 'output'\?"):
        arspec_jax.site(jnp.ones(3), layer="hidden", placement="ouput")
    with pytest.raises(ar.SpecError, match="layer=''; expected a path"):
        arspec_jax.site(jnp.ones(3), layer="", placement="output")


def test_a_layer_that_no_site_names_is_refused_with_the_cure() -> None:
    with pytest.raises(ar.UnsupportedError, match=r"'out' .*arspec_jax\.site\(h, layer=\"out\""):
        arspec_jax.attach(network(jax.nn.relu), spec("output", "out"))(PARAMS, X)


@pytest.mark.parametrize(("kernel", "bias"), [("kernel", "bias"), ("weight", "bias"), ("w", "b"), ("W", "b")])
def test_names_of_parameters(kernel: str, bias: str) -> None:
    params = {
        "blocks": [
            {"in": {kernel: jnp.ones((2, 3)), bias: jnp.ones(3)}, "norm": {"scale": jnp.ones(3), bias: jnp.ones(3)}}
        ]
    }
    both = ar.Spec([ar.Rule(ar.L1(1.0), layer="**", placement=placement) for placement in ("kernel", "bias")])
    _, penalties = arspec_jax.attach(lambda params, x: x, both)(params, X)
    assert {key: float(value) for key, value in penalties.items()} == {
        "blocks/0/in/kernel/l1": 6.0,
        "blocks/0/in/bias/l1": 3.0,
    }


def test_two_names_for_one_role_are_refused() -> None:
    params = {"hidden": {"kernel": jnp.ones((2, 3)), "w": jnp.ones((2, 3))}}
    with pytest.raises(ar.UnsupportedError, match="it has kernel, w, so which one is meant is open"):
        arspec_jax.attach(lambda params, x: x, spec("kernel"))(params, X)


# Transformations inside a model.


def inside(transform: Callable[..., Any]) -> Callable[..., Any]:
    def layer(params: Any, x: Any) -> Any:
        h = arspec_jax.site(x @ params["hidden"]["kernel"], layer="hidden", placement="pre_activation")
        return jax.nn.relu(h)

    return lambda params, x: transform(layer)(params, x)


def test_vmap_and_jit_inside_a_model() -> None:
    h = jnp.asarray(X) @ PARAMS["hidden"]["kernel"]
    both = ar.Spec([*spec("pre_activation").rules, *spec("output").rules])
    mapped = inside(lambda f: jax.jit(jax.vmap(jax.jit(f), in_axes=(None, 1))))
    _, penalties = arspec_jax.attach(mapped, both)(PARAMS, X.T)
    np.testing.assert_allclose(penalties["hidden/pre_activation/l1"], mean_l1(h), rtol=1e-6)
    np.testing.assert_allclose(penalties["hidden/output/l1"], mean_l1(jax.nn.relu(h)), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "transform"),
    [
        ("while_loop", lambda f: lambda p, x: jax.lax.while_loop(lambda c: c[0, 0] < 0, lambda c: f(p, c)[:, :2], x)),
        ("cond", lambda f: lambda p, x: jax.lax.cond(x[0, 0] > 0, f, lambda p, x: x @ p["hidden"]["kernel"], p, x)),
    ],
)
def test_a_layer_inside_of_what_cannot_be_read_is_refused(name: str, transform: Callable[..., Any]) -> None:
    with pytest.raises(ar.UnsupportedError, match=f"hidden/pre_activation/l1: the layer runs inside {name}"):
        arspec_jax.attach(inside(transform), spec("pre_activation"))(PARAMS, jnp.asarray(X))
    _, penalties = arspec_jax.attach(inside(transform), spec("kernel"))(PARAMS, jnp.asarray(X))
    assert_same_bits(penalties.total(), ar.value(ar.L1(0.1), np.asarray(PARAMS["hidden"]["kernel"])), "kernel")


# Transformations around forward.


def test_vmap_around_forward_maps_seeds() -> None:
    seeds = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf, -leaf]), PARAMS)
    forward = arspec_jax.attach(network(jax.nn.relu), ar.Spec([*spec("output").rules, *spec("kernel", "**").rules]))
    gradient = jax.jit(jax.vmap(jax.value_and_grad(lambda p: forward(p, X)[1].total())))
    totals, grads = gradient(seeds)
    for index in range(3):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], seeds)
        value, grad = jax.value_and_grad(lambda p: forward(p, X)[1].total())(one)
        np.testing.assert_allclose(totals[index], value, rtol=1e-6)
        np.testing.assert_allclose(grads["hidden"]["kernel"][index], grad["hidden"]["kernel"], rtol=1e-5)


def test_checkpoint_and_scan_around_forward() -> None:
    forward = arspec_jax.attach(network(jax.nn.relu), spec("output"))
    loss = lambda p, x: forward(p, x)[1].total()  # noqa: E731
    plain = jax.grad(loss)(PARAMS, X)["hidden"]["kernel"]
    kept = jax.grad(jax.checkpoint(loss))(PARAMS, X)["hidden"]["kernel"]
    np.testing.assert_allclose(kept, plain, rtol=1e-6)
    batches = jnp.stack([jnp.asarray(X)] * 3)
    summed = lambda p: jax.lax.scan(lambda c, x: (c + loss(p, x), None), 0.0, batches)[0]  # noqa: E731
    np.testing.assert_allclose(jax.grad(summed)(PARAMS)["hidden"]["kernel"], 3 * plain, rtol=1e-5)


# NNX.


class Twice(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(2, 2, rngs=rngs)
        self.unused = nnx.Linear(2, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return nnx.relu(self.hidden(nnx.relu(self.hidden(x))))


def test_a_shared_layer_counts_per_call_and_its_weight_once() -> None:
    model = Twice(nnx.Rngs(0))
    rules = [*spec("pre_activation").rules, *spec("output").rules, *spec("kernel").rules]
    _, penalties = arspec_jax.attach(model, ar.Spec(rules))(model, X)
    first = model.hidden(jnp.asarray(X))
    second = model.hidden(nnx.relu(first))
    assert_same_bits(penalties["hidden/pre_activation/l1"], mean_l1(first) + mean_l1(second), "calls")
    expected = mean_l1(nnx.relu(first)) + mean_l1(nnx.relu(second))
    assert_same_bits(penalties["hidden/output/l1"], expected, "outputs")
    assert_same_bits(penalties["hidden/kernel/l1"], ar.value(ar.L1(0.1), np.asarray(model.hidden.kernel)), "kernel")


@pytest.mark.parametrize("layer", ["unused", "**"])
def test_a_layer_that_does_not_run_is_an_error(layer: str) -> None:
    model = Twice(nnx.Rngs(0))
    with pytest.raises(ar.SpecError, match="'unused/pre_activation/l1' never fired"):
        arspec_jax.attach(model, spec("pre_activation", layer))(model, X)


class Tied(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(2, 2, rngs=rngs)
        self.second = nnx.Linear(2, 2, rngs=rngs)
        self.second.kernel = self.first.kernel

    def __call__(self, x: Any) -> Any:
        return self.second(self.first(x))


def test_a_tied_weight_counts_once() -> None:
    model = Tied(nnx.Rngs(0))
    _, penalties = arspec_jax.attach(model, spec("kernel", "**"))(model, X)
    assert list(penalties) == ["first/kernel/l1"]


class Trained(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(2, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.layers = nnx.Sequential(nnx.Linear(5, 3, rngs=rngs), nnx.tanh, nnx.Linear(3, 1, rngs=rngs))

    def __call__(self, x: Any) -> Any:
        return self.layers(self.dropout(self.norm(nnx.relu(self.hidden(x)))))


def test_what_a_model_changes_in_itself_is_kept() -> None:
    model, twin = Trained(nnx.Rngs(0)), Trained(nnx.Rngs(0))
    forward = arspec_jax.attach(model, spec("output", "**"))
    output, penalties = forward(model, X)
    np.testing.assert_allclose(output, twin(jnp.asarray(X)), rtol=1e-6)
    paths = ["hidden", "norm", "layers/layers/0", "layers/layers/2"]
    assert list(penalties) == [f"{path}/output/l1" for path in paths]
    np.testing.assert_allclose(model.norm.mean[...], twin.norm.mean[...], rtol=1e-6)
    assert model.dropout.rngs is not None
    assert twin.dropout.rngs is not None
    assert int(model.dropout.rngs.count[...]) == int(twin.dropout.rngs.count[...]) == 1
    assert type(model.hidden) is nnx.Linear


def test_a_training_step_in_nnx() -> None:
    model = Trained(nnx.Rngs(0))
    forward = arspec_jax.attach(model, ar.Spec([*spec("output", "hidden").rules, *spec("kernel", "**").rules]))

    @nnx.jit
    def step(model: Trained, x: Any) -> tuple[Any, Any]:
        def loss(model: Trained) -> Any:
            output, penalties = forward(model, x)
            return output.mean() + penalties.total()

        return nnx.value_and_grad(loss)(model)

    before = np.asarray(model.norm.mean[...])
    value, grads = step(model, jnp.asarray(X))
    assert np.isfinite(float(value))
    assert grads["layers"]["layers"][0]["kernel"].shape == (5, 3)
    assert np.any(np.asarray(model.norm.mean[...]) != before)


def test_split_and_merge() -> None:
    model = Twice(nnx.Rngs(0))
    forward = arspec_jax.attach(model, spec("kernel"))
    graph, state = nnx.split(model)
    grads = jax.jit(jax.grad(lambda state: forward(nnx.merge(graph, state), jnp.asarray(X))[1].total()))(state)
    kernel = np.asarray(model.hidden.kernel[...])
    assert_same_bits(grads["hidden"]["kernel"][...], ar.gradient(ar.L1(0.1), kernel), "kernel")


class Sows(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(2, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        self.kept = nnx.Intermediate(self.hidden(x))
        return self.kept[...]


def test_a_model_that_changes_its_structure_is_refused() -> None:
    model = Sows(nnx.Rngs(0))
    with pytest.raises(ar.UnsupportedError, match="Sows changes its structure in a forward pass"):
        arspec_jax.attach(model, spec("output"))(model, X)


class Own(nnx.Module):
    """A layer that a user wrote, and a network of it."""

    def __init__(self) -> None:
        self.w, self.b = nnx.Param(jnp.ones((2, 2))), nnx.Param(jnp.ones(2))

    def __call__(self, x: Any) -> Any:
        return x @ self.w[...] + self.b[...]


class OfOwn(nnx.Module):
    def __init__(self) -> None:
        self.hidden = Own()

    def __call__(self, x: Any) -> Any:
        return nnx.relu(self.hidden(x))


def test_a_layer_of_the_users() -> None:
    model = OfOwn()
    _, penalties = arspec_jax.attach(model, spec("kernel", "**"))(model, X)
    assert_same_bits(penalties.total(), ar.value(ar.L1(0.1), np.ones((2, 2), np.float32)), "kernel")
    with pytest.raises(ar.UnsupportedError, match="a Own is not a layer of the framework, and an elementwise function"):
        arspec_jax.attach(model, spec("output"))(model, X)
    told = arspec_jax.attach(model, spec("output"), activations={"hidden": nnx.relu})
    output, penalties = told(model, X)
    assert_same_bits(penalties.total(), mean_l1(output), "told")


class Attends(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.attention = nnx.MultiHeadAttention(1, 4, rngs=rngs, decode=False)

    def __call__(self, x: Any) -> Any:
        return self.attention(x)


def test_an_attention_has_no_placement_kernel() -> None:
    model = Attends(nnx.Rngs(0))
    with pytest.raises(ar.SpecError, match=r"'attention' \(MultiHeadAttention\) has no placement 'kernel'; there is"):
        arspec_jax.attach(model, spec("kernel", "attention"))
    output, penalties = arspec_jax.attach(model, spec("output", "attention"))(model, jnp.ones((2, 3, 4)))
    assert_same_bits(penalties.total(), mean_l1(output), "output")


class Images(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Conv(3, 4, (3, 3), rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return nnx.relu(self.hidden(x))


def test_a_convolution_has_named_axes() -> None:
    model = Images(nnx.Rngs(0))
    rules = [*spec("output", mean_over=("batch", "height")).rules, *spec("kernel", mean_over=("input",)).rules]
    output, penalties = arspec_jax.attach(model, ar.Spec(rules))(model, jnp.ones((2, 6, 5, 3)))
    expected = ar.value(ar.L1(0.1), np.asarray(output), mean_over=("batch", "height"))
    assert_same_bits(penalties["hidden/output/l1"], expected, "output")
    kernel = np.asarray(model.hidden.kernel[...])
    expected = ar.value(ar.L1(0.1), kernel, axes="height width input output", mean_over=("input",))
    assert_same_bits(penalties["hidden/kernel/l1"], expected, "kernel")


# Linen.


class Deep(nn.Module):
    @nn.compact
    def __call__(self, x: Any, *, train: bool = False) -> Any:
        x = nn.relu(nn.Dense(4)(x))
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Sequential([nn.Dense(4), nn.tanh, nn.Dense(2)])(x)


def test_linen_with_batch_statistics_and_dropout() -> None:
    module = Deep()
    variables = module.init(KEY, X)
    rules = [rule for placement in ("output", "kernel", "bias") for rule in spec(placement, "**").rules]
    forward = arspec_jax.attach(module, ar.Spec(rules))
    options: dict[str, Any] = {"train": True, "mutable": ["batch_stats"], "rngs": {"dropout": KEY}}
    (output, updates), penalties = jax.jit(lambda v: forward(v, X, **options))(variables)
    plain, plain_updates = module.apply(variables, X, **options)
    np.testing.assert_allclose(output, plain, rtol=1e-5)
    jax.tree.map(np.testing.assert_allclose, updates, plain_updates)
    paths = ["Dense_0", "Dense_1", "Dense_2"]
    of_weights = [f"{path}/{placement}/l1" for placement in ("kernel", "bias") for path in paths]
    assert list(penalties) == ["BatchNorm_0/output/l1", *(f"{path}/output/l1" for path in paths), *of_weights]


def test_linen_sites_are_known_after_the_first_call() -> None:
    module = Deep()
    forward = arspec_jax.attach(module, spec("kernel", "Dense_0"))
    with pytest.raises(ar.SpecError, match="known after its first call"):
        _ = forward.sites
    forward(module.init(KEY, X), X)
    assert [site.key for site in forward.sites] == ["Dense_0/kernel/l1"]


# Equinox.


def test_equinox_mlp_and_the_meaning_of_a_batch_mean() -> None:
    model = eqx.nn.MLP(2, 1, 5, 2, key=KEY)
    forward = arspec_jax.attach(model, spec("output", "layers/0"))
    output, penalties = forward(model, X)
    np.testing.assert_allclose(output, jax.vmap(model)(jnp.asarray(X)), rtol=1e-6)
    hidden = jax.nn.relu(jax.vmap(model.layers[0])(jnp.asarray(X)))
    assert_same_bits(penalties["layers/0/output/l1"], mean_l1(hidden), "batch mean")


def test_equinox_one_example_at_a_time() -> None:
    model = eqx.nn.MLP(2, 1, 5, 1, key=KEY)
    with pytest.raises(ar.SpecError, match="layers/0/output/l1: mean_over names 'batch', but x has the axes"):
        arspec_jax.attach(model, spec("output", "layers/0"), batched=False)(model, jnp.asarray(X)[0])
    forward = arspec_jax.attach(model, spec("output", "layers/0", mean_over="sum"), batched=False)
    _, penalties = jax.vmap(forward, in_axes=(None, 0))(model, jnp.asarray(X))
    hidden = np.asarray(jax.nn.relu(jax.vmap(model.layers[0])(jnp.asarray(X))))
    expected = np.stack([ar.value(ar.L1(0.1), row) for row in hidden])
    assert_same_bits(penalties["layers/0/output/l1"], expected, "per example")


def test_equinox_sequential_with_keys_and_a_named_activation_layer() -> None:
    layers = [
        eqx.nn.Linear(2, 4, key=KEY),
        eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.Dropout(0.5),
        eqx.nn.Linear(4, 1, key=KEY),
    ]
    model = eqx.nn.Sequential(layers)
    rules = [*spec("output", "**").rules, *spec("output", "layers/1").rules]
    _, penalties = arspec_jax.attach(model, ar.Spec(rules))(model, X, key=jax.random.split(KEY, len(X)))
    assert list(penalties) == ["layers/0/output/l1", "layers/3/output/l1", "layers/1/output/l1"]
    assert_same_bits(penalties["layers/0/output/l1"], penalties["layers/1/output/l1"], "the same tensor")


class Tokens(eqx.Module):
    hidden: eqx.nn.Linear

    @eqx.filter_jit
    def __call__(self, x: Any) -> Any:
        return jax.nn.gelu(jax.vmap(self.hidden)(x))


@pytest.mark.parametrize("batched", [False, True])
def test_equinox_vmap_and_jit_inside(batched: bool) -> None:
    model = Tokens(eqx.nn.Linear(2, 3, key=KEY))
    x = jnp.asarray(X).reshape(7, 1, 2).repeat(4, 1) if batched else jnp.asarray(X)
    forward = arspec_jax.attach(model, spec("output"), batched=batched)
    output, penalties = forward(model, x)
    assert_same_bits(penalties.total(), mean_l1(output), "output")
    assert forward.sites[0].shape == ((7, 4, 3) if batched else (7, 3))


class Pair(eqx.Module):
    a: eqx.nn.Linear
    b: eqx.nn.Linear

    def __call__(self, x: Any) -> Any:
        return self.b(self.a(x))


def test_equinox_untied_copies_are_refused_and_shared_ones_count_once() -> None:
    layer = eqx.nn.Linear(2, 2, key=KEY)
    model = Pair(layer, layer)
    with pytest.raises(ar.UnsupportedError, match=r"another layer holds the same array.*eqx\.nn\.Shared"):
        arspec_jax.attach(model, spec("kernel", "**"))
    _, penalties = arspec_jax.attach(model, spec("pre_activation", "**"))(model, X)
    assert list(penalties) == ["a/pre_activation/l1", "b/pre_activation/l1"]


def test_equinox_convolutions_have_channels_first() -> None:
    model = eqx.nn.Sequential([eqx.nn.Conv2d(3, 4, 3, key=KEY), eqx.nn.Lambda(jax.nn.relu)])
    rules = [
        *spec("output", "**", mean_over=("batch", "feature")).rules,
        *spec("kernel", "**", mean_over=("output",)).rules,
        *spec("bias", "**").rules,
    ]
    output, penalties = arspec_jax.attach(model, ar.Spec(rules))(model, jnp.ones((2, 3, 6, 5)))
    axes = "batch feature height width"
    expected = ar.value(ar.L1(0.1), np.asarray(output), axes=axes, mean_over=("batch", "feature"))
    assert_same_bits(penalties["layers/0/output/l1"], expected, "output")
    kernel = np.asarray(model.layers[0].weight)
    expected = ar.value(ar.L1(0.1), kernel, axes="output input height width", mean_over=("output",))
    assert_same_bits(penalties["layers/0/kernel/l1"], expected, "kernel")


def test_equinox_ensemble_by_filter_vmap() -> None:
    make = lambda key: eqx.nn.MLP(2, 1, 4, 1, key=key)  # noqa: E731
    models = eqx.filter_vmap(make)(jax.random.split(KEY, 3))
    forward = arspec_jax.attach(make(KEY), ar.Spec([*spec("output", "layers/0").rules, *spec("kernel", "**").rules]))
    grads = eqx.filter_vmap(eqx.filter_grad(lambda model: forward(model, X)[1].total()))(models)
    one = jax.tree.map(lambda leaf: leaf[1] if eqx.is_array(leaf) else leaf, models)
    expected = eqx.filter_grad(lambda model: forward(model, X)[1].total())(one)
    np.testing.assert_allclose(grads.layers[0].weight[1], expected.layers[0].weight, rtol=1e-5)


class OwnEquinox(eqx.Module):
    hidden: Any

    def __call__(self, x: Any) -> Any:
        return jax.nn.relu(self.hidden(x))


class Affine(eqx.Module):
    weight: jax.Array

    def __call__(self, x: Any) -> Any:
        return self.weight @ x


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (lambda: Affine(jnp.ones((2, 2))), "a Affine is not a layer whose axes are known"),
        (lambda: eqx.nn.WeightNorm(eqx.nn.Linear(2, 2, key=KEY)), "a WeightNorm makes the weight of this layer"),
    ],
)
def test_equinox_layers_whose_kernel_is_refused(layer: Callable[[], Any], text: str) -> None:
    with pytest.raises(ar.UnsupportedError, match=text):
        arspec_jax.attach(OwnEquinox(layer()), spec("kernel", "**"))
