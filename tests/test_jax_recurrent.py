"""Recurrent layers in JAX against the reference layers: states, gates, weights, masks, directions.

The models compute in float64, so that values and gradients agree to its rounding.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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
from reference_layers import BATCH, FEATURES, TIME, UNITS, Array, gru, lstm, random, simple_rnn

KEY = jax.random.key(5)
LENGTHS = np.array([7, 3, 1])
SEQUENCES = {"batch of 3": random(BATCH, TIME, FEATURES), "batch of 2": random(2, TIME, FEATURES, seed=1)}
# Rounding: at most a few hundred roundings, each relative to the largest number of its kind.
ROUNDINGS = 500 * float(np.finfo(np.float64).eps)


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@dataclass(frozen=True)
class Rnn:
    """A recurrent layer of a framework with the weights of a reference layer.

    Attributes
    ----------
    attached, argument : what `attach` and `forward` take.
    read : from a gradient of `argument`, kernel, recurrent_kernel and bias as the reference
        orders them.
    grad : the framework's own.
    """

    attached: Any
    argument: Any
    read: Callable[[Any], dict[str, Array]]
    grad: Callable[..., Any]


def parts(reference: layers.Recurrent) -> dict[str, list[Array]]:
    """Cut the weights of a reference layer into those of its gates; the bias of a GRU is (2, 3 · units)."""
    gates = reference.gates
    bias = np.zeros((gates * UNITS,)) if reference.bias is None else reference.bias
    cut = {"kernel": reference.kernel, "recurrent_kernel": reference.recurrent_kernel}
    found = {name: np.split(weight, gates, -1) for name, weight in cut.items()}
    return found | {"bias": np.split(bias, gates, -1)}


NAMES = {layers.LSTM: ("i", "f", "g", "o"), layers.GRU: ("z", "r", "n"), layers.SimpleRNN: ("",)}


def linen_cell(reference: layers.Recurrent, *, optimized: bool = False) -> tuple[Any, Any, Callable[[Any], Any]]:
    """Return a Linen cell, its parameters, and how to read them as the reference does."""
    names, cut = NAMES[type(reference)], parts(reference)
    params: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(names):
        params[f"i{name}"] = {"kernel": jnp.asarray(cut["kernel"][index])}
        params[f"h{name}"] = {"kernel": jnp.asarray(cut["recurrent_kernel"][index])}
        owner = "h" if isinstance(reference, layers.LSTM) else "i"
        bias = cut["bias"][index] if not isinstance(reference, layers.GRU) else cut["bias"][index][0]
        params[f"{owner}{name}"]["bias"] = jnp.asarray(bias)
    if isinstance(reference, layers.GRU):
        params["hn"]["bias"] = jnp.asarray(cut["bias"][2][1])
    kinds = {layers.LSTM: nn.OptimizedLSTMCell if optimized else nn.LSTMCell, layers.GRU: nn.GRUCell}

    def read(grads: Any) -> dict[str, Array]:
        found = {
            "kernel": np.concatenate([grads[f"i{name}"]["kernel"] for name in names], -1),
            "recurrent_kernel": np.concatenate([grads[f"h{name}"]["kernel"] for name in names], -1),
        }
        owner = "h" if isinstance(reference, layers.LSTM) else "i"
        bias = [grads[f"{owner}{name}"]["bias"] for name in names]
        return found | {"bias": np.concatenate([*bias, *([grads["hn"]["bias"]] if "hn" in grads else [])], -1)}

    cell = kinds.get(type(reference), nn.SimpleCell)(UNITS, param_dtype=jnp.float64)
    return cell, params, read


class LinenModel(nn.Module):
    cell: Any
    options: Mapping[str, Any]

    @nn.compact
    def __call__(self, x: Any, **kwargs: Any) -> Any:
        return nn.RNN(self.cell, **self.options, name="rnn")(x, **kwargs)


def linen(reference: layers.Recurrent, *, optimized: bool = False, **options: Any) -> Rnn:
    cell, params, read = linen_cell(reference, optimized=optimized)
    model = LinenModel(cell, options)
    return Rnn(model, {"params": {"cell": params}}, lambda grads: read(grads["params"]["cell"]), jax.grad)


def nnx_cell(reference: layers.Recurrent, *, optimized: bool = True) -> Any:
    kinds = {layers.LSTM: nnx.OptimizedLSTMCell if optimized else nnx.LSTMCell, layers.GRU: nnx.GRUCell}
    kind = kinds.get(type(reference), nnx.SimpleCell)
    cell = kind(FEATURES, UNITS, dtype=jnp.float64, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    if isinstance(reference, layers.LSTM) and not optimized:
        cut = parts(reference)
        names = zip(("ii", "if_", "ig", "io"), ("hi", "hf", "hg", "ho"), strict=True)
        for index, (of_input, of_state) in enumerate(names):
            getattr(cell, of_input).kernel[...] = cut["kernel"][index]
            getattr(cell, of_state).kernel[...] = cut["recurrent_kernel"][index]
            getattr(cell, of_state).bias[...] = cut["bias"][index]
        return cell
    order = _flax_order(reference)
    assert reference.bias is not None
    cell.dense_i.kernel[...] = order(reference.kernel)
    cell.dense_h.kernel[...] = order(reference.recurrent_kernel)
    with_bias = cell.dense_h if isinstance(reference, layers.LSTM) else cell.dense_i
    bias = reference.bias[0] if isinstance(reference, layers.GRU) else reference.bias
    with_bias.bias[...] = order(bias)
    return cell


def _flax_order(reference: layers.Recurrent) -> Callable[[Any], Array]:
    """Swap the first two gates of a GRU: z, r, n and r, z, n."""
    if not isinstance(reference, layers.GRU):
        return np.asarray

    def swapped(weight: Any) -> Array:
        first, second, third = np.split(np.asarray(weight), 3, -1)
        return np.concatenate([second, first, third], -1)

    return swapped


class NnxModel(nnx.Module):
    def __init__(self, rnn: Any) -> None:
        self.rnn = rnn

    def __call__(self, x: Any, **kwargs: Any) -> Any:
        return self.rnn(x, **kwargs)


def nnx_rnn(reference: layers.Recurrent, *, optimized: bool = True, **options: Any) -> Rnn:
    model = NnxModel(nnx.RNN(nnx_cell(reference, optimized=optimized), rngs=nnx.Rngs(0), **options))

    def read(grads: Any) -> dict[str, Array]:
        cell, order = grads["rnn"]["cell"], _flax_order(reference)
        if "ii" in cell:
            names = ("i", "f", "g", "o")
            of_input = [cell["if_" if name == "f" else f"i{name}"]["kernel"][...] for name in names]
            return {
                "kernel": np.concatenate(of_input, -1),
                "recurrent_kernel": np.concatenate([cell[f"h{name}"]["kernel"][...] for name in names], -1),
                "bias": np.concatenate([cell[f"h{name}"]["bias"][...] for name in names], -1),
            }
        owner = "dense_h" if isinstance(reference, layers.LSTM) else "dense_i"
        return {
            "kernel": order(cell["dense_i"]["kernel"][...]),
            "recurrent_kernel": order(cell["dense_h"]["kernel"][...]),
            "bias": order(cell[owner]["bias"][...]),
        }

    return Rnn(model, model, read, nnx.grad)


class EquinoxModel(eqx.Module):
    rnn: Any
    loop: str = eqx.field(static=True)
    reverse: bool = eqx.field(static=True)

    def __call__(self, x: Any) -> Any:
        zeros = jnp.zeros(UNITS)
        state = (zeros, zeros) if isinstance(self.rnn, eqx.nn.LSTMCell) else zeros
        if self.loop == "scan":

            def step(state: Any, row: Any) -> Any:
                state = self.rnn(row, state)
                return state, state[0] if isinstance(state, tuple) else state

            return jax.lax.scan(step, state, x, reverse=self.reverse)[1]
        outputs = []
        for row in x:
            state = self.rnn(row, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return jnp.stack(outputs)


def equinox(reference: layers.Recurrent, *, loop: str = "scan", reverse: bool = False) -> Rnn:
    order, is_gru = _flax_order(reference), isinstance(reference, layers.GRU)
    cell = (eqx.nn.GRUCell if is_gru else eqx.nn.LSTMCell)(FEATURES, UNITS, dtype=jnp.float64, key=KEY)
    assert reference.bias is not None
    weights = [order(reference.kernel).T, order(reference.recurrent_kernel).T]
    weights += [order(reference.bias[0]), reference.bias[1][2 * UNITS :]] if is_gru else [reference.bias]
    leaves = lambda c: [c.weight_ih, c.weight_hh, c.bias, *([c.bias_n] if is_gru else [])]  # noqa: E731
    model = EquinoxModel(eqx.tree_at(leaves, cell, [jnp.asarray(w) for w in weights]), loop, reverse)

    def read(grads: Any) -> dict[str, Array]:
        bias = order(grads.rnn.bias)
        return {
            "kernel": order(grads.rnn.weight_ih.T),
            "recurrent_kernel": order(grads.rnn.weight_hh.T),
            "bias": np.concatenate([bias, grads.rnn.bias_n]) if is_gru else bias,
        }

    return Rnn(model, model, read, eqx.filter_grad)


def flax_gru(*, state_bias: bool = True, **options: Any) -> layers.GRU:
    """Return a GRU without the biases that Flax and Equinox do not have: of the state, for z and r (and n)."""
    made = gru(**options)
    assert made.bias is not None
    made.bias[1, : 2 * UNITS if state_bias else None] = 0.0
    return made


Case = tuple[Callable[..., Rnn], layers.Recurrent]
FORWARD: dict[str, Case] = {
    "linen LSTM": (linen, lstm()),
    "linen optimized LSTM": (lambda r, **o: linen(r, optimized=True, **o), lstm()),
    "linen GRU": (linen, flax_gru()),
    "linen simple": (linen, simple_rnn()),
    "nnx LSTM": (lambda r, **o: nnx_rnn(r, optimized=False, **o), lstm()),
    "nnx optimized LSTM": (nnx_rnn, lstm()),
    "nnx GRU": (nnx_rnn, flax_gru(state_bias=False)),
    "nnx simple": (nnx_rnn, simple_rnn()),
    "equinox LSTM in a scan": (equinox, lstm()),
    "equinox LSTM in a loop": (lambda r: equinox(r, loop="python"), lstm()),
    "equinox GRU in a scan": (equinox, flax_gru()),
    "equinox GRU in a loop": (lambda r: equinox(r, loop="python"), flax_gru()),
}
FLAX = {name: case for name, case in FORWARD.items() if "equinox" not in name}


def rule(penalty: ar.Penalty, placement: str, **options: Any) -> ar.Rule:
    return ar.Rule(penalty, layer="rnn", placement=placement, **options)


def every_rule(reference: layers.Recurrent) -> ar.Spec:
    """Return a rule for every placement; that of the hidden state looks along time too."""
    rules = [rule(ar.PseudoHuber(0.2, delta=0.5), name) for name in (*reference.state_names, *reference.step_names)]
    rules += [rule(ar.TemporalDifference(0.3), "hidden_state", mean_over=("batch", "time"))]
    rules += [rule(ar.L2(0.4), "input", mean_over="sum"), rule(ar.L2(0.5), "output", mean_over="mean")]
    return ar.Spec([*rules, *(rule(ar.L2(0.7), name) for name in ("kernel", "recurrent_kernel", "bias"))])


def expected(reference: layers.Recurrent, spec: ar.Spec, x: Array, mask: Array | None = None) -> layers.Penalties:
    return layers.Network({"rnn": reference}).penalties(spec, x, mask=mask)


def of_reference(reference: layers.Recurrent, gradients: Mapping[str, Array], size: int) -> dict[str, Array]:
    """Return the gradients of the weights; of a GRU's two biases those that the framework has."""
    found = {name: gradients[f"rnn/{name}"] for name in ("kernel", "recurrent_kernel", "bias")}
    if found["bias"].ndim == 2:
        found["bias"] = np.concatenate([found["bias"][0], found["bias"][1, 2 * UNITS :]])[:size]
    return found


def close(got: Any, wanted: Any, what: str) -> None:
    scale = float(np.max(np.abs(wanted), initial=0.0)) + 1.0
    np.testing.assert_allclose(np.asarray(got), wanted, rtol=0, atol=ROUNDINGS * scale, err_msg=what)


def check(rnn: Rnn, reference: layers.Recurrent, x: Array, lengths: Array | None = None) -> None:
    spec = every_rule(reference)
    kwargs: dict[str, Any] = {} if lengths is None else {"seq_lengths": jnp.asarray(lengths)}
    forward = arspec_jax.attach(rnn.attached, spec)
    mask = None if lengths is None else layers.mask_of_lengths(lengths, x.shape[1])
    wanted = expected(reference, spec, x, mask)

    def total(argument: Any, x: Any) -> Any:
        _, penalties = forward(argument, x, **kwargs)
        return penalties.total(), penalties

    grads, penalties = rnn.grad(total, has_aux=True)(rnn.argument, jnp.asarray(x))
    assert list(penalties) == list(wanted.values)
    for key, number in wanted.values.items():
        close(penalties[key], number, key)
    got = rnn.read(grads)
    for name, gradient in of_reference(reference, wanted.gradients, got["bias"].size).items():
        close(got[name], gradient, f"gradient of {name}")


@pytest.mark.parametrize("name", FORWARD)
def test_every_placement(name: str) -> None:
    make, reference = FORWARD[name]
    check(make(reference), reference, SEQUENCES["batch of 3"])


@pytest.mark.parametrize("name", ["linen GRU", "nnx LSTM", "equinox LSTM in a loop"])
def test_another_batch_size(name: str) -> None:
    make, reference = FORWARD[name]
    check(make(reference), reference, SEQUENCES["batch of 2"])


@pytest.mark.parametrize("name", FLAX)
def test_b3_padded_steps_do_not_count(name: str) -> None:
    make, reference = FLAX[name]
    check(make(reference), reference, SEQUENCES["batch of 3"], LENGTHS)


REVERSED: dict[str, Case] = {
    "linen LSTM": (linen, lstm(reverse=True)),
    "linen GRU": (linen, flax_gru(reverse=True)),
    "nnx optimized LSTM": (nnx_rnn, lstm(reverse=True)),
    "nnx simple": (nnx_rnn, simple_rnn(reverse=True)),
}


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "padded"])
@pytest.mark.parametrize("keep_order", [False, True])
@pytest.mark.parametrize("name", REVERSED)
def test_a_reverse_walk_stands_in_the_order_of_time(name: str, keep_order: bool, lengths: Array | None) -> None:
    make, reference = REVERSED[name]
    check(make(reference, reverse=True, keep_order=keep_order), reference, SEQUENCES["batch of 3"], lengths)


def test_an_equinox_scan_in_reverse() -> None:
    check(equinox(lstm(), reverse=True), lstm(reverse=True), SEQUENCES["batch of 3"])


@pytest.mark.parametrize("make", [linen, nnx_rnn])
def test_time_may_come_first(make: Callable[..., Rnn]) -> None:
    rnn, spec, x = make(lstm(), time_major=True), every_rule(lstm()), SEQUENCES["batch of 3"]
    wanted = expected(lstm(), spec, x, layers.mask_of_lengths(LENGTHS, TIME))
    _, penalties = arspec_jax.attach(rnn.attached, spec)(
        rnn.argument, jnp.moveaxis(jnp.asarray(x), 1, 0), seq_lengths=jnp.asarray(LENGTHS)
    )
    for key, number in wanted.values.items():
        close(penalties[key], number, key)


# Both directions.


def both_directions() -> layers.Bidirectional:
    return layers.Bidirectional(lstm(), lstm(reverse=True, seed=1))


class LinenBidirectional(nn.Module):
    @nn.compact
    def __call__(self, x: Any, **kwargs: Any) -> Any:
        first, second = (nn.RNN(nn.LSTMCell(UNITS, param_dtype=jnp.float64)) for _ in range(2))
        return nn.Bidirectional(first, second, name="rnn")(x, **kwargs)


def linen_directions() -> tuple[Any, Any]:
    cells = [linen_cell(layer)[1] for layer in both_directions().parts().values() if isinstance(layer, layers.LSTM)]
    return LinenBidirectional(), {"params": {f"LSTMCell_{index}": cell for index, cell in enumerate(cells)}}


def nnx_directions() -> tuple[Any, Any]:
    parts = both_directions().parts().values()
    walks = [nnx.RNN(nnx_cell(layer), rngs=nnx.Rngs(0)) for layer in parts if isinstance(layer, layers.LSTM)]
    model = NnxModel(nnx.Bidirectional(walks[0], walks[1], rngs=nnx.Rngs(0)))
    return model, model


def of_directions(gradients: Any) -> dict[str, Array]:
    """Return the gradients of both directions as the reference orders them, by path."""
    if "params" in gradients:
        cells = [gradients["params"][f"LSTMCell_{index}"] for index in (0, 1)]
        found = [linen_cell(lstm())[2](cell) for cell in cells]
    else:
        cells = [gradients["rnn"][f"{direction}_rnn"]["cell"] for direction in ("forward", "backward")]
        found = [
            {
                "kernel": cell["dense_i"]["kernel"][...],
                "recurrent_kernel": cell["dense_h"]["kernel"][...],
                "bias": cell["dense_h"]["bias"][...],
            }
            for cell in cells
        ]
    return {f"{d}/{k}": g for d, part in zip(("forward", "backward"), found, strict=True) for k, g in part.items()}


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "padded"])
@pytest.mark.parametrize("make", [linen_directions, nnx_directions])
def test_the_directions_of_a_bidirectional_layer(make: Callable[[], tuple[Any, Any]], lengths: Array | None) -> None:
    rules = [
        ar.Rule(ar.TemporalDifference(0.3), layer="rnn/*", placement=placement, mean_over=("batch", "time"))
        for placement in ("cell_state", "input_gate", "output")
    ]
    rules += [ar.Rule(ar.L2(0.2), layer="rnn/backward", placement=p) for p in ("kernel", "bias", "input")]
    rules += [ar.Rule(ar.L2(0.1), layer="rnn", placement=placement) for placement in ("input", "output")]
    attached, argument = make()
    x = SEQUENCES["batch of 3"]
    kwargs: dict[str, Any] = {} if lengths is None else {"seq_lengths": jnp.asarray(lengths)}
    mask = None if lengths is None else layers.mask_of_lengths(lengths, TIME)
    wanted = layers.Network({"rnn": both_directions()}).penalties(ar.Spec(rules), x, mask=mask)
    forward = arspec_jax.attach(attached, ar.Spec(rules))

    def total(argument: Any, x: Any) -> Any:
        output, penalties = forward(argument, x, **kwargs)
        return penalties.total(), (output, penalties)

    grad = jax.grad if isinstance(attached, nn.Module) else nnx.grad
    gradients, (output, penalties) = grad(total, has_aux=True)(argument, jnp.asarray(x))
    assert output.shape == (BATCH, TIME, 2 * UNITS)
    assert sorted(penalties) == sorted(wanted.values)
    for key, number in wanted.values.items():
        close(penalties[key], number, key)
    for path, gradient in of_directions(gradients).items():
        close(gradient, wanted.gradients[f"rnn/{path}"], f"gradient of {path}")
