"""Reference networks as torch modules."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import arspec_torch
from arspec import Spec
from arspec.layers import Convolution, Dense, Network
from arspec_conformance._models import Measured

ACTIVATIONS = {"linear": nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class _Chain(nn.Module):
    """Layers by name, each followed by its activation function."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._names = list(network.layers)
        known: dict[int, nn.Parameter] = {}
        for name, layer in network.layers.items():
            self.add_module(name, _module(layer, known))
            self.add_module(f"{name}_activation", ACTIVATIONS[layer.activation]())  # pyright: ignore

    def forward(self, x: Tensor) -> Tensor:
        for name in self._names:
            x = getattr(self, f"{name}_activation")(getattr(self, name)(x))
        return x


class TorchModel:
    """A chain of torch layers with a Spec on it."""

    def __init__(self, network: Network, spec: Spec, device: str) -> None:
        self._chain, self._device = _Chain(network).to(device), device
        self._attached = arspec_torch.attach(self._chain, spec)

    def measure(self, x: np.ndarray) -> Measured:
        self._chain.zero_grad()
        self._chain(torch.from_numpy(_features_second(x)).to(self._device))
        total = self._attached.total()
        if total.requires_grad:
            total.backward()
        values = {key: loss.item() for key, loss in self._attached.losses().items()}
        return Measured(values, total.item(), {name: _gradient(p) for name, p in self._parameters()})

    def assign(self, parameters: Mapping[str, np.ndarray]) -> None:
        known = dict(self._parameters())
        with torch.no_grad():
            for name, array in parameters.items():
                known[name].copy_(_tensor(_to_torch(array)))

    def _parameters(self) -> list[tuple[str, nn.Parameter]]:
        roles = {"weight": "kernel", "bias": "bias"}
        found = self._chain.named_parameters()
        return [(f"{path.rpartition('.')[0]}/{roles[path.rpartition('.')[2]]}", p) for path, p in found]


def _module(layer: Any, known: dict[int, nn.Parameter]) -> nn.Module:
    made = _convolution(layer) if isinstance(layer, Convolution) else _linear(layer)
    # A kernel that two layers of the reference share is one parameter here too.
    made.weight = known.setdefault(id(layer.kernel), nn.Parameter(_tensor(_to_torch(layer.kernel))))
    if layer.bias is not None:
        made.bias = nn.Parameter(_tensor(layer.bias))
    return made


def _linear(layer: Any) -> nn.Linear:
    if not isinstance(layer, Dense):
        raise NotImplementedError(f"no torch module for {type(layer).__name__}")
    return nn.Linear(*layer.kernel.shape, bias=layer.bias is not None)


def _convolution(layer: Convolution) -> nn.Conv1d | nn.Conv2d:
    *sizes, inputs, outputs = layer.kernel.shape
    kind = nn.Conv1d if len(sizes) == 1 else nn.Conv2d
    return kind(inputs, outputs, tuple(sizes), bias=layer.bias is not None)


def _to_torch(kernel: np.ndarray) -> np.ndarray:
    """Return (*spatial, input, output) as (output, input, *spatial), and a bias as it is."""
    if kernel.ndim < 2:
        return kernel
    return np.transpose(kernel, (kernel.ndim - 1, kernel.ndim - 2, *range(kernel.ndim - 2)))


def _features_second(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, -1, 1), np.float32)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))


def _gradient(parameter: nn.Parameter) -> np.ndarray:
    found = np.zeros(parameter.shape) if parameter.grad is None else parameter.grad.cpu().numpy()
    return found if found.ndim < 2 else np.transpose(found, (*range(2, found.ndim), 1, 0))
