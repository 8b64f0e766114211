"""The gradients of the reference layers are those of their forward passes."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import arspec as ar
from arspec import layers
from arspec.layers import ReferenceLayer
from reference_layers import (
    BATCH,
    CASES,
    FEATURES,
    MASKS,
    SEQUENCE,
    UNITS,
    Array,
    attention,
    batch_normalization,
    cotangents,
    gru,
    lstm,
    numerical_gradient,
    paired,
    random,
)

# Sixth order, step 1e-3: the truncation is near 1e-18, the rounding near 1e-15 / 1e-3.
TOLERANCE = {"rtol": 1e-10, "atol": 3e-11}


OPTIONAL = ("initial_", "key_input", "value_input")  # gradients of what `forward` may be given besides


def changed(layer: ReferenceLayer, name: str, parameter: Array) -> Any:
    """Return the layer with another parameter, that of a part if the name has two parts."""
    part, _, inner = name.rpartition("/")
    if part:
        held = getattr(layer, f"{part}_layer")
        return dataclasses.replace(layer, **{f"{part}_layer": changed(held, inner, parameter)})
    return dataclasses.replace(layer, **{name: parameter})


def parameters(layer: ReferenceLayer) -> dict[str, Array]:
    inner = {f"{part}/{name}": p for part, held in layer.parts().items() for name, p in held.parameters().items()}
    return {**layer.parameters(), **inner}


def check(layer: ReferenceLayer, x: Array, **options: Any) -> None:
    """Compare `backward`, for a function of every named tensor, with differences."""
    record = layer.forward(x, **options)
    directions = cotangents(record)
    found = layer.backward(record, directions)
    expected = {
        name: numerical_gradient(
            lambda p, name=name: paired(changed(layer, name, p).forward(x, **options), directions), parameter
        )
        for name, parameter in parameters(layer).items()
    }
    if np.asarray(x).dtype.kind == "f":
        expected["input"] = numerical_gradient(lambda v: paired(layer.forward(v, **options), directions), x)
    assert set(expected) == {name for name in found if not name.rpartition("/")[2].startswith(OPTIONAL)}
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, **TOLERANCE, err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_every_layer(name: str) -> None:
    check(*CASES[name])


RECURRENT = ("simple rnn", "lstm last", "gru reset before", "bidirectional mul")


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_with_a_mask(name: str, mask: str) -> None:
    layer, x = CASES[name]
    check(layer, x, mask=MASKS[mask])


@pytest.mark.parametrize("mask", MASKS)
def test_attention_with_a_mask(mask: str) -> None:
    check(attention(value_size=1, output=2), SEQUENCE, mask=MASKS[mask])


def test_attention_to_another_sequence() -> None:
    other, key = random(BATCH, 4, FEATURES), random(BATCH, 4, FEATURES, seed=1)
    layer, attends = attention(value_size=1), np.tri(7, 4, dtype=bool)
    options = {
        "value": other,
        "key": key,
        "value_mask": layers.mask_of_lengths([4, 2, 1], 4),
        "attention_mask": attends,
    }
    check(layer, SEQUENCE, **options)
    record = layer.forward(SEQUENCE, **options)
    directions = cotangents(record)
    found = layer.backward(record, directions)
    for name, x in (("value", other), ("key", key)):
        expected = numerical_gradient(
            lambda v, name=name: paired(layer.forward(SEQUENCE, **{**options, name: v}), directions), x
        )
        np.testing.assert_allclose(found[f"{name}_input"], expected, **TOLERANCE)


@pytest.mark.parametrize("mask", [None, *MASKS])
def test_batch_normalization_in_training(mask: str | None) -> None:
    check(batch_normalization(), SEQUENCE, training=True, mask=None if mask is None else MASKS[mask])


@pytest.mark.parametrize("layer", [lstm(), lstm(reverse=True), gru(), gru(reset_after=False)], ids=str)
def test_initial_states(layer: layers.Recurrent) -> None:
    states = [random(BATCH, UNITS, seed=seed) for seed, _ in enumerate(layer.state_names)]
    mask = MASKS["holes"]
    record = layer.forward(SEQUENCE, mask=mask, initial_state=states)
    directions = cotangents(record)
    found = layer.backward(record, directions)
    for index, name in enumerate(layer.state_names):

        def loss(state: Array, index: int = index) -> float:
            given = [state if i == index else s for i, s in enumerate(states)]
            return paired(layer.forward(SEQUENCE, mask=mask, initial_state=given), directions)

        np.testing.assert_allclose(found[f"initial_{name}"], numerical_gradient(loss, states[index]), **TOLERANCE)


def test_what_is_not_given_counts_as_zero() -> None:
    layer, x = CASES["lstm"]
    record = layer.forward(x)
    gradients = layer.backward(record, {"cell_state": np.ones(record["cell_state"].shape)})
    zeros = {name: np.zeros(np.shape(tensor)) for name, tensor in record.items()}
    same = layer.backward(record, {**zeros, "cell_state": np.ones(record["cell_state"].shape)})
    assert all(np.array_equal(gradients[name], same[name]) for name in same)
    assert np.any(gradients["recurrent_kernel"])


def test_the_check_can_fail() -> None:
    class Wrong(layers.Dense):
        def _backward(self, record: Any, upstream: Any) -> Any:
            found = layers.Dense._backward(self, record, upstream)
            return {**found, "bias": found["bias"] * (1 + 1e-8)}

    with pytest.raises(AssertionError, match="bias"):
        check(Wrong(random(FEATURES, UNITS), random(UNITS)), SEQUENCE)


def test_a_gradient_that_does_not_fit() -> None:
    layer, x = CASES["lstm"]
    record = layer.forward(x)
    with pytest.raises(ar.SpecError, match=r"unknown tensor 'cell_stat'; allowed: .* Did you mean 'cell_state'\?"):
        layer.backward(record, {"cell_stat": np.ones(1)})
    with pytest.raises(ar.SpecError, match=r"the gradient of 'output' has shape \(1,\); the tensor has \(3, 7, 2\)\."):
        layer.backward(record, {"output": np.ones(1)})
