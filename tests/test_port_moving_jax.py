"""What is special in JAX: state beside a model, layers that exist only while they run, arrays nobody knows."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import arspec as ar
from arspec.port import transfer
from arspec_jax.port import arrays, assign, layers

X = np.linspace(-1.0, 2.0, 10, dtype=np.float32).reshape(5, 2)
NEW = {
    "model/scale": np.array([0.5, 2.0], np.float32),
    "model/shift": np.array([1.0, -1.0], np.float32),
    "model/moving_mean": np.array([0.25, -0.5], np.float32),
    "model/moving_variance": np.array([2.0, 0.5], np.float32),
}


def norm(mode: Any) -> tuple[Any, Any]:
    return eqx.nn.make_with_state(eqx.nn.BatchNorm)(2, "batch", momentum=0.75, mode=mode)


def changed(both: tuple[Any, Any]) -> tuple[Any, Any]:
    model, state = both
    return assign(model, NEW, state=state)


def test_statistics_of_equinox_go_on_from_where_they_were_set() -> None:
    """LAYOUTS 2.2: with a counter of 0 one step would make the variance several times too large."""
    model, state = changed(norm("batch"))
    held = layers(model, state=state).weights
    assert all(np.array_equal(held[name], array) for name, array in NEW.items())
    train = jax.jit(jax.vmap(model, in_axes=(0, None), out_axes=(0, None), axis_name="batch"))
    _, after = train(jnp.asarray(X), state)
    mean = layers(model, state=after).weights["model/moving_mean"]
    expected = 0.75 * NEW["model/moving_mean"].astype(float) + 0.25 * X.astype(float).mean(0)
    assert np.abs(mean - expected).max() < 8 * np.finfo(np.float32).eps


def test_normalizing_by_running_statistics_in_training_is_an_option() -> None:
    one, other = norm("batch"), norm("ema")
    with pytest.raises(ar.UnsupportedError, match="mode 'ema' has no statistics before its first batch"):
        layers(other[0], state=other[1])
    with pytest.raises(
        ar.SpecError, match=r"state/mean is in the state beside the model; say it: layers\(model, state"
    ):
        layers(one[0])
    begun = other[1].set(other[0].ema_first_time_index, jnp.array(False))
    with pytest.raises(ar.SpecError, match="statistics of the batch -> running"):
        transfer(layers(one[0], state=one[1]), layers(other[0], state=begun))


def test_linen_is_listed_by_a_call_in_the_order_of_the_call() -> None:
    class Nested(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return linen.Dense(3)(jnp.tanh(linen.Dense(2)(x)))

    module = Nested()
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(np.zeros(leaf.shape, np.float32)), jax.eval_shape(module.init, jax.random.key(0), X)
    )
    with pytest.raises(
        ar.SpecError, match=r"a Linen module is listed by a call: layers\(module, \{'params': ...\}, x\)"
    ):
        layers(module, variables)
    listed = layers(module, variables, X)
    assert [one.shapes["kernel"] for one in listed] == [(2, 2), (2, 3)]
    assert not any(one.named for one in listed)
    weights = {name: array + 1 for name, array in listed.weights.items()}
    new = assign(module, weights, variables, X)
    assert all(np.array_equal(layers(module, new, X).weights[name], array) for name, array in weights.items())
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(variables))  # a new one was returned


class Unknown(nnx.Module):
    def __init__(self) -> None:
        self.known = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
        self.general = nnx.LinearGeneral(2, (2, 2), rngs=nnx.Rngs(0))
        self.gain = nnx.Param(jnp.asarray(np.ones(2, np.float32)))


def test_arrays_that_nobody_knows_are_refused_by_name() -> None:
    module = Unknown()
    listed = layers(module)
    assert set(listed.unknown) == {"general", "model"}
    with pytest.raises(ar.UnsupportedError, match=r"NNX: .*'general': what the weights of a LinearGeneral are is not"):
        transfer(listed, listed)
    assert [pair.why for pair in transfer(listed.only("known"), listed.only("known")).pairs] == ["shapes"]
    assert set(arrays(module)) == {"gain", "general.bias", "general.kernel", "known.bias", "known.kernel"}


def test_only_models_are_taken() -> None:
    with pytest.raises(ar.SpecError, match=r"model is a dict; expected a flax.nnx, flax.linen or equinox module"):
        layers({})
    with pytest.raises(ar.SpecError, match=r"of an Equinox module no call is made: layers\(model, state=state\)"):
        layers(eqx.nn.Identity(), X)
