"""arspec_torch through the contract: eager, torch.compile, torch.func.grad and vmap."""

import itertools
from collections.abc import Callable
from functools import lru_cache
from types import FunctionType
from typing import Any

import ml_dtypes
import numpy as np
import torch

import arspec_torch
from arspec import Spec
from arspec.layers import Network
from arspec_conformance._adapter import CAPABILITIES, COSTLY, Mode
from arspec_conformance.adapters.torch_models import TorchModel

Result = tuple[torch.Tensor, torch.Tensor]

# A case that torch could not compile afresh must not silently run eagerly.
torch._dynamo.config.fail_on_recompile_limit_hit = True


class TorchAdapter:
    """The modes of torch.

    Parameters
    ----------
    value : the differentiable function to measure, with the signature of `arspec_torch.value`.
    """

    name = "torch"

    def __init__(self, value: Callable[..., torch.Tensor] = arspec_torch.value) -> None:
        self._value = value
        self._compiled = lru_cache(maxsize=64)(self._compile)

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def devices(self) -> tuple[str, ...]:
        mps = ("mps",) if torch.backends.mps.is_available() else ()
        return ("cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *mps)

    def dtypes(self, device: str) -> tuple[str, ...]:
        return () if device == "mps" else ("float32", "bfloat16", "float16", "float64")

    def modes(self) -> tuple[Mode, ...]:
        return Mode("eager"), Mode("compile", COSTLY), Mode("func"), Mode("vmap")

    def capabilities(self) -> frozenset[str]:
        return frozenset(CAPABILITIES)

    def to_native(self, array: np.ndarray, dtype: str, device: str) -> torch.Tensor:
        if dtype == "bfloat16":
            return torch.from_numpy(np.array(array).view(np.int16)).view(torch.bfloat16).to(device)
        return torch.from_numpy(np.array(array)).to(device)

    def to_numpy(self, tensor: torch.Tensor) -> np.ndarray:
        tensor = tensor.detach().cpu().contiguous()
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()

    def value_and_gradient(
        self,
        penalty: Any,
        x: torch.Tensor,
        *,
        axes: Any = None,
        mean_over: Any = (),
        mask: torch.Tensor | None = None,
        cotangent: float = 1.0,
        mode: str,
    ) -> Result:
        options = {"axes": axes, "mean_over": mean_over}
        if mode == "compile":
            function = self._compiled(penalty, axes, mean_over, x.shape, x.dtype, x.device, mask is None)
            return _by_autograd(function, x, mask, cotangent)

        def function(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            return self._value(penalty, x, mask=mask, **options)

        return {"eager": _by_autograd, "func": _by_grad, "vmap": _by_vmap}[mode](function, x, mask, cotangent)

    def layers(self) -> tuple[str, ...]:
        return "Dense", "Convolution", "SimpleRNN", "Embedding", "BatchNormalization"

    def build(self, network: Network, spec: Spec, device: str) -> TorchModel:
        return TorchModel(network, spec, device)

    def _compile(self, penalty: Any, axes: Any, mean_over: Any, *_signature: Any) -> Callable[..., torch.Tensor]:
        value = self._value

        def function(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            return value(penalty, x, axes=axes, mean_over=mean_over, mask=mask)

        return torch.compile(_with_own_code(function), fullgraph=True, dynamic=False)


_numbers = itertools.count()


def _with_own_code(function: Any) -> Any:
    """Copy a function: torch keeps what it compiled per code object, and counts against a limit."""
    code = function.__code__.replace(co_name=f"case_{next(_numbers)}")
    return FunctionType(code, function.__globals__, code.co_name, None, function.__closure__)


def _by_autograd(function: Callable[..., torch.Tensor], x: torch.Tensor, mask: Any, cotangent: float) -> Result:
    leaf = x.detach().requires_grad_()
    found = function(leaf, mask)
    (gradient,) = torch.autograd.grad(found, leaf, _like(found, cotangent))
    return found, gradient


def _by_grad(function: Callable[..., torch.Tensor], x: torch.Tensor, mask: Any, cotangent: float) -> Result:
    def scaled(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = function(x, mask)
        return _like(found, cotangent) * found, found

    gradient, (_, found) = torch.func.grad_and_value(scaled, has_aux=True)(x)
    return found, gradient


def _by_vmap(function: Callable[..., torch.Tensor], x: torch.Tensor, mask: Any, cotangent: float) -> Result:
    def one(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found, pull_back = torch.func.vjp(lambda x: function(x, mask), x)
        return found, pull_back(_like(found, cotangent))[0]

    found, gradient = torch.func.vmap(one)(torch.stack([x, -x]))
    return found[0], gradient[0]


def _like(found: torch.Tensor, cotangent: float) -> torch.Tensor:
    return torch.tensor(cotangent, dtype=found.dtype, device=found.device)
