"""One network, 2-5-1 with a ReLU, written four times for JAX, with the same numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import arspec_jax

RNG = np.random.default_rng(7)
KERNELS = {
    "hidden": RNG.standard_normal((2, 5)).astype(np.float32),
    "out": RNG.standard_normal((5, 1)).astype(np.float32),
}
BIASES = {"hidden": RNG.standard_normal(5).astype(np.float32), "out": RNG.standard_normal(1).astype(np.float32)}
X = RNG.standard_normal((7, 2)).astype(np.float32)


class Nnx(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(2, 5, rngs=rngs)
        self.out = nnx.Linear(5, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(nnx.relu(self.hidden(x)))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(1, name="out")(nn.relu(nn.Dense(5, name="hidden")(x)))


class Equinox(eqx.Module):
    hidden: eqx.nn.Linear
    out: eqx.nn.Linear

    def __init__(self) -> None:
        self.hidden = eqx.nn.Linear(2, 5, key=jax.random.key(0))
        self.out = eqx.nn.Linear(5, 1, key=jax.random.key(1))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(jax.nn.relu(self.hidden(x)))


def function(params: Any, x: jax.Array) -> jax.Array:
    pre_activation = x @ params["hidden"]["kernel"] + params["hidden"]["bias"]
    hidden = jax.nn.relu(arspec_jax.site(pre_activation, layer="hidden", placement="pre_activation"))
    logits = hidden @ params["out"]["kernel"] + params["out"]["bias"]
    return arspec_jax.site(logits, layer="out", placement="pre_activation")


@dataclass(frozen=True)
class Flavour:
    """A way to write the network: what `attach` takes, what `forward` takes, and how to read a gradient."""

    attached: Any
    argument: Any
    kernel: Callable[[Any, str], Any]
    bias: Callable[[Any, str], Any]
    grad: Callable[..., Any]
    jit: Callable[..., Any]
    predict: Callable[[Any, Any], Any]


def params() -> dict[str, dict[str, jax.Array]]:
    return {name: {"kernel": jnp.asarray(KERNELS[name]), "bias": jnp.asarray(BIASES[name])} for name in KERNELS}


def _nnx() -> Flavour:
    model = Nnx(rngs=nnx.Rngs(0))
    for name in KERNELS:
        getattr(model, name).kernel[...] = KERNELS[name]
        getattr(model, name).bias[...] = BIASES[name]
    return Flavour(
        attached=model,
        argument=model,
        kernel=lambda grads, name: grads[name]["kernel"][...],
        bias=lambda grads, name: grads[name]["bias"][...],
        grad=nnx.grad,
        jit=nnx.jit,
        predict=lambda model, x: model(x),
    )


def _linen() -> Flavour:
    module = Linen()
    return Flavour(
        attached=module,
        argument={"params": params()},
        kernel=lambda grads, name: grads["params"][name]["kernel"],
        bias=lambda grads, name: grads["params"][name]["bias"],
        grad=jax.grad,
        jit=jax.jit,
        predict=module.apply,
    )


def _equinox() -> Flavour:
    model = Equinox()
    for name in KERNELS:
        where = lambda m, name=name: (getattr(m, name).weight, getattr(m, name).bias)  # noqa: E731
        model = eqx.tree_at(where, model, (jnp.asarray(KERNELS[name].T), jnp.asarray(BIASES[name])))
    return Flavour(
        attached=model,
        argument=model,
        kernel=lambda grads, name: getattr(grads, name).weight.T,
        bias=lambda grads, name: getattr(grads, name).bias,
        grad=eqx.filter_grad,
        jit=eqx.filter_jit,
        predict=lambda model, x: jax.vmap(model)(x),
    )


def _function() -> Flavour:
    return Flavour(
        attached=function,
        argument=params(),
        kernel=lambda grads, name: grads[name]["kernel"],
        bias=lambda grads, name: grads[name]["bias"],
        grad=jax.grad,
        jit=jax.jit,
        predict=function,
    )


FLAVOURS: dict[str, Callable[[], Flavour]] = {"nnx": _nnx, "linen": _linen, "equinox": _equinox, "function": _function}
