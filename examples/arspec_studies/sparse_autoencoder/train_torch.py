"""A sparse autoencoder in PyTorch, regularized by `attach`, trained for many seeds and coefficients at once."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import linear, normalize

import arspec
import arspec_torch
from arspec_studies._study.study import Batch, Weights
from arspec_studies._study.torch_fit import fit
from arspec_studies.sparse_autoencoder.data import BANDWIDTH, LEARNING_RATE, PIXELS


class Margin(nn.Module):
    """How far a pre-activation is above its threshold; only the threshold is trained through it."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.log_threshold = nn.Parameter(torch.zeros(units))

    def forward(self, z: Tensor) -> Tensor:
        return z.detach() - self.log_threshold.exp()


class Autoencoder(nn.Module):
    """64–units–64; the features of the decoder have length 1."""

    def __init__(self, units: int, activation: str) -> None:
        super().__init__()
        self.encoder = nn.Linear(PIXELS, units)
        self.decoder = nn.Linear(units, PIXELS)
        self.activation = nn.Sigmoid() if activation == "sigmoid" else nn.ReLU()
        if activation == "jumprelu":
            self.margin = Margin(units)

    def forward(self, x: Tensor) -> Tensor:
        z = self.encoder(x)
        hidden = self.jump(z) if hasattr(self, "margin") else self.activation(z)
        return linear(hidden, normalize(self.decoder.weight, dim=0), self.decoder.bias)

    def jump(self, z: Tensor) -> Tensor:
        """Return z where it exceeds its threshold, else 0, with the straight-through slope to the threshold."""
        margin = self.margin(z)
        soft = (margin / BANDWIDTH + 0.5).clamp(0, 1)
        threshold = (z - margin).detach()
        return z * (margin > 0) + threshold * (soft - soft.detach())


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one autoencoder per run; return the weights of each."""
    first = batch.tasks[0]
    model = Autoencoder(len(first.weights["encoder/bias"]), first.held_out["activation"])
    regularization = arspec_torch.attach(model, spec)

    def loss(parameters: dict[str, Tensor], factor: Tensor, x: Tensor, y: Tensor) -> Tensor:
        rest = functional_call(model, parameters, (x,)) - y
        return rest.square().sum(dim=-1).mean() + factor * regularization.total()

    return fit(loss, partial(torch.optim.Adam, lr=LEARNING_RATE), model, batch)
