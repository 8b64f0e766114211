"""Small tensors on the CPU: the reference itself, in NumPy, on the memory they share.

An operation costs torch several microseconds before it computes anything, and NumPy one.
The numbers are the reference's own, so nothing can differ. `array_of` says which tensors
qualify: those whose memory Python may read without anybody noticing.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arspec import _evaluate
from arspec._axes import Axes
from arspec._numpy import BLOCK, NumpyNamespace
from arspec.penalties import Penalty
from arspec.penalties._custom import uses_autodiff

# Beyond it the kernels of torch outweigh their overhead, if several threads share them.
SMALL = 1 << 16
FEW_THREADS = 2


class QuickNumpyNamespace(NumpyNamespace):
    """NumPy with the shortcuts that give the same bits; the reference itself takes none."""

    def unordered_block(self, x: np.ndarray) -> int | None:
        return BLOCK

    def unordered_sum(self, x: np.ndarray) -> float:
        return float(np.add.reduce(x, dtype=np.float64, axis=None))

    def flush(self, x: np.ndarray, smallest: float) -> np.ndarray:
        # One kernel of torch instead of five of NumPy.
        if not x.flags.writeable:  # which torch warns of
            return super().flush(x, smallest)
        return flush_in_torch(torch.from_numpy(x), smallest).numpy()

    def sign(self, x: np.ndarray) -> np.ndarray:
        # np.sign takes five times as long; a normal number times this is beyond 1, and NaN stays.
        return np.clip(x * HUGE[x.dtype.type], -1, 1)


# Times this, the smallest normal number is above 1.
HUGE: dict[Any, float] = {np.float32: 2.0**127, np.float64: 2.0**1023}
HUGE |= {torch.float32: HUGE[np.float32], torch.float64: HUGE[np.float64]}


def flush_in_torch(x: Tensor, smallest: float) -> Tensor:
    """Replace subnormal numbers by 0 in one kernel; NaN stays, but the derivative at 0 becomes 0."""
    largest_subnormal = math.nextafter(smallest, 0.0) if x.dtype is torch.float64 else smallest - 2.0**-149
    return torch.nn.functional.hardshrink(x, largest_subnormal)


NUMPY = QuickNumpyNamespace()

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def array_of(x: Tensor) -> np.ndarray | None:
    """Return the memory of x, half precision widened to float32; None where torch must do the work.

    None where `is_readable` says no.
    """
    if not is_readable(x):
        return None
    try:
        return _memory(x)
    except RuntimeError:
        return None


def _memory(x: Tensor) -> np.ndarray:
    x = x.detach()
    return (x.float() if x.dtype in (torch.float16, torch.bfloat16) else x).numpy()


def entries(x: Tensor) -> np.ndarray:
    """Return a plain tensor as a contiguous array, half precision widened to float32."""
    return _memory(x.contiguous())


def is_readable(x: Tensor) -> bool:
    """Return whether x is shared, and autograd does not record what is done with it.

    It is not under torch.compile, tracing, vmap and make_fx, and for subclasses.
    """
    return not (x.requires_grad and torch.is_grad_enabled()) and is_shared(x)


def is_shared(x: Tensor) -> bool:
    """Return whether NumPy and torch may read the same memory, outside of every transformation and tracer."""
    if not is_plain(x):
        return False
    try:
        read_a_number(x)
        return True
    except RuntimeError:
        return False


def read_a_number(x: Tensor) -> None:
    """Raise RuntimeError where x is seen by vmap or a tracer of operations, which refuse to name a number."""
    (x.as_strided((), ()) if x.shape else x).item()


def is_plain(x: Tensor) -> bool:
    """Return whether x is an ordinary dense CPU tensor that is not empty and has memory of its own.

    Under torch.compile it is not, and none that torch.func wraps has memory.
    """
    # The compiler first: inside a backward it refuses to ask a tensor for its layout.
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) not in _TYPES:
        return False
    try:
        return x.is_cpu and x.layout is torch.strided and x.numel() > 0 and x.data_ptr() != 0
    except RuntimeError:
        return False


_TYPES = (Tensor, torch.nn.Parameter)


def small_value(penalty: Penalty, x: Tensor, axes: Axes, *, known: bool = False) -> Tensor | None:
    """Return the value by the reference, or None if x does not qualify; `known` says that it is shared."""
    arrays = _arrays(penalty, x, axes, known)
    if arrays is None:
        return None
    with np.errstate(all="ignore"):
        return torch.from_numpy(np.asarray(_evaluate.value(penalty, arrays[0], xp=NUMPY, axes=arrays[1])))


def small_gradient(penalty: Penalty, x: Tensor, cotangent: Tensor, axes: Axes, *, known: bool = False) -> Tensor | None:
    """Return the gradient by the reference, or None if a tensor does not qualify; `known` is about x."""
    upstream = array_of(cotangent) if _is_small(x) else None
    arrays = None if upstream is None else _arrays(penalty, x, axes, known)
    if arrays is None or upstream is None:
        return None
    with np.errstate(all="ignore"):
        found = _evaluate.gradient(penalty, arrays[0], upstream, xp=NUMPY, axes=arrays[1])
    return torch.from_numpy(np.require(found, requirements="W")).to(x.dtype)  # a broadcast array is read-only


def _is_small(x: Tensor) -> bool:
    # The compiler first: it cannot trace the question for threads.
    return not torch.compiler.is_compiling() and (x.numel() <= SMALL or torch.get_num_threads() <= FEW_THREADS)


def _arrays(penalty: Penalty, x: Tensor, axes: Axes, known: bool) -> tuple[np.ndarray, Axes] | None:
    if not _is_small(x) or x.dtype not in _DTYPES or axes.numerics == "bounded" or uses_autodiff(penalty):
        return None
    array = _memory(x) if known else array_of(x)
    mask: Any = None if axes.mask is None else array_of(axes.mask)
    if array is None or (axes.mask is not None and mask is None):
        return None
    return array, axes if mask is None else replace(axes, mask=mask)
