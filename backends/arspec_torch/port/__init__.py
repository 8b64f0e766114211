"""Porting from and to PyTorch: a module as a bundle, source code for a bundle, the check of a module against it."""

from arspec_torch.port._check import check as check
from arspec_torch.port._check import load as load
from arspec_torch.port._read import export as export
from arspec_torch.port._transfer import transfer as transfer
from arspec_torch.port._weighted import assign as assign
from arspec_torch.port._weighted import layers as layers
from arspec_torch.port._write import write as write
