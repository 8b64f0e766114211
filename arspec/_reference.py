"""The definition itself at hand: value and gradient in NumPy."""

from typing import Any

import numpy as np

from arspec import _evaluate
from arspec._axes import Axes
from arspec._errors import SpecError
from arspec._namespace import FLOAT_DTYPES
from arspec._numpy import NumpyNamespace
from arspec.penalties._base import components

_NUMPY = NumpyNamespace()


def value(penalty: Any, x: Any, /, *, axes: Any = None, mean_over: Any = (), mask: Any = None) -> np.floating[Any]:
    """Evaluate a penalty: coefficient · Σ over kept axes (mean over `mean_over` of terms).

    Parameters
    ----------
    penalty : such as `L1(1e-4)`, or a sum of penalties.
    x : array of float16, bfloat16, float32 or float64, of any shape.
    axes : names of the axes of x, such as "batch time feature"; by default the
        channels-last names of its rank.
    mean_over : axes averaged over (every other axis is summed), or "sum" (the default),
        "batchmean" or "mean".
    mask : boolean array over the leading axes of x, true where x is valid. A mean divides
        by the number of valid positions.

    Returns
    -------
    A NumPy scalar: float64 for a float64 x (a Python float), else float32. It is computed
    in float64 and rounded once. Empty or fully masked x: 0.

    Raises
    ------
    SpecError: x is not floating point, or a name, a shape or the mask does not fit.
    UnsupportedError: x is complex.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> print(ar.value(ar.L1(1e-4), np.ones((30, 500)), mean_over=("batch",)))
    0.05
    """
    array, resolved = _prepare(penalty, x, axes, mean_over, mask)
    with np.errstate(all="ignore"):
        return _evaluate.value(penalty, array, xp=_NUMPY, axes=resolved)[()]


def gradient(
    penalty: Any, x: Any, /, *, axes: Any = None, mean_over: Any = (), mask: Any = None, cotangent: float = 1.0
) -> np.ndarray:
    """Evaluate cotangent · d value / d x; parameters and errors as for `value`.

    Parameters
    ----------
    cotangent : what the value is multiplied by afterwards, such as a loss scale; it is
        rounded to the dtype of the value, as a framework's chain rule hands it on.

    Returns
    -------
    An array with the shape and dtype of x. At a kink it holds the value that the penalty's
    documentation names; masked positions hold 0, even where x is NaN.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> ar.gradient(ar.L1(1.0), np.array([[-2.0, 0.0], [0.5, 3.0]]), mean_over=("batch",))
    array([[-0.5,  0. ],
           [ 0.5,  0.5]])
    """
    array, resolved = _prepare(penalty, x, axes, mean_over, mask)
    with np.errstate(all="ignore"):
        upstream = _number(cotangent).astype(_evaluate.value_dtype(array, _NUMPY))
        return np.asarray(_evaluate.gradient(penalty, array, upstream, xp=_NUMPY, axes=resolved))


def _prepare(penalty: Any, x: Any, axes: Any, mean_over: Any, mask: Any) -> tuple[np.ndarray, Axes]:
    array = _array(x)
    resolved = _evaluate.prepare(penalty, array, xp=_NUMPY, axes=axes, mean_over=mean_over)
    given = None if mask is None else np.asarray(mask)
    masked = _evaluate.with_mask(resolved, given, array, _NUMPY)
    valid = array if masked.mask is None else array[np.broadcast_to(masked.mask, array.shape)]
    for component in components(penalty):
        component.penalty.check_values(np.asarray(valid, np.float64))
    return array, masked


def _array(x: Any) -> np.ndarray:
    if isinstance(x, np.ma.MaskedArray):
        raise SpecError("x is a NumPy masked array; pass its parts: value(penalty, x.data, mask=~x.mask).")
    try:
        return np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        cure = "For a framework's tensor call the `value` of its adapter."
        raise SpecError(f"x is a {type(x).__name__} that NumPy cannot read: {error} {cure}") from None


def _number(cotangent: Any) -> np.ndarray:
    number = np.asarray(cotangent)
    if number.shape != () or not (number.dtype.kind in "iu" or number.dtype.name in FLOAT_DTYPES):
        raise SpecError(f"cotangent={cotangent!r}; expected one number, such as a loss scale.")
    return number
