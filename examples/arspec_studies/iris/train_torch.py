"""Iris in PyTorch: an ordinary module, regularized by `attach`, trained on many splits at once."""

from functools import partial

import torch
from torch import Tensor, nn

import arspec
from arspec_studies._study.study import Batch, Weights
from arspec_studies._study.torch_fit import classify
from arspec_studies.iris.data import LEARNING_RATE


class Network(nn.Module):
    """4–512–256–64–32–3 with tanh; returns logits."""

    def __init__(self) -> None:
        super().__init__()
        self.dense1 = nn.Linear(4, 512)
        self.dense2 = nn.Linear(512, 256)
        self.dense3 = nn.Linear(256, 64)
        self.dense4 = nn.Linear(64, 32)
        self.output = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.dense1, self.dense2, self.dense3, self.dense4):
            x = torch.tanh(layer(x))
        return self.output(x)


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one network per run; return the weights of each."""
    model = Network()
    return classify(model, spec, batch, partial(torch.optim.SGD, lr=LEARNING_RATE))
