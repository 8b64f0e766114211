"""The torch tensor engine: `value`, a penalty as a differentiable function of a tensor."""

from contextlib import suppress
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from arspec import _evaluate
from arspec._axes import Axes
from arspec.penalties import Penalty
from arspec_torch._checks import numerics_on, refuse_kinds
from arspec_torch._functions import evaluate
from arspec_torch._namespace import XP


def value(
    penalty: Penalty,
    x: Tensor,
    /,
    *,
    axes: Any = None,
    mean_over: Any = (),
    mask: Tensor | None = None,
    numerics: str = "identical",
) -> Tensor:
    """Evaluate a penalty of a tensor as a differentiable scalar.

    The arguments, the definition, the dtypes and the errors are those of `arspec.value`;
    the number and its gradient have the same bits. Works eagerly, under torch.compile
    (no graph break), torch.func, autocast and double backward.

    Parameters
    ----------
    penalty : such as `arspec.L1(1e-4)`.
    x : floating-point tensor of any shape.
    axes, mean_over : as in `arspec.value`.
    mask : boolean tensor over the leading axes of x, true where x is valid.
    numerics : "identical" (the default), or "bounded" for torch's own float32 sums and
        products: the same definition, within the rounding of float32 instead of to the bit.
        On a device without float64 (Apple's MPS) it is always bounded, with a warning.

    Returns
    -------
    A 0-d tensor on the device of x: float64 for float64, else float32.

    Raises
    ------
    SpecError: x is not floating point, or a name, a shape or the mask does not fit.
    UnsupportedError: x is complex, sparse or nested.

    Example
    -------
    >>> import arspec, torch
    >>> x = torch.tensor([-2.0, 0.0, 3.0], requires_grad=True)
    >>> value(arspec.L1(0.5), x).backward()
    >>> x.grad
    tensor([-0.5000,  0.0000,  0.5000])
    """
    refuse_kinds(x, mask)
    numerics = numerics_on(x.device.type, numerics)
    _evaluate.require_penalty(penalty)
    resolved = _axes_of(x, axes, mean_over, numerics)
    expanded = None if mask is None else _evaluate.expand_mask(mask, x, xp=XP)
    return evaluate(penalty, x, expanded, resolved)


def _axes_of(x: Tensor, axes: Any, mean_over: Any, numerics: str) -> Axes:
    asked = (x.dim(), XP.dtype_name(x), axes, mean_over, numerics)
    if not torch.compiler.is_compiling():
        with suppress(TypeError):  # a list of names cannot be looked up
            return _known_axes(*asked)
    return _evaluate.named_axes(*asked)


_known_axes = lru_cache(maxsize=256)(_evaluate.named_axes)
