"""The modes of torch, as functions of NumPy arrays."""

import numpy as np
import torch

from arspec_conformance.adapters.torch_adapter import TorchAdapter
from modes._numbers import modes_of

ADAPTER = TorchAdapter()
MODES = modes_of(ADAPTER, "torch")
eager = MODES["torch_eager"]


def to_torch(x: np.ndarray) -> torch.Tensor:
    """Copy an array, bfloat16 included, into a tensor of the same dtype."""
    return ADAPTER.to_native(x, x.dtype.name, "cpu")


to_numpy = ADAPTER.to_numpy
