"""arspec for PyTorch: penalties on tensors and on any nn.Module."""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    cure = "arspec_torch needs PyTorch, which is not installed. Try: pip install 'arspec[torch]'"
    raise ModuleNotFoundError(cure, name="torch") from None

from arspec_torch._attach import Regularization as Regularization
from arspec_torch._attach import attach as attach
from arspec_torch._engine import value as value
