"""Two circles in Keras, for the grid: network and training are those of `arspec_studies.circles.train_keras`."""

import arspec
from arspec_studies._study.study import Batch, Weights
from arspec_studies.circles import train_keras
from arspec_studies.circles_grid.data import train_each_coefficient


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one network per run; return the weights of each."""
    return train_each_coefficient(train_keras.train, spec, batch)
