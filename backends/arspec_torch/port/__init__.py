"""Porting to PyTorch: source code for a bundle, and the check of a module against it."""

from arspec_torch.port._check import check as check
from arspec_torch.port._write import write as write
