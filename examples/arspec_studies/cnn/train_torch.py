"""A small CNN in PyTorch, regularized by `attach`, trained for many seeds and coefficients at once."""

from functools import partial

import torch
from torch import Tensor, nn

import arspec
from arspec_studies._study.study import Batch, Weights
from arspec_studies._study.torch_fit import classify
from arspec_studies.cnn.data import CHANNELS, LEARNING_RATE


class Network(nn.Module):
    """Two convolutions with ReLU, the mean over positions, and a linear layer; returns logits."""

    def __init__(self) -> None:
        super().__init__()
        first, second = CHANNELS
        self.conv1 = nn.Conv2d(1, first, 3, padding="same")
        self.conv2 = nn.Conv2d(first, second, 3, padding="same")
        self.output = nn.Linear(second, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv1(x.movedim(-1, 1)))  # torch has channels first
        x = torch.relu(self.conv2(x))
        return self.output(x.mean(dim=(2, 3)))


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one network per run; return the weights of each."""
    model = Network()
    return classify(model, spec, batch, partial(torch.optim.Adam, lr=LEARNING_RATE))
