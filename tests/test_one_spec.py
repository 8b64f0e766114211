"""One spec file, the same model in torch and in JAX: the values and gradients of the NumPy network."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn

import arspec_jax
import arspec_torch
from arspec import layers
from one_spec import MODELS, Model, close, load
from reference_layers import FEATURES, UNITS


class TorchLstm(nn.Module):
    def __init__(self, reference: layers.LSTM) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, UNITS, batch_first=True).double()
        assert reference.bias is not None
        weights = (reference.kernel.T, reference.recurrent_kernel.T, reference.bias, np.zeros_like(reference.bias))
        for parameter, weight in zip(self.lstm.parameters(), weights, strict=True):
            parameter.data = torch.tensor(weight)

    def forward(self, x: Any) -> Any:
        return self.lstm(x)[0]


class TorchConvolutions(nn.Module):
    def __init__(self, first: layers.Convolution, second: layers.Convolution) -> None:
        super().__init__()
        self.conv0, self.conv1 = (self._of(layer) for layer in (first, second))
        self.relu = nn.ReLU()

    @staticmethod
    def _of(layer: layers.Convolution) -> nn.Conv2d:
        *size, inputs, outputs = layer.kernel.shape
        module: Any = nn.Conv2d(inputs, outputs, (size[0], size[1])).double()
        module.weight.data = torch.tensor(layer.kernel.transpose(3, 2, 0, 1))
        module.bias.data = torch.tensor(layer.bias)
        return module

    def forward(self, x: Any) -> Any:
        return self.conv1(self.relu(self.conv0(x)))


def in_torch(name: str, model: Model) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the values by rule, and the gradients of the total by parameter of the network."""
    parts: list[Any] = list(model.network.layers.values())
    recurrent = isinstance(parts[0], layers.LSTM)
    module: Any = TorchLstm(parts[0]) if recurrent else TorchConvolutions(*parts)
    x = torch.tensor(model.x if recurrent else model.x.transpose(0, 3, 1, 2))
    penalties = arspec_torch.attach(module, load(name))
    masks = {} if model.mask is None else {"lstm": torch.tensor(model.mask)}
    with penalties.masks(masks):
        module(x)
        values = {key: loss.item() for key, loss in penalties.losses().items()}
        penalties.total().backward()
    found: dict[str, Any] = {name: parameter.grad for name, parameter in module.named_parameters()}
    if recurrent:
        names = {"kernel": "lstm.weight_ih_l0", "recurrent_kernel": "lstm.weight_hh_l0", "bias": "lstm.bias_ih_l0"}
        return values, {f"lstm/{role}": found[theirs].numpy().T for role, theirs in names.items()}
    kernels = {f"{at}/kernel": found[f"{at}.weight"].numpy().transpose(2, 3, 1, 0) for at in ("conv0", "conv1")}
    return values, kernels | {f"{at}/bias": found[f"{at}.bias"].numpy() for at in ("conv0", "conv1")}


class NnxLstm(nnx.Module):
    def __init__(self, reference: layers.LSTM) -> None:
        cell: Any = nnx.OptimizedLSTMCell(FEATURES, UNITS, dtype=jnp.float64, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        cell.dense_i.kernel[...] = reference.kernel
        cell.dense_h.kernel[...] = reference.recurrent_kernel
        cell.dense_h.bias[...] = reference.bias
        self.lstm = nnx.RNN(cell, rngs=nnx.Rngs(0))

    def __call__(self, x: Any) -> Any:
        return self.lstm(x)


class NnxConvolutions(nnx.Module):
    def __init__(self, first: layers.Convolution, second: layers.Convolution) -> None:
        self.conv0, self.conv1 = (self._of(layer) for layer in (first, second))

    @staticmethod
    def _of(layer: layers.Convolution) -> nnx.Conv:
        *size, inputs, outputs = layer.kernel.shape
        dtypes: dict[str, Any] = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        module: Any = nnx.Conv(inputs, outputs, tuple(size), padding="VALID", rngs=nnx.Rngs(0), **dtypes)
        module.kernel[...] = layer.kernel
        module.bias[...] = layer.bias
        return module

    def __call__(self, x: Any) -> Any:
        return self.conv1(nnx.relu(self.conv0(x)))


def in_jax(name: str, model: Model) -> tuple[dict[str, float], dict[str, Any]]:
    with jax.enable_x64(True):
        parts: list[Any] = list(model.network.layers.values())
        recurrent = isinstance(parts[0], layers.LSTM)
        module = NnxLstm(parts[0]) if recurrent else NnxConvolutions(*parts)
        forward = arspec_jax.attach(module, load(name))
        masks = None if model.mask is None else {"lstm": jnp.asarray(model.mask)}

        def total(module: Any, x: Any) -> Any:
            _, penalties = forward(module, x, masks=masks)
            return penalties.total(), penalties

        gradients, penalties = nnx.grad(total, has_aux=True)(module, jnp.asarray(model.x))
        values = {key: float(penalties[key]) for key in penalties}
        if recurrent:
            cell = gradients["lstm"]["cell"]
            state = {"lstm/recurrent_kernel": cell["dense_h"]["kernel"], "lstm/bias": cell["dense_h"]["bias"]}
            found = {"lstm/kernel": cell["dense_i"]["kernel"], **state}
        else:
            found = {f"{at}/{role}": gradients[at][role] for at in ("conv0", "conv1") for role in ("kernel", "bias")}
        return values, {path: np.asarray(gradient[...]) for path, gradient in found.items()}


@pytest.mark.parametrize("run", [in_torch, in_jax])
@pytest.mark.parametrize("name", MODELS)
def test_one_file(name: str, run: Any) -> None:
    expected = MODELS[name].expected(name)
    values, gradients = run(name, MODELS[name])
    assert list(values) == list(expected.values)
    for key, value in expected.values.items():
        close(values[key], value, key)
    assert len(gradients) == sum(len(layer.parameters()) for layer in MODELS[name].network.layers.values())
    for path, gradient in gradients.items():
        assert np.any(expected.gradients[path] != 0), path
        close(gradient, expected.gradients[path], path)


def test_a_mask_matters() -> None:
    masked = MODELS["lstm_states"]
    assert masked.expected("lstm_states").total != masked._replace(mask=None).expected("lstm_states").total
