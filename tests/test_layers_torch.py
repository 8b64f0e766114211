"""The reference layers against torch in float64: every tensor, and every gradient by autograd."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from arspec import layers
from reference_layers import (
    BATCH,
    FEATURES,
    IMAGE,
    MASKS,
    SEQUENCE,
    TIME,
    UNITS,
    VOLUME,
    Array,
    attention,
    batch_normalization,
    bidirectional,
    convolution,
    depthwise,
    gru,
    lstm,
    random,
    separable,
    simple_rnn,
)

TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}
F = nn.functional
LENGTHS = [7, 4, 1]


def tensor(array: Array) -> Tensor:
    return torch.tensor(np.asarray(array), requires_grad=np.asarray(array).dtype.kind == "f")


def leaves(layer: Any, x: Array) -> dict[str, Tensor]:
    """Return the parameters of a layer, those of its parts too, and the input as torch tensors."""
    inner = {f"{part}/{name}": p for part, held in layer.parts().items() for name, p in held.parameters().items()}
    return {name: tensor(array) for name, array in {**layer.parameters(), **inner, "input": x}.items()}


def check(layer: Any, x: Array, named: Mapping[str, Tensor], given: Mapping[str, Tensor], **options: Any) -> None:
    """Compare the tensors `named` that torch computed from `given`, and the gradients of all of them."""
    record = layer.forward(x, **options)
    directions = {name: random(*t.shape, seed=len(name)) for name, t in named.items()}
    for name, expected in named.items():
        np.testing.assert_allclose(record[name], expected.detach().numpy(), **TOLERANCE, err_msg=name)
    loss = sum((named[name] * torch.tensor(direction)).sum() for name, direction in directions.items())
    wanted = {name: t for name, t in given.items() if t.requires_grad}
    gradients = torch.autograd.grad(loss, list(wanted.values()))
    found = layer.backward(record, directions)
    for name, expected in zip(wanted, gradients, strict=True):
        np.testing.assert_allclose(found[name], expected.numpy(), **TOLERANCE, err_msg=name)


ACTIVATIONS = {
    "linear": lambda z: z * 1,
    "relu": F.relu,
    "elu": F.elu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    "softmax": lambda z: F.softmax(z, -1),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("x", [random(BATCH, FEATURES), IMAGE], ids=["rank 2", "rank 4"])
def test_dense(activation: str, x: Array) -> None:
    layer = layers.Dense(random(FEATURES, UNITS), random(UNITS), activation)
    given = leaves(layer, x)
    z = F.linear(given["input"], given["kernel"].T, given["bias"])
    check(layer, x, {"input": given["input"], "pre_activation": z, "output": ACTIVATIONS[activation](z)}, given)


@pytest.mark.parametrize("activation", sorted({*ACTIVATIONS} - {"softmax"}))
def test_activations_far_from_and_at_zero(activation: str) -> None:
    x = np.array([[-800.0, -40.0, -1.0, 0.0, 1.0, 40.0, 800.0]])
    layer = layers.Activation(activation)
    given = leaves(layer, x)
    check(layer, x, {"output": ACTIVATIONS[activation](given["input"])}, given)


CONVOLUTIONS = {
    1: (F.conv1d, SEQUENCE, (0, 2, 1), (2, 1, 0)),
    2: (F.conv2d, IMAGE, (0, 3, 1, 2), (3, 2, 0, 1)),
    3: (F.conv3d, VOLUME, (0, 4, 1, 2, 3), (4, 3, 0, 1, 2)),
}


def channels_last(t: Tensor) -> Tensor:
    return t.movedim(1, -1)


def padded(t: Tensor, pairs: Any) -> Tensor:
    return F.pad(t, [n for pair in reversed(pairs) for n in pair])


@pytest.mark.parametrize(
    ("size", "pairs", "options"),
    [
        ((3,), ((0, 0),), {"strides": 2}),
        ((3,), ((4, 0),), {"dilation": 2, "padding": "causal"}),
        ((2, 3), ((0, 0), (0, 0)), {"groups": 5, "outputs": 10, "dilation": (2, 1)}),
        ((3, 3), ((1, 0), (2, 1)), {"strides": (2, 1), "padding": ((1, 0), (2, 1))}),
        ((2, 1, 3), ((0, 0), (0, 0), (1, 1)), {"strides": (2, 1, 1), "padding": ((0, 0), (0, 0), (1, 1))}),
        ((2, 2, 2), ((0, 1), (0, 1), (0, 1)), {"padding": "same"}),
    ],
    ids=str,
)
def test_convolution(size: tuple[int, ...], pairs: Any, options: dict[str, Any]) -> None:
    layer = convolution(*size, activation="tanh", **options)
    function, x, to_first, to_weight = CONVOLUTIONS[len(size)]
    given = leaves(layer, x)
    arguments = {"stride": layer.strides, "dilation": layer.dilation, "groups": layer.groups}
    moved = padded(given["input"].permute(to_first), pairs)
    z = channels_last(function(moved, given["kernel"].permute(to_weight), given["bias"], **arguments))
    check(layer, x, {"pre_activation": z, "output": torch.tanh(z)}, given)


def test_depthwise_and_separable() -> None:
    """torch's weight of a depthwise convolution has the channel outermost."""
    layer = depthwise(2, 3, activation="tanh", strides=2)
    given = leaves(layer, IMAGE)
    image = given["input"].permute(0, 3, 1, 2)
    weight = given["kernel"].permute(2, 3, 0, 1).reshape(-1, 1, 2, 3)
    z = channels_last(F.conv2d(image, weight, given["bias"], stride=2, groups=FEATURES))
    check(layer, IMAGE, {"pre_activation": z, "output": torch.tanh(z)}, given)

    layer = separable(3, 2, activation="tanh", dilation=(1, 2))
    given = leaves(layer, IMAGE)
    weight = given["depthwise_kernel"].permute(2, 3, 0, 1).reshape(-1, 1, 3, 2)
    apart = F.conv2d(given["input"].permute(0, 3, 1, 2), weight, dilation=(1, 2), groups=FEATURES)
    z = channels_last(F.conv2d(apart, given["pointwise_kernel"].permute(3, 2, 0, 1), given["bias"]))
    check(layer, IMAGE, {"pre_activation": z, "output": torch.tanh(z)}, given)


def thirds(t: Tensor) -> Tensor:
    """Permute z, r, n of Keras to r, z, n of torch, along the last axis."""
    z, r, n = t.split(UNITS, -1)
    return torch.cat([r, z, n], -1)


def fused(layer: layers.Recurrent, given: Mapping[str, Tensor], prefix: str = "") -> list[Tensor]:
    """Return weight_ih, weight_hh, bias_ih and bias_hh of torch for a recurrent layer."""
    kernel, recurrent, bias = (given[prefix + name] for name in ("kernel", "recurrent_kernel", "bias"))
    if isinstance(layer, layers.GRU):
        return [thirds(kernel).T, thirds(recurrent).T, thirds(bias[0]), thirds(bias[1])]
    return [kernel.T, recurrent.T, bias, torch.zeros_like(bias)]


FUSED = {layers.SimpleRNN: nn.RNN, layers.LSTM: nn.LSTM, layers.GRU: nn.GRU}


def run(layer: Any, given: Mapping[str, Tensor], lengths: list[int] | None = None) -> tuple[Tensor, Any]:
    """Run torch's fused layer, on a packed sequence if there are lengths."""
    both = isinstance(layer, layers.Bidirectional)
    first = layer.forward_layer if both else layer
    module = FUSED[type(first)](FEATURES, UNITS, batch_first=True, bidirectional=both).double()
    weights = fused(first, given, "forward/" if both else "")
    weights += fused(layer.backward_layer, given, "backward/") if both else []
    names = [name for name, _ in module.named_parameters()]
    x = given["input"]
    if lengths is not None:
        x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    output, state = torch.func.functional_call(module, dict(zip(names, weights, strict=True)), (x,))
    if lengths is not None:
        output, _ = nn.utils.rnn.pad_packed_sequence(output, batch_first=True, total_length=TIME)
    return output, state


@pytest.mark.parametrize("make", [simple_rnn, lstm, gru])
def test_recurrent(make: Any) -> None:
    layer = make()
    given = leaves(layer, SEQUENCE)
    output, _ = run(layer, given)
    check(layer, SEQUENCE, {"output": output, "hidden_state": output * 1}, given)


@pytest.mark.parametrize("make", [simple_rnn, lstm, gru])
def test_a_packed_sequence_is_a_mask(make: Any) -> None:
    mask = layers.mask_of_lengths(LENGTHS, TIME)
    layer = make(zero_output_for_mask=True)
    given = leaves(layer, SEQUENCE)
    output, state = run(layer, given, LENGTHS)
    check(layer, SEQUENCE, {"output": output}, given, mask=mask)

    last = make(return_sequences=False)
    given = leaves(last, SEQUENCE)
    _, state = run(last, given, LENGTHS)
    check(last, SEQUENCE, {"output": state[0][0] if make is lstm else state[0]}, given, mask=mask)


@pytest.mark.parametrize("make", [simple_rnn, lstm, gru])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_bidirectional(make: Any, lengths: list[int] | None) -> None:
    mask = None if lengths is None else layers.mask_of_lengths(lengths, TIME)
    layer = bidirectional(make, zero_output_for_mask=True)
    given = leaves(layer, SEQUENCE)
    output, _ = run(layer, given, lengths)
    check(layer, SEQUENCE, {"output": output}, given, mask=mask)

    last = bidirectional(make, return_sequences=False)
    given = leaves(last, SEQUENCE)
    _, state = run(last, given, lengths)
    states = state[0] if make is lstm else state
    check(last, SEQUENCE, {"output": torch.cat([states[0], states[1]], -1)}, given, mask=mask)


@pytest.mark.parametrize("mask", [None, "behind", "holes"])
@pytest.mark.parametrize("reverse", [False, True])
def test_states_and_gates_of_an_lstm(mask: str | None, reverse: bool) -> None:
    """Step by step with nn.LSTMCell's equations, leaving out what is padded."""
    layer = lstm(reverse=reverse)
    given = leaves(layer, SEQUENCE)
    happens = np.ones((BATCH, TIME), bool) if mask is None else MASKS[mask]
    names = ("input_gate", "forget_gate", "cell_gate", "output_gate", "hidden_state", "cell_state")
    columns: dict[str, dict[tuple[int, int], Tensor]] = {name: {} for name in names}
    for b in range(BATCH):
        h, c = torch.zeros(UNITS).double(), torch.zeros(UNITS).double()
        for t in reversed(range(TIME)) if reverse else range(TIME):
            found = dict.fromkeys(names, torch.zeros(UNITS).double())
            if happens[b, t]:
                z = given["input"][b, t] @ given["kernel"] + h @ given["recurrent_kernel"] + given["bias"]
                i, f, o = (torch.sigmoid(part) for part in (z[:UNITS], z[UNITS : 2 * UNITS], z[3 * UNITS :]))
                g = torch.tanh(z[2 * UNITS : 3 * UNITS])
                c = f * c + i * g
                h = o * torch.tanh(c)
                found = dict(zip(names, (i, f, g, o, h, c), strict=True))
            for name, value in {**found, "hidden_state": h, "cell_state": c}.items():
                columns[name][b, t] = value
    named = {
        name: torch.stack([torch.stack([column[b, t] for t in range(TIME)]) for b in range(BATCH)])
        for name, column in columns.items()
    }
    check(layer, SEQUENCE, named, given, mask=None if mask is None else MASKS[mask])


@pytest.mark.parametrize("mask", [None, "behind", "holes"])
@pytest.mark.parametrize("reset_after", [True, False])
def test_states_and_gates_of_a_gru(mask: str | None, reset_after: bool) -> None:
    """Step by step, written per entry, leaving out what is padded."""
    layer = gru(reset_after=reset_after)
    given = leaves(layer, SEQUENCE)
    kernel, recurrent = (given[name].split(UNITS, -1) for name in ("kernel", "recurrent_kernel"))
    bias = given["bias"].split(UNITS, -1)
    happens = np.ones((BATCH, TIME), bool) if mask is None else MASKS[mask]
    rows: dict[str, list[Tensor]] = {"update_gate": [], "reset_gate": [], "cell_gate": [], "hidden_state": []}
    for b in range(BATCH):
        h, found = torch.zeros(UNITS).double(), {name: [] for name in rows}
        for t in range(TIME):
            x = given["input"][b, t]
            tensors = [torch.zeros(UNITS).double()] * 3
            if happens[b, t]:
                if reset_after:
                    at_z, at_r, at_n = (x @ k + part[0] for k, part in zip(kernel, bias, strict=True))
                    of_z, of_r, of_n = (h @ k + part[1] for k, part in zip(recurrent, bias, strict=True))
                    z, r = torch.sigmoid(at_z + of_z), torch.sigmoid(at_r + of_r)
                    n = torch.tanh(at_n + r * of_n)
                else:
                    at_z, at_r, at_n = (x @ k + part for k, part in zip(kernel, bias, strict=True))
                    z, r = torch.sigmoid(at_z + h @ recurrent[0]), torch.sigmoid(at_r + h @ recurrent[1])
                    n = torch.tanh(at_n + (r * h) @ recurrent[2])
                h, tensors = z * h + (1 - z) * n, [z, r, n]
            for name, value in zip(rows, (*tensors, h), strict=True):
                found[name].append(value)
        for name, column in found.items():
            rows[name].append(torch.stack(column))
    named = {name: torch.stack(row) for name, row in rows.items()}
    check(layer, SEQUENCE, named, given, mask=None if mask is None else MASKS[mask])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, "behind", "holes"])
def test_attention(causal: bool, mask: str | None) -> None:
    """torch's module has one size for everything, and its boolean masks are true where nobody looks."""
    heads, size = 5, 1
    layer = attention(heads=heads, size=size, value_size=size, output=FEATURES, causal=causal)
    given = leaves(layer, SEQUENCE)
    pieces = [given[f"{name}_kernel"].reshape(FEATURES, -1).T for name in ("query", "key", "value")]
    parameters = {
        "in_proj_weight": torch.cat(pieces),
        "in_proj_bias": torch.cat([given[f"{name}_bias"].reshape(-1) for name in ("query", "key", "value")]),
        "out_proj.weight": given["output_kernel"].reshape(-1, FEATURES).T,
        "out_proj.bias": given["output_bias"],
    }
    module = nn.MultiheadAttention(FEATURES, heads, batch_first=True).double()
    ignored = torch.zeros(BATCH, TIME, TIME, dtype=torch.bool)
    if causal:
        ignored |= torch.ones(TIME, TIME, dtype=torch.bool).triu(1)
    valid = np.ones((BATCH, TIME), bool)
    if mask is not None:
        valid = MASKS[mask] | (np.arange(TIME) == 0)  # every query has a key
        ignored |= ~torch.tensor(valid)[:, None, :]
    x = given["input"]
    options = {"attn_mask": ignored.repeat_interleave(heads, 0), "average_attn_weights": False}
    output, weights = torch.func.functional_call(module, parameters, (x, x, x), options)
    named = {"output": output, "attention_weights": weights}
    check(layer, SEQUENCE, named, given, mask=None if mask is None else valid)


def test_normalization() -> None:
    for training in (False, True):
        layer = batch_normalization(epsilon=1e-5)
        given = leaves(layer, IMAGE)
        moving = torch.tensor(layer.moving_mean), torch.tensor(layer.moving_variance)
        x = given["input"].permute(0, 3, 1, 2)
        output = F.batch_norm(x, *moving, given["scale"], given["shift"], training, eps=1e-5)
        check(layer, IMAGE, {"output": channels_last(output)}, given, training=training)

    layer = layers.LayerNormalization(random(FEATURES), random(FEATURES, seed=1), epsilon=1e-3)
    given = leaves(layer, SEQUENCE)
    output = F.layer_norm(given["input"], (FEATURES,), given["scale"], given["shift"], 1e-3)
    check(layer, SEQUENCE, {"output": output}, given)


def test_batch_normalization_of_the_valid_positions() -> None:
    """With a mask, training sees what torch sees of the valid positions alone."""
    layer, mask = batch_normalization(epsilon=1e-5), MASKS["holes"]
    x = SEQUENCE[mask]
    given = leaves(layer, x)
    moving = torch.tensor(layer.moving_mean), torch.tensor(layer.moving_variance)
    expected = F.batch_norm(given["input"], *moving, given["scale"], given["shift"], True, eps=1e-5)
    record = layer.forward(SEQUENCE, mask=mask, training=True)
    np.testing.assert_allclose(record["output"][mask], expected.detach().numpy(), **TOLERANCE)
    direction = random(*x.shape, seed=3)
    gradients = torch.autograd.grad((expected * torch.tensor(direction)).sum(), list(given.values()))
    spread = np.zeros(SEQUENCE.shape)
    spread[mask] = direction
    found = layer.backward(record, {"output": spread})
    for name, gradient in zip(given, gradients, strict=True):
        mine = found[name][mask] if name == "input" else found[name]
        np.testing.assert_allclose(mine, gradient.numpy(), **TOLERANCE, err_msg=name)


def test_embedding() -> None:
    tokens = np.array([[3, 1, 0, 1], [2, 0, 0, 1]])
    layer = layers.Embedding(random(4, FEATURES))
    given = leaves(layer, tokens)
    check(layer, tokens, {"output": F.embedding(given["input"], given["embeddings"])}, given)
