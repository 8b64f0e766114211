"""Weights and rules between models that exist, in five frameworks: there and back to the bit."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
import torch
from flax import linen, nnx

import arspec as ar
import arspec_jax.port as jax_port
import arspec_torch.port as torch_port
import keras
from arspec.port import Transfer, transfer, written_layers
from arspec_keras.port import assign, export, layers
from port_zoo import (
    Held,
    equinox_model,
    keras_model,
    linen_model,
    made_nnx,
    nnx_model,
    randomized,
    torch_model,
    walked,
    zeros,
)

RING: tuple[tuple[str, Callable[[str], Held]], ...] = (
    ("torch", torch_model),
    ("NNX", nnx_model),
    ("Equinox", equinox_model),
    ("Linen", linen_model),
)
SPECS = {
    "image": [
        ar.Rule(ar.L2(1e-2), layer="**", placement="kernel"),
        ar.Rule(ar.L1(1e-3), layer="wide", placement="depthwise_kernel"),
        ar.Rule(ar.GroupLasso(1e-2, norm_over=("input",)), layer="deep", placement="kernel"),
        ar.Rule(ar.GroupLasso(1e-2, norm_over=("height", "width")), layer="up", placement="kernel"),
        ar.Rule(ar.L1(1e-2), layer="norm", placement="scale", mean_over="mean"),
    ],
    "sequence": [
        ar.Rule(ar.L2(1e-2), layer="**", placement="recurrent_kernel"),
        ar.Rule(ar.L1(1e-3), layer="both/*", placement="bias"),
        ar.Rule(ar.GroupLasso(1e-2, norm_over=("input",)), layer="attention", placement="value_kernel"),
        ar.Rule(ar.L1(1e-2), layer="table", placement="embeddings"),
        ar.Rule(ar.L2(1e-2), layer="**", placement="shift"),
    ],
}


pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="how weights are kept does not depend on the backend of Keras"
)


@pytest.fixture
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def moved(source: Held, target: Held, spec: ar.Spec) -> Transfer:
    """Move a model, with what differs between these by design."""
    found = transfer(source.layers(), target.layers(), spec, by_order=True, accept=("unbiased", "padding"))
    target.assign(dict(found.weights))
    return found


def _rounded(values: list[float]) -> list[float]:
    """Return what a float32 model gets: sums in float64, which follow the layout, rounded once."""
    return [float(np.float32(value)) for value in values]


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("kind", ["image", "sequence"])
def test_a_model_comes_home_through_five_frameworks_with_its_weights_and_penalties(kind: str) -> None:
    home = keras_model(kind, keras)
    home.assign(randomized(home.layers().weights, seed=1))
    start, output = home.layers().weights, home.run()
    spec = ar.Spec(SPECS[kind])
    values = home.penalties(spec)
    assert min(values) > 0
    here = home
    for name, make in RING:
        there = make(kind)
        spec = moved(here, there, spec).spec
        # The attention of NNX computes its softmax in float32.
        rounding = np.finfo(np.float32 if (name, kind) == ("NNX", "sequence") else np.float64).eps
        assert np.abs(there.run() - output).max() < 16 * rounding * np.abs(output).max(), name
        assert _rounded(there.penalties(spec)) == _rounded(values), name
        here = there
    new = keras_model(kind, keras)
    moved(here, new, spec)
    end = new.layers().weights
    assert end.keys() == start.keys()
    assert all(np.array_equal(end[name], start[name]) for name in start)


def test_a_model_written_for_nnx_and_trained_there_returns_to_keras(tmp_path: Path) -> None:
    """The recurrent layers of the code are classes of its own: the map says what their weights are."""
    x = given = keras.Input((5, 3))
    x = keras.layers.SeparableConv1D(4, 2, padding="same", name="wide")(x)
    x = keras.layers.Bidirectional(keras.layers.GRU(3, return_sequences=True), name="both")(x)
    model = keras.Model(given, keras.layers.Dense(2, name="out")(x))
    bundle = export(model)
    before = [weight.numpy() for weight in model.weights]
    written = jax_port.write_nnx(bundle)
    (tmp_path / "written.py").write_text(written.text, encoding="utf-8")
    changed = {name: array + np.float32(0.5) for name, array in written.weights.to_target(bundle.weights).items()}
    trained = jax_port.load_nnx(tmp_path / "written.py", written.class_name, changed)
    with pytest.raises(ar.UnsupportedError, match="'both_forward': what the weights of a GRU are is not known"):
        transfer(jax_port.layers(trained), layers(model))
    back = transfer(written_layers(bundle, written, jax_port.arrays(trained)), layers(model))
    assert [pair.why for pair in back.pairs] == ["shapes", "shapes", "options", "options", "shapes"]
    assign(model, back.weights)
    assert all(np.array_equal(new, old + np.float32(0.5)) for new, old in zip(model.weights, before, strict=True))


X = np.random.default_rng(5).normal(size=(2, 5, 3))


def recurrent(kind: str, biases: str = "all") -> Any:
    """Return a Keras model of one recurrent layer with weights of any size."""
    layer = getattr(keras.layers, kind)(4, return_sequences=True, name="walk")
    model = keras.Sequential([keras.Input((5, 3)), layer])
    assign(model, {k: v.astype(np.float32) for k, v in randomized(layers(model).weights, seed=2).items()})
    if kind == "GRU":
        bias = layer.cell.bias.numpy()
        bias[1, : {"all": 0, "hidden": 8, "none": 12}[biases]] = 0.0
        layer.cell.bias.assign(bias)
    return model


class OneTorch(torch.nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.cell = getattr(torch.nn, kind)(3, 4, batch_first=True)
        for name in ("bias_ih_l0", "bias_hh_l0"):
            getattr(self.cell, name).requires_grad_(kind == "GRU" or "ih" in name)
        with torch.no_grad():
            self.cell.bias_hh_l0.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cell(x)[0]


class OneNnx(nnx.Module):
    def __init__(self, kind: str) -> None:
        cell = getattr(nnx, kind)(3, 4, rngs=nnx.Rngs(0))
        self.walk = nnx.RNN(cell, rngs=nnx.Rngs(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        found: Any = self.walk(x)
        return found


class OneLinen(linen.Module):
    kind: str

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        found: Any = linen.RNN(getattr(linen, self.kind)(4), name="walk")(x)
        return found


def same_outputs(model: Any, output: Any) -> None:
    expected = np.asarray(model(X.astype(np.float32)))
    assert np.abs(np.asarray(output) - expected).max() < 16 * np.finfo(np.float32).eps


@pytest.mark.parametrize("kind", ["GRU", "SimpleRNN"])
def test_recurrent_layers_go_to_torch_and_back_to_the_bit(kind: str) -> None:
    source, module = recurrent(kind), OneTorch({"GRU": "GRU", "SimpleRNN": "RNN"}[kind])
    torch_port.assign(module, transfer(layers(source), torch_port.layers(module)).weights)
    same_outputs(source, module(torch.tensor(X, dtype=torch.float32)).detach())
    back = transfer(torch_port.layers(module), layers(source))
    before = layers(source).weights
    assert back.weights.keys() == before.keys()
    assert all(np.array_equal(back.weights[name], before[name]) for name in before)


def test_a_simple_layer_walks_through_flax_too() -> None:
    source, x = recurrent("SimpleRNN"), jax.numpy.asarray(X, jax.numpy.float32)
    first, second = made_nnx(lambda: OneNnx("SimpleCell")), OneLinen("SimpleCell")
    jax_port.assign(first, transfer(layers(source), jax_port.layers(first)).weights)
    same_outputs(source, nnx.jit(OneNnx.__call__)(first, x))
    variables = zeros(jax.eval_shape(second.init, jax.random.key(0), x))
    moved = transfer(jax_port.layers(first), jax_port.layers(second, variables, x))
    variables = jax_port.assign(second, moved.weights, variables, x)
    same_outputs(source, jax.jit(second.apply)(variables, x))
    back = transfer(jax_port.layers(second, variables, x), layers(source)).weights
    assert all(np.array_equal(back[name], array) for name, array in layers(source).weights.items())


def test_a_gru_whose_biases_the_target_adds_up_says_so() -> None:
    """Linen and Equinox have one bias for update and reset: their sum is right, and trains otherwise."""
    source, x = recurrent("GRU"), jax.numpy.asarray(X, jax.numpy.float32)
    first = OneLinen("GRUCell")
    second = zeros(eqx.filter_eval_shape(eqx.nn.GRUCell, 3, 4, key=jax.random.key(0)))
    variables = zeros(jax.eval_shape(first.init, jax.random.key(0), x))
    with pytest.raises(ar.SpecError, match=r"biases of input and state -> one, and one more of the hidden gate"):
        transfer(layers(source), jax_port.layers(first, variables, x))
    rule = ar.Rule(ar.L1(1.0), layer="walk", placement="bias")
    with pytest.raises(ar.UnsupportedError, match=r"walk/bias/l1: the biases are of input and state in the source"):
        transfer(layers(source), jax_port.layers(first, variables, x), ar.Spec([rule]), accept="biases")
    moved = transfer(layers(source), jax_port.layers(first, variables, x), accept="biases")
    variables = jax_port.assign(first, moved.weights, variables, x)
    same_outputs(source, jax.jit(first.apply)(variables, x))
    merged = jax_port.layers(first, variables, x)
    cell = jax_port.assign(second, transfer(merged, jax_port.layers(second)).weights)
    same_outputs(source, jax.jit(jax.vmap(lambda x: walked(cell, x)))(x))
    again = transfer(jax_port.layers(cell), merged).weights
    assert all(np.array_equal(again[name], array) for name, array in merged.weights.items())
    home = recurrent("GRU", "none")
    assign(home, transfer(jax_port.layers(cell), layers(home), accept="biases").weights)
    same_outputs(source, home(X.astype(np.float32)))


def test_a_gru_of_nnx_has_no_place_for_the_bias_of_the_state() -> None:
    target = made_nnx(lambda: OneNnx("GRUCell"))
    with pytest.raises(ar.UnsupportedError, match=r"'walk': a GRU of NNX has no place for a part of its bias that is"):
        transfer(layers(recurrent("GRU", "hidden")), jax_port.layers(target), accept="biases")
    source = recurrent("GRU", "none")
    jax_port.assign(target, transfer(layers(source), jax_port.layers(target), accept="biases").weights)
    same_outputs(source, nnx.jit(OneNnx.__call__)(target, jax.numpy.asarray(X, jax.numpy.float32)))


def test_a_gru_that_resets_before_its_product_has_no_counterpart() -> None:
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.GRU(4, reset_after=False, name="walk")])
    with pytest.raises(
        ar.SpecError, match=r"'walk': a GRU \(bias 12, .* the target has none such \(its 'cell' is a GRU"
    ):
        transfer(layers(model), torch_port.layers(OneTorch("GRU")))


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 2, "same"), (2, 3, "valid")])
def test_a_transposed_convolution_is_kept_in_three_ways(size: int, stride: int, padding: str) -> None:
    """(3, 2, "same") is what torch has no padding for, (2, 3, "valid") leaves a gap behind the last window."""
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.Conv1DTranspose(4, size, stride, padding)])
    source = layers(model)
    assign(model, {name: a.astype(np.float32) for name, a in randomized(source.weights, seed=4).items()})
    source, x = layers(model), jax.numpy.asarray(X, jax.numpy.float32)
    forward = linen.ConvTranspose(4, (size,), (stride,), padding.upper())
    variables = zeros(jax.eval_shape(forward.init, jax.random.key(0), x))
    moved = transfer(source, jax_port.layers(forward, variables, x))
    same_outputs(model, jax.jit(forward.apply)(jax_port.assign(forward, moved.weights, variables, x), x))
    gap = stride - size if padding == "valid" else 0
    cell = eqx.nn.ConvTranspose1d(3, 4, size, stride, gap, padding.upper(), key=jax.random.key(0))
    cell = jax_port.assign(cell, transfer(source, jax_port.layers(cell)).weights)
    same_outputs(model, jax.jit(jax.vmap(lambda x: cell(x.T).T))(x))
    module = torch.nn.ConvTranspose1d(3, 4, size, stride, 0, gap)
    if padding == "same":
        with pytest.raises(ar.SpecError, match="padding same -> valid"):
            transfer(source, torch_port.layers(module))
    else:
        torch_port.assign(module, transfer(source, torch_port.layers(module)).weights)
        same_outputs(model, module(torch.tensor(X, dtype=torch.float32).mT).mT.detach())
