"""One spec file in Keras, on the backend at hand: the values and gradients of the NumPy network."""

from typing import Any

import numpy as np
import pytest

import keras
from keras_reference import around, assert_model_same, weights_of
from one_spec import MODELS, load
from reference_layers import UNITS


@pytest.mark.parametrize("name", ["ar_tar", "lstm_states"])
def test_an_lstm(name: str) -> None:
    network, x, mask = MODELS[name]
    options: dict[str, Any] = {} if mask is None else {"zero_output_for_mask": True}
    layer = keras.layers.LSTM(UNITS, return_sequences=True, name="lstm", **options)
    model = around(layer, x.shape[1:], mask is not None)
    layer.set_weights([np.asarray(w, np.float32) for w in weights_of(network.layers["lstm"])])
    assert_model_same(model, network, load(name).rules, x, mask)


def test_convolutions() -> None:
    network, x, _ = MODELS["channels"]
    outputs = [layer.parameters()["kernel"].shape[-1] for layer in network.layers.values()]
    first = keras.layers.Conv2D(outputs[0], 3, activation="relu", name="conv0")
    model = keras.Sequential([keras.Input(x.shape[1:]), first, keras.layers.Conv2D(outputs[1], 3, name="conv1")])
    for name, layer in network.layers.items():
        model.get_layer(name).set_weights([np.asarray(w, np.float32) for w in weights_of(layer)])
    assert_model_same(model, network, load("channels").rules, x)
