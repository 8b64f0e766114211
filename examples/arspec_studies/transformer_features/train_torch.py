"""A sparse autoencoder in PyTorch on activations of a transformer; it is that of the digits."""

import arspec
from arspec_studies._study.study import Batch, Weights
from arspec_studies.sparse_autoencoder import train_torch


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one autoencoder per run; return the weights of each."""
    return train_torch.train(spec, batch)
