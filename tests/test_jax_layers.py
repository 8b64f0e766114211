"""Layers of NNX, Linen and Equinox against the reference layers, in float64: values and gradients of weights."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
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
from arspec import layers
from arspec._placements import PLACEMENTS
from reference_layers import (
    FEATURES,
    IMAGE,
    SEQUENCE,
    TOKENS,
    UNITS,
    VOLUME,
    Array,
    attention,
    batch_normalization,
    convolution,
    depthwise,
    random,
)

KEY = jax.random.key(5)
ROUNDINGS = 2000 * float(np.finfo(np.float64).eps)  # relative to the largest number of its kind
Arrays = Mapping[str, Array]
Way = tuple[Callable[[Array], Any], Callable[[Any], Array]]

AS_IS: Way = (np.asarray, np.asarray)
TRANSPOSED: Way = (np.transpose, np.transpose)


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@dataclass(frozen=True)
class Leaf:
    """An array of a framework's layer: where it is, and the way from and to the reference's."""

    path: str
    way: Way = AS_IS


@dataclass(frozen=True)
class Case:
    """A reference layer, and the layers of the frameworks that are to agree with it.

    Attributes
    ----------
    make : by framework, the layer.
    leaves : by framework, the arrays by placement.
    given : by framework, what the reference's input becomes.
    """

    reference: layers.ReferenceLayer
    x: Array
    make: Mapping[str, Callable[[], Any]]
    leaves: Mapping[str, Mapping[str, Leaf]]
    activation: Callable[[Any], Any] | None = None
    given: Mapping[str, Callable[[Array], Array]] = field(default_factory=dict)
    call: Mapping[str, Callable[[Any, Any], Any]] = field(default_factory=dict)


# One model around a layer, in every framework.


class Nnx(nnx.Module):
    def __init__(self, layer: Any, call: Any, activation: Any) -> None:
        self.layer, self.call, self.activation = layer, call, activation

    def __call__(self, x: Any) -> Any:
        return self.activation(self.call(self.layer, x))


class Linen(nn.Module):
    make: Any
    call: Any
    activation: Any

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return self.activation(self.call(self.make(), x))


class Equinox(eqx.Module):
    layer: Any
    call: Any = eqx.field(static=True)
    activation: Any = eqx.field(static=True)

    def __call__(self, x: Any) -> Any:
        return self.activation(self.call(self.layer, x))


def plain(layer: Any, x: Any) -> Any:
    return layer(x)


def same(x: Any) -> Any:
    return x


def at_path(tree: Any, path: str) -> Any:
    for name in path.split("/"):
        tree = tree[name] if isinstance(tree, Mapping | nnx.State) else getattr(tree, name)
    return tree


def build(case: Case, framework: str) -> tuple[Any, Any, Any, Callable[[Any], dict[str, Array]]]:
    """Return what `attach` takes, what `forward` takes, the framework's grad, and how to read a gradient."""
    weights, leaves = case.reference.parameters(), case.leaves[framework]
    call, activation = case.call.get(framework, plain), case.activation or same
    arrays = {leaf.path: jnp.asarray(leaf.way[0](weights[name])) for name, leaf in leaves.items()}
    if framework == "linen":
        nested: dict[str, Any] = {}
        for path, array in arrays.items():
            *outer, name = path.split("/")
            node = nested
            for part in outer:
                node = node.setdefault(part, {})
            node[name] = array
        model = Linen(case.make["linen"], call, activation)
        root = {"params": {"layer": nested}}
        return model, root, jax.grad, lambda grads: _read(leaves, grads["params"]["layer"])
    layer = case.make[framework]()
    if framework == "nnx":
        for path, array in arrays.items():
            at_path(layer, path)[...] = array
        model = Nnx(layer, call, activation)
        return model, model, nnx.grad, lambda grads: _read(leaves, grads["layer"])
    for path, array in arrays.items():
        layer = eqx.tree_at(lambda one, path=path: at_path(one, path), layer, array)
    model = Equinox(layer, call, activation)
    return model, model, eqx.filter_grad, lambda grads: _read(leaves, grads.layer)


def _read(leaves: Mapping[str, Leaf], grads: Any) -> dict[str, Array]:
    return {name: leaf.way[1](np.asarray(_array(at_path(grads, leaf.path)))) for name, leaf in leaves.items()}


def _array(leaf: Any) -> Any:
    return leaf[...] if isinstance(leaf, nnx.Variable) else leaf


def rules_of(case: Case) -> ar.Spec:
    """Return a rule for every placement of a layer; kernels get one to which the names of axes matter."""
    record = case.reference.forward(case.x)
    rules = []
    for name in record:
        if name not in PLACEMENTS or record[name].dtype.kind != "f":
            continue
        penalty: Any = ar.PseudoHuber(0.2, delta=0.5)
        over: Any = "batchmean" if name in ("input", "pre_activation", "output") else ()
        rules.append(ar.Rule(penalty, layer="layer", placement=name, mean_over=over))
        if name.endswith(("kernel", "embeddings")):
            rules.append(ar.Rule(ar.GroupLasso(0.3, norm_over=("input",)), layer="layer", placement=name))
        if name in ("pre_activation", "output"):
            rules.append(ar.Rule(ar.L2(0.1), layer="layer", placement=name, mean_over=("feature",)))
    return ar.Spec(rules)


def flax(make: Any, *args: Any, **options: Any) -> Callable[[], Any]:
    """Return a maker of a layer in float64: of NNX with random numbers, of Linen under its name."""
    if make.__module__.startswith("flax.nnx"):
        return lambda: make(*args, param_dtype=jnp.float64, rngs=nnx.Rngs(0), **options)
    return lambda: make(*args, param_dtype=jnp.float64, name="layer", **options)


def mapped(layer: Any, x: Any) -> Any:
    return jax.vmap(layer)(x)


def channels_first(x: Array) -> Array:
    return np.moveaxis(x, -1, 1)


def kernel_and_bias(kernel: str = "kernel", way: Way = AS_IS, bias: Way = AS_IS) -> dict[str, Leaf]:
    return {"kernel": Leaf(kernel, way), "bias": Leaf("bias", bias)}


def dense() -> Case:
    return Case(
        layers.Dense(random(FEATURES, UNITS), random(UNITS), "tanh"),
        SEQUENCE,
        {
            "nnx": flax(nnx.Linear, FEATURES, UNITS),
            "linen": flax(nn.Dense, UNITS),
            "equinox": lambda: eqx.nn.Linear(FEATURES, UNITS, key=KEY),
        },
        {"nnx": kernel_and_bias(), "linen": kernel_and_bias(), "equinox": kernel_and_bias("weight", TRANSPOSED)},
        activation=jnp.tanh,
        call={"equinox": mapped},
    )


def conv(x: Array, *size: int, groups: int = 1, inputs: int = FEATURES, outputs: int = UNITS, **options: Any) -> Case:
    sizes = {"inputs": inputs, "outputs": outputs}
    reference = convolution(*size, groups=groups, padding="same", activation="tanh", **sizes, **options)
    count = len(size)
    spatial = tuple(range(count))
    weight: Way = (
        lambda kernel: np.transpose(kernel, (count + 1, count, *spatial)),
        lambda weight: np.transpose(weight, (*(i + 2 for i in spatial), 1, 0)),
    )
    bias: Way = (lambda b: np.reshape(b, (-1, *(1 for _ in size))), np.ravel)
    settings: dict[str, Any] = {"strides": options.get("strides", 1), "padding": "SAME", "feature_group_count": groups}
    return Case(
        reference,
        x,
        {
            "nnx": flax(nnx.Conv, inputs, outputs, size, **settings),
            "linen": flax(nn.Conv, outputs, size, **settings),
            "equinox": lambda: eqx.nn.Conv(
                count, inputs, outputs, size, options.get("strides", 1), "SAME", groups=groups, key=KEY
            ),
        },
        {"nnx": kernel_and_bias(), "linen": kernel_and_bias(), "equinox": kernel_and_bias("weight", weight, bias)},
        activation=jnp.tanh,
        given={"equinox": channels_first},
    )


def depthwise_conv() -> Case:
    """Return a convolution with a group per channel: (..., input, 2) to the reference, (..., 1, input · 2) in Flax."""
    flat: Way = (lambda k: np.reshape(k, (*k.shape[:-2], 1, -1)), lambda k: np.reshape(k, (*k.shape[:-2], FEATURES, 2)))
    into: Way = (
        lambda k: np.reshape(np.moveaxis(k, (2, 3), (0, 1)), (-1, 1, 2, 3)),
        lambda w: np.moveaxis(np.reshape(w, (FEATURES, 2, 2, 3)), (0, 1), (2, 3)),
    )
    options: dict[str, Any] = {"padding": "SAME", "feature_group_count": FEATURES}
    bias: Way = (lambda b: np.reshape(b, (-1, 1, 1)), np.ravel)
    return Case(
        depthwise(2, 3, padding="same", activation="tanh"),
        IMAGE,
        {
            "nnx": flax(nnx.Conv, FEATURES, 2 * FEATURES, (2, 3), **options),
            "linen": flax(nn.Conv, 2 * FEATURES, (2, 3), **options),
            "equinox": lambda: eqx.nn.Conv2d(FEATURES, 2 * FEATURES, (2, 3), padding="SAME", groups=FEATURES, key=KEY),
        },
        {
            "nnx": kernel_and_bias("kernel", flat),
            "linen": kernel_and_bias("kernel", flat),
            "equinox": kernel_and_bias("weight", into, bias),
        },
        activation=jnp.tanh,
        given={"equinox": channels_first},
    )


def embedding() -> Case:
    return Case(
        layers.Embedding(random(4, FEATURES)),
        TOKENS,
        {
            "nnx": flax(nnx.Embed, 4, FEATURES),
            "linen": flax(nn.Embed, 4, FEATURES),
            "equinox": lambda: eqx.nn.Embedding(4, FEATURES, key=KEY),
        },
        {
            "nnx": {"embeddings": Leaf("embedding")},
            "linen": {"embeddings": Leaf("embedding")},
            "equinox": {"embeddings": Leaf("weight")},
        },
        call={"equinox": mapped},
    )


def normalization() -> Case:
    scaled = {"scale": Leaf("scale"), "shift": Leaf("bias")}
    options: dict[str, Any] = {"epsilon": 1e-3, "use_fast_variance": False}
    return Case(
        layers.LayerNormalization(random(FEATURES), random(FEATURES, seed=1)),
        SEQUENCE,
        {
            "nnx": flax(nnx.LayerNorm, FEATURES, **options),
            "linen": flax(nn.LayerNorm, **options),
            "equinox": lambda: eqx.nn.LayerNorm(FEATURES, eps=1e-3),
        },
        {"nnx": scaled, "linen": scaled, "equinox": {"scale": Leaf("weight"), "shift": Leaf("bias")}},
        call={"equinox": mapped},
    )


def attend(query: Any, key: Any, value: Any, **_: Any) -> Any:
    """Attend in float64; what NNX takes by default, jax.nn.dot_product_attention, does so in float32."""
    scores = jnp.einsum("bths,buhs->bhtu", query, key) / np.sqrt(query.shape[-1])
    return jnp.einsum("bhtu,buhs->bths", jax.nn.softmax(scores), value)


def heads() -> Case:
    names = ("query", "key", "value")
    of_flax = {f"{n}_{kind}": Leaf(f"{n}/{kind}") for n in names for kind in ("kernel", "bias")}
    of_flax |= {f"output_{kind}": Leaf(f"out/{kind}") for kind in ("kernel", "bias")}
    into: Way = (lambda k: np.reshape(k, (FEATURES, -1)).T, lambda w: np.reshape(w.T, (FEATURES, 2, 3)))
    out: Way = (lambda k: np.reshape(k, (-1, 7)).T, lambda w: np.reshape(w.T, (2, 3, 7)))
    flat: Way = (np.ravel, lambda b: np.reshape(b, (2, 3)))
    of_equinox = {f"{n}_kernel": Leaf(f"{n}_proj/weight", into) for n in names}
    of_equinox |= {f"{n}_bias": Leaf(f"{n}_proj/bias", flat) for n in names}
    of_equinox |= {"output_kernel": Leaf("output_proj/weight", out), "output_bias": Leaf("output_proj/bias")}
    biases = {f"use_{name}_bias": True for name in (*names, "output")}
    sizes: dict[str, Any] = {"qkv_features": 6, "out_features": 7}
    return Case(
        attention(heads=2, size=3, value_size=3),
        SEQUENCE,
        {
            "nnx": flax(nnx.MultiHeadAttention, 2, FEATURES, decode=False, attention_fn=attend, **sizes),
            "linen": flax(nn.MultiHeadDotProductAttention, 2, **sizes),
            "equinox": lambda: eqx.nn.MultiheadAttention(
                2, FEATURES, output_size=7, qk_size=3, vo_size=3, key=KEY, **biases
            ),
        },
        {"nnx": of_flax, "linen": of_flax, "equinox": of_equinox},
        call={"equinox": lambda layer, x: layer(x, x, x)},
    )


CASES: dict[str, Callable[[], Case]] = {
    "dense": dense,
    "conv 1-D": lambda: conv(SEQUENCE, 3),
    "conv 2-D with strides": lambda: conv(IMAGE, 3, 2, strides=2),
    "conv 2-D by groups": lambda: conv(random(2, 7, 5, 6), 2, 3, groups=2, outputs=4, inputs=6),
    "depthwise 2-D": depthwise_conv,
    "conv 3-D": lambda: conv(VOLUME, 2, 3, 1),
    "embedding": embedding,
    "layer normalization": normalization,
    "attention": heads,
}


@pytest.mark.parametrize("framework", ["nnx", "linen", "equinox"])
@pytest.mark.parametrize("name", CASES)
def test_every_placement(name: str, framework: str) -> None:
    case = CASES[name]()
    attached, argument, grad, read = build(case, framework)
    rules = rules_of(case)
    forward = arspec_jax.attach(attached, rules)
    wanted = layers.Network({"layer": case.reference}).penalties(rules, case.x)
    x = jnp.asarray(case.given.get(framework, np.asarray)(case.x))

    def total(argument: Any) -> Any:
        _, penalties = forward(argument, x)
        return penalties.total(), penalties

    grads, penalties = grad(total, has_aux=True)(argument)
    assert list(penalties) == list(wanted.values)
    for key, number in wanted.values.items():
        close(penalties[key], number, key)
    for placement, gradient in read(grads).items():
        close(gradient, wanted.gradients[f"layer/{placement}"], placement)


def close(got: Any, wanted: Any, what: str) -> None:
    scale = float(np.max(np.abs(wanted), initial=0.0)) + 1.0
    np.testing.assert_allclose(np.asarray(got), wanted, rtol=0, atol=ROUNDINGS * scale, err_msg=what)


@pytest.mark.parametrize("framework", ["nnx", "linen"])
def test_batch_normalization_with_its_running_statistics(framework: str) -> None:
    reference, x = batch_normalization(), jnp.asarray(SEQUENCE)
    statistics = {"mean": jnp.asarray(reference.moving_mean), "var": jnp.asarray(reference.moving_variance)}
    weights = {
        name: jnp.asarray(reference.parameters()[ours]) for name, ours in (("scale", "scale"), ("bias", "shift"))
    }
    options: dict[str, Any] = {"use_running_average": True, "epsilon": 1e-3}
    if framework == "nnx":
        layer: Any = flax(nnx.BatchNorm, FEATURES, **options)()
        layer.mean, layer.var = (nnx.BatchStat(array) for array in statistics.values())  # float32 otherwise
        layer.scale, layer.bias = (nnx.Param(array) for array in weights.values())
        model: Any = Nnx(layer, plain, same)
        attached, argument, grad = model, model, nnx.grad
    else:
        attached, grad = Linen(flax(nn.BatchNorm, **options), plain, same), jax.grad
        argument = {"params": {"layer": weights}, "batch_stats": {"layer": statistics}}
    placements = ("input", "output", "scale", "shift")
    spec = ar.Spec([ar.Rule(ar.PseudoHuber(0.2, delta=0.5), layer="layer", placement=name) for name in placements])
    wanted = layers.Network({"layer": reference}).penalties(spec, SEQUENCE)
    forward = arspec_jax.attach(attached, spec)

    def total(argument: Any) -> Any:
        _, penalties = forward(argument, x)
        return penalties.total(), penalties

    grads, penalties = grad(total, has_aux=True)(argument)
    for key, number in wanted.values.items():
        close(penalties[key], number, key)
    found = grads["layer"] if framework == "nnx" else grads["params"]["layer"]
    for theirs, ours in (("scale", "scale"), ("bias", "shift")):
        close(_array(found[theirs]), wanted.gradients[f"layer/{ours}"], ours)
