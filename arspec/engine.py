"""For authors of adapters: run the definition on the arrays of another library.

A `Namespace` says how the library spells some operations; `prepare` checks the arguments
of a public `value`, and `value` and `gradient` evaluate the one definition of every penalty.
An adapter makes the two of them one differentiable function, with the custom-gradient
mechanism of its framework.

Example
-------
>>> import arspec as ar, numpy as np
>>> from arspec import engine
>>> class Plain(ar.Namespace):
...     lib = np
...     def dtype_name(self, x): return x.dtype.name
...     def cast(self, x, dtype): return np.asarray(x).astype(dtype)
>>> xp, x = Plain(), np.array([[1.0, -2.0], [0.0, 4.0]], np.float32)
>>> axes = engine.prepare(ar.L1(0.5), x, xp=xp, axes=None, mean_over="batchmean", mask=None)
>>> print(engine.value(ar.L1(0.5), x, xp=xp, axes=axes))
1.75
>>> engine.gradient(ar.L1(0.5), x, np.float32(1), xp=xp, axes=axes)
array([[ 0.25, -0.25],
       [ 0.  ,  0.25]], dtype=float32)
"""

from typing import Any

from arspec import _evaluate
from arspec._axes import Axes
from arspec._evaluate import gradient as gradient
from arspec._evaluate import value as value
from arspec._namespace import Array, Namespace


def prepare(penalty: Any, x: Array, *, xp: Namespace, axes: Any, mean_over: Any, mask: Array | None) -> Axes:
    """Check the arguments of `value` as `arspec.value` does, and name the axes of x.

    Parameters
    ----------
    x, mask : arrays of the library of `xp`.
    axes, mean_over : as in `arspec.value`.

    Returns
    -------
    What `value` and `gradient` take as `axes`; it carries the mask.

    Raises
    ------
    SpecError: as `arspec.value`.
    UnsupportedError: x is complex.
    """
    resolved = _evaluate.prepare(penalty, x, xp=xp, axes=axes, mean_over=mean_over)
    return _evaluate.with_mask(resolved, mask, x, xp)
