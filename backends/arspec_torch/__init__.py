"""arspec for PyTorch: penalties on tensors and on any nn.Module."""

from arspec_torch._attach import Regularization as Regularization
from arspec_torch._attach import attach as attach
from arspec_torch._engine import value as value
