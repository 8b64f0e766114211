"""Deep rectifiers in PyTorch, regularized by `attach`, trained for many seeds and coefficients at once."""

from functools import partial

import torch
from torch import nn

import arspec
from arspec_studies._study.study import Batch, Weights
from arspec_studies._study.torch_fit import classify
from arspec_studies.rectifiers.data import LEARNING_RATE


def network(activation: str) -> nn.Module:
    """Return 64–200–200–200–10; it gives logits."""
    function = nn.ReLU if activation == "relu" else nn.Tanh
    model = nn.Sequential()
    for number, inputs in enumerate((64, 200, 200), 1):
        model.add_module(f"hidden{number}", nn.Linear(inputs, 200))
        model.add_module(f"activation{number}", function())
    model.add_module("output", nn.Linear(200, 10))
    return model


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one network per run; return the weights of each."""
    model = network(batch.tasks[0].held_out["activation"])
    return classify(model, spec, batch, partial(torch.optim.SGD, lr=LEARNING_RATE))
