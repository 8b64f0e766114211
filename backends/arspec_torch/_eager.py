"""Value and gradient of a dense CPU tensor outside of every transformation, by the quickest route to the bits.

With numba these are loops compiled from the penalty's own equation. Without it, or where a
penalty has no such form: the fused kernels of torch; then, for a small tensor, NumPy on the same
memory; else the definition in torch's kernels.
"""

from dataclasses import replace

import torch
from torch import Tensor

from arspec import _evaluate, _fused, _fusion, _quick
from arspec._axes import Axes
from arspec.penalties import Penalty
from arspec_torch import _plain
from arspec_torch._kernels import BoundedTorchKernels, TorchKernels
from arspec_torch._namespace import EAGER

_KERNELS = {"identical": TorchKernels(), "bounded": BoundedTorchKernels()}
_VALUE = dict.fromkeys((torch.float16, torch.bfloat16, torch.float32), torch.float32) | {torch.float64: torch.float64}


def value(penalty: Penalty, x: Tensor, axes: Axes, known: _fused.Known) -> Tensor:
    """Return the value of a penalty of a tensor that `_plain.is_plain`, in a region without gradients.

    What else was found out about x is put into `known`, for the gradient.

    Raises
    ------
    RuntimeError: x is seen by a transformation or a tracer, which lets nobody read its numbers.
    """
    if _fusion.available() and axes.mask is None:
        _plain.read_a_number(x)
        number = _fused.value(penalty, _plain.entries(x), _exact(axes), torch.get_num_threads(), known)
        if number is not None:
            return torch.scalar_tensor(number, dtype=_VALUE[x.dtype])
    number = _quick.value(penalty, x, _KERNELS[axes.numerics], axes)
    if number is not None:
        return torch.scalar_tensor(number, dtype=torch.float32)
    _plain.read_a_number(x)
    axes = _exact(axes)
    found = _plain.small_value(penalty, x, axes, known=True)
    return _evaluate.value(penalty, x, xp=EAGER, axes=axes) if found is None else found


def gradient(penalty: Penalty, x: Tensor, cotangent: Tensor, axes: Axes, known: _fused.Known) -> Tensor | None:
    """Return cotangent · d value / d x, or None where the cotangent has no number that can be read."""
    if not _plain.is_plain(cotangent):
        return None
    try:
        upstream = cotangent.item()
    except RuntimeError:
        return None
    if _fusion.available() and axes.mask is None:
        entries, threads = _plain.entries(x), torch.get_num_threads()
        array = _fused.gradient(penalty, entries, upstream, _exact(axes), threads, known)
        if array is not None:
            return torch.from_numpy(array).to(x.dtype)
    found = _quick.gradient(penalty, x, upstream, _KERNELS[axes.numerics], axes)
    axes = _exact(axes)
    if found is None:
        found = _plain.small_gradient(penalty, x, cotangent, axes, known=True)
    return _evaluate.gradient(penalty, x, cotangent, xp=EAGER, axes=axes) if found is None else found


def _exact(axes: Axes) -> Axes:
    """Return axes that ask for the definition: in blocks it is quicker than float32 tensors of the full size."""
    return axes if axes.numerics == "identical" else replace(axes, numerics="identical")
