"""arspec for PyTorch: penalties on tensors and on any nn.Module."""

from arspec._frameworks import require

require("arspec_torch", "torch", "PyTorch", "torch")

from arspec_torch._attach import attach as attach
from arspec_torch._engine import value as value
from arspec_torch._extract import extract as extract
from arspec_torch._native import ActivityRegularization as ActivityRegularization
from arspec_torch._regularization import Regularization as Regularization
from arspec_torch._statistics import statistics as statistics
