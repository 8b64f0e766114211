"""arspec for autograd (https://github.com/HIPS/autograd): a worked example of a third-party adapter.

autograd differentiates NumPy code. All that an adapter writes is here: how the library
spells a few operations, and its custom gradient. `adapter.py` shows it to the suite.

Example
-------
>>> import arspec as ar, autograd, autograd.numpy as np
>>> from arspec_autograd import value
>>> x = np.array([[-2.0, 0.0], [0.5, 3.0]])
>>> autograd.grad(lambda x: value(ar.L1(1.0), x, mean_over="batchmean"))(x)
array([[-0.5,  0. ],
       [ 0.5,  0.5]])
"""

from typing import Any

import autograd.numpy as anp
from autograd.extend import defvjp, primitive

import arspec as ar
from arspec import engine


class AutogradNamespace(ar.Namespace):
    """autograd's NumPy: its own sums, everything in float64."""

    lib = anp

    def dtype_name(self, x: Any) -> str:
        return x.dtype.name

    def cast(self, x: Any, dtype: str) -> Any:
        return anp.asarray(x).astype(dtype)

    def zeros(self, like: Any, shape: tuple[int, ...]) -> Any:
        return anp.zeros(shape, like.dtype)

    def halve(self, x: Any, axis: int) -> Any:
        return anp.sum(x, axis=axis, keepdims=True)

    def stop_gradient(self, x: Any) -> Any:
        return getattr(x, "_value", x)


XP = AutogradNamespace()


@primitive
def _value(x: Any, penalty: Any, axes: ar.Axes) -> Any:
    with anp.errstate(all="ignore"):
        return engine.value(penalty, x, xp=XP, axes=axes)


@primitive
def _gradient(x: Any, cotangent: Any, penalty: Any, axes: ar.Axes) -> Any:
    with anp.errstate(all="ignore"):
        return engine.gradient(penalty, x, cotangent, xp=XP, axes=axes)


# autograd asks for the pullback of what it differentiates: at kinks the definition decides.
defvjp(_value, lambda _, x, penalty, axes: lambda g: _gradient(x, g, penalty, axes), argnums=(0,))


def value(penalty: Any, x: Any, /, *, axes: Any = None, mean_over: Any = (), mask: Any = None) -> Any:
    """Evaluate a penalty as a differentiable 0-d array; arguments and errors as for `arspec.value`.

    Parameters
    ----------
    x : array of float16, float32 or float64, of any shape, or what autograd traces.

    Notes
    -----
    Second derivatives are not defined: autograd says so.
    """
    resolved = engine.prepare(penalty, x, xp=XP, axes=axes, mean_over=mean_over, mask=mask)
    return _value(x, penalty, resolved)
