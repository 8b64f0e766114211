"""arspec for PyTorch: penalties on tensors and on any nn.Module."""

from arspec._frameworks import require

require("arspec_torch", "torch", "PyTorch", "torch")

from arspec_torch._attach import attach as attach
from arspec_torch._engine import value as value
from arspec_torch._regularization import Regularization as Regularization
