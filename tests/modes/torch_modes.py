"""Value and gradient of a penalty in torch, per execution mode, as NumPy arrays."""

from collections.abc import Callable
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import torch
from arspec_torch import value

# Every case is one function of the same source line; past the limit torch would run it eagerly.
torch._dynamo.config.recompile_limit = 10_000
torch._dynamo.config.accumulated_recompile_limit = 10_000
torch._dynamo.config.fail_on_recompile_limit_hit = True

Result = tuple[np.ndarray, np.ndarray]


def to_torch(x: np.ndarray) -> torch.Tensor:
    """Copy an array, bfloat16 included, into a tensor of the same dtype."""
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(x))


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """Copy a tensor, bfloat16 included, into an array of the same dtype."""
    x = x.detach()
    if x.dtype == torch.bfloat16:
        return x.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return x.numpy()


def eager(penalty: Any, x: np.ndarray, *, cotangent: float = 1.0, mask: Any = None, **options: Any) -> Result:
    tensor = to_torch(x).requires_grad_()
    return _differentiate(value(penalty, tensor, mask=_mask(mask), **options), tensor, cotangent)


def compiled(penalty: Any, x: np.ndarray, *, cotangent: float = 1.0, mask: Any = None, **options: Any) -> Result:
    tensor = to_torch(x).requires_grad_()
    function = _compiled(penalty, tuple(sorted(options.items())), x.shape, x.dtype.name, mask is None)
    return _differentiate(function(tensor, _mask(mask)), tensor, cotangent)


def func(penalty: Any, x: np.ndarray, *, cotangent: float = 1.0, mask: Any = None, **options: Any) -> Result:
    def scaled(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = value(penalty, x, mask=_mask(mask), **options)
        return torch.tensor(cotangent, dtype=found.dtype) * found, found

    gradient, (_, found) = torch.func.grad_and_value(scaled, has_aux=True)(to_torch(x))
    return to_numpy(found), to_numpy(gradient)


def vmap(penalty: Any, x: np.ndarray, *, cotangent: float = 1.0, mask: Any = None, **options: Any) -> Result:
    tensor = to_torch(x)

    def one(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found, pull_back = torch.func.vjp(lambda x: value(penalty, x, mask=_mask(mask), **options), x)
        return found, pull_back(torch.tensor(cotangent, dtype=found.dtype))[0]

    found, gradient = torch.func.vmap(one)(torch.stack([tensor, tensor + 1]))
    return to_numpy(found[0]), to_numpy(gradient[0])


@cache
def _compiled(penalty: Any, options: Any, shape: Any, dtype: Any, unmasked: bool) -> Callable[..., torch.Tensor]:
    return torch.compile(lambda x, mask: value(penalty, x, mask=mask, **dict(options)), fullgraph=True, dynamic=False)


def _differentiate(found: torch.Tensor, tensor: torch.Tensor, cotangent: float) -> Result:
    (gradient,) = torch.autograd.grad(found, tensor, torch.tensor(cotangent, dtype=found.dtype))
    return to_numpy(found), to_numpy(gradient)


def _mask(mask: np.ndarray | None) -> torch.Tensor | None:
    return None if mask is None else torch.from_numpy(mask)


MODES: dict[str, Callable[..., Result]] = {
    "torch_eager": eager,
    "torch_compile": compiled,
    "torch_func": func,
    "torch_vmap": vmap,
}
