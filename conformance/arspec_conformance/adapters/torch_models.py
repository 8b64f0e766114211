"""Reference networks as torch modules."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import arspec_torch
from arspec import Spec
from arspec.layers import BatchNormalization, Convolution, Dense, Embedding, Network, SimpleRNN
from arspec_conformance._models import Measured

ACTIVATIONS = {"linear": nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


ROLES = {
    nn.RNN: {"weight_ih_l0": "kernel", "weight_hh_l0": "recurrent_kernel", "bias_ih_l0": "bias"},
    nn.Embedding: {"weight": "embeddings"},
    nn.BatchNorm1d: {"weight": "scale", "bias": "shift"},
}
OF_OTHERS = {"weight": "kernel", "bias": "bias"}


class _Chain(nn.Module):
    """Layers by name, each followed by its activation function."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._names = list(network.layers)
        known: dict[int, nn.Parameter] = {}
        for name, layer in network.layers.items():
            self.add_module(name, _module(layer, known))
            activation = layer.activation if isinstance(layer, Dense | Convolution) else "linear"
            self.add_module(f"{name}_activation", ACTIVATIONS[activation]())

    def forward(self, x: Tensor) -> Tensor:
        for name in self._names:
            x = getattr(self, name)(x)
            x = getattr(self, f"{name}_activation")(x[0] if isinstance(x, tuple) else x)
        return x


class TorchModel:
    """A chain of torch layers with a Spec on it."""

    def __init__(self, network: Network, spec: Spec, device: str) -> None:
        self._chain, self._device = _Chain(network).to(device), device
        self._features_second = any(isinstance(layer, Convolution) for layer in network.layers.values())
        self._attached = arspec_torch.attach(self._chain, spec)

    def measure(self, x: np.ndarray) -> Measured:
        self._chain.zero_grad()
        given = np.moveaxis(x, -1, 1) if self._features_second else x
        given = np.array(given, np.float32 if x.dtype.kind == "f" else np.int64)
        self._chain(torch.from_numpy(given).to(self._device))
        total = self._attached.total()
        if total.requires_grad:
            total.backward()
        values = {key: loss.item() for key, loss in self._attached.losses().items()}
        gradients = {name: _from_torch(name, _gradient(p)) for name, p in self._parameters()}
        return Measured(values, total.item(), gradients)

    def assign(self, parameters: Mapping[str, np.ndarray]) -> None:
        known = dict(self._parameters())
        with torch.no_grad():
            for name, array in parameters.items():
                known[name].copy_(_tensor(_to_torch(name, array)))

    def freeze(self, layer: str) -> None:
        self._chain.get_submodule(layer).requires_grad_(False)

    def _parameters(self) -> list[tuple[str, nn.Parameter]]:
        found = []
        for name, parameter in self._chain.named_parameters():
            path, _, leaf = name.rpartition(".")
            roles = _roles(self._chain.get_submodule(path))
            if leaf in roles:  # the second bias of a recurrent layer has the gradient of the first
                found.append((f"{path}/{roles[leaf]}", parameter))
        return found


def _module(layer: Any, known: dict[int, nn.Parameter]) -> nn.Module:
    made = _made(layer)
    for leaf, role in _roles(made).items():
        array = layer.parameters().get(role)
        if array is not None:
            # A kernel that two layers of the reference share is one parameter here too.
            parameter = known.setdefault(id(array), nn.Parameter(_tensor(_to_torch(role, array))))
            setattr(made, leaf, parameter)
    return made


def _roles(module: nn.Module) -> dict[str, str]:
    return next((roles for kind, roles in ROLES.items() if isinstance(module, kind)), OF_OTHERS)


def _made(layer: Any) -> nn.Module:
    if isinstance(layer, Dense):
        return nn.Linear(*layer.kernel.shape, bias=layer.bias is not None)
    if isinstance(layer, Convolution):
        *sizes, inputs, outputs = layer.kernel.shape
        kind = nn.Conv1d if len(sizes) == 1 else nn.Conv2d
        return kind(inputs, outputs, tuple(sizes), bias=layer.bias is not None)
    if isinstance(layer, SimpleRNN):
        made = nn.RNN(len(layer.kernel), layer.units, nonlinearity=layer.activation, batch_first=True)
        made.bias_hh_l0 = nn.Parameter(torch.zeros(layer.units))
        return made
    if isinstance(layer, Embedding):
        return nn.Embedding(*layer.embeddings.shape)
    if isinstance(layer, BatchNormalization):
        return nn.BatchNorm1d(len(layer.moving_mean), eps=layer.epsilon)
    raise NotImplementedError(f"no torch module for {type(layer).__name__}")


def _to_torch(name: str, array: np.ndarray) -> np.ndarray:
    """Return a kernel (*spatial, input, output) as (output, input, *spatial), and others as they are."""
    if not name.endswith("kernel"):
        return array
    return np.transpose(array, (array.ndim - 1, array.ndim - 2, *range(array.ndim - 2)))


def _from_torch(name: str, array: np.ndarray) -> np.ndarray:
    """Undo `_to_torch`."""
    return np.transpose(array, (*range(2, array.ndim), 1, 0)) if name.endswith("kernel") else array


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))


def _gradient(parameter: nn.Parameter) -> np.ndarray:
    return np.zeros(parameter.shape) if parameter.grad is None else parameter.grad.cpu().numpy()
