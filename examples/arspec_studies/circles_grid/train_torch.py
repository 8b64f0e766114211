"""Two circles in PyTorch, for the grid: network and training are those of `arspec_studies.circles.train_torch`."""

import arspec
from arspec_studies._study.study import Batch, Weights
from arspec_studies.circles import train_torch
from arspec_studies.circles_grid.data import train_each_coefficient


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one network per run; return the weights of each."""
    return train_each_coefficient(train_torch.train, spec, batch)
