"""The tensor engine: a penalty as a differentiable function of a JAX array.

The core's formulas run in float64 inside `jax.enable_x64`, whatever the global setting.
`value` is a `custom_jvp` whose tangent is a linear map of its own (`_linear.py`), so that
reverse mode runs the core's gradient with our bits, and forward mode its product with dx.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from arspec import Schedule, _evaluate
from arspec._axes import Axes
from arspec._bounded import Bounded
from arspec._namespace import Array, Namespace, cut
from arspec_jax._linear import apply_linear
from arspec_jax._sharding import on_automatic_axes

# Two levels of the tree to a pass. XLA fuses what made x into such a pass; with eight rows it
# stores x in float64 first, which takes ten times as long at 1e7 elements.
ROWS = 4

# Blocks of terms that one loop computes and adds; with eight, a term of two parts is no longer vectorized.
FUSED_BLOCKS = 4
FUSED_SIZE = 1 << 14


class JaxNamespace(Namespace):
    """The core's operations over `jax.numpy`; to be used inside `jax.enable_x64(True)`."""

    lib = jnp

    def bounded(self, dtype: str) -> Namespace:
        return BoundedJaxNamespace(dtype)

    def block_size(self, x: Array) -> int | None:
        """Cut a large x into so few blocks that XLA makes one loop of them: it then stores no float64 of size x."""
        return max(FUSED_SIZE // FUSED_BLOCKS, (1 << (max(x.size, 1) - 1).bit_length()) // FUSED_BLOCKS)

    def dtype_name(self, x: Array) -> str:
        return x.dtype.name

    def cast(self, x: Array, dtype: str) -> Array:
        return lax.convert_element_type(x, jnp.dtype(dtype))

    def guard(self, product: Array) -> Array:
        """Stop XLA from contracting a product and a following sum (an optimization barrier does not)."""
        return jnp.where(product == product, product, jnp.nan)

    def stop_gradient(self, x: Array) -> Array:
        return lax.stop_gradient(x)

    def abs(self, x: Array) -> Array:
        """|x| whose derivative at 0 is 0; JAX's own is +1."""
        return _abs(x)

    def log1p(self, x: Array) -> Array:
        return _log1p(x)

    def raw_matmul(self, x: Array, y: Array) -> Array:
        # `jnp.matmul` asks for float64 by name, which vmap, outside of enable_x64, would make float32.
        return lax.dot(x, y, precision=lax.Precision.HIGHEST)

    def pullback(self, function: Callable[[Array], Array], x: Array, weight: Array | float) -> Array:
        terms, pull = jax.vjp(function, x)
        return pull(jnp.broadcast_to(jnp.asarray(weight, terms.dtype), terms.shape))[0]

    def halve(self, x: Array, axis: int) -> Array:
        """Add in the order of the core's tree, two levels to a pass."""
        if x.shape[axis] == 0:
            return super().halve(x, axis)
        while x.shape[axis] > 1:
            x = _fold(x, axis)
        return x


@jax.custom_jvp
def _abs(x: Array) -> Array:
    return jnp.abs(x)


@_abs.defjvp
def _abs_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _abs(primals[0]), jnp.sign(primals[0]) * tangents[0]


@jax.custom_jvp
def _log1p(x: Array) -> Array:
    return _XP.log1p_by_log(x)


@_log1p.defjvp
def _log1p_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _log1p(primals[0]), tangents[0] / (1.0 + primals[0])


def _fold(x: Array, axis: int) -> Array:
    """Cut the axis into rows of a power of two, the last one short, and add them in halving order."""
    size = x.shape[axis]
    padded = 1 << (size - 1).bit_length()
    rows = min(ROWS, padded)
    length = padded // rows
    starts = range(0, size, length)
    short = size - starts[-1]
    with_last = _add_rows([cut(x, axis, start, start + short) for start in starts], rows)
    if short == length:
        return with_last
    without_last = _add_rows([cut(x, axis, start + short, start + length) for start in starts[:-1]], rows)
    return jnp.concatenate([with_last, without_last], axis)


def _add_rows(present: list[Array], rows: int, first: int = 0, step: int = 1) -> Array:
    """Add row i and row i + rows/2, then i and i + rows/4, and so on; rows not present are zero."""
    if step == rows:
        return present[first]
    low = _add_rows(present, rows, first, 2 * step)
    if first + step >= len(present):
        return low
    return low + _add_rows(present, rows, first + step, 2 * step)


class BoundedJaxNamespace(Bounded, JaxNamespace):
    """XLA's own sums and products in float32."""

    def raw_sum(self, x: Array, axis: int) -> Array:
        return jnp.sum(x, axis=axis, keepdims=True)


_XP = JaxNamespace()


def _precision(axes: Axes) -> AbstractContextManager[Any]:
    return nullcontext() if axes.numerics == "bounded" else jax.enable_x64(True)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class _Job:
    """What is static about one evaluation: the penalty and the axes, whose mask is an operand."""

    penalty: Any
    axes: Axes

    def _with(self, mask: tuple[Array, ...]) -> Axes:
        return replace(self.axes, mask=mask[0]) if mask else self.axes

    def value(self, x: Array, *mask: Array) -> Array:
        with _precision(self.axes):
            return _evaluate.value(self.penalty, x, xp=_XP, axes=self._with(mask))

    def gradient(self, x: Array, *mask_and_cotangent: Array) -> Array:
        *mask, cotangent = mask_and_cotangent
        with _precision(self.axes):
            return _evaluate.gradient(self.penalty, x, cotangent, xp=_XP, axes=self._with(tuple(mask)))


@dataclass(frozen=True, slots=True, weakref_slot=True)
class _Pushforward:
    """(x, mask, dx) to Σ gradient(x) · dx, and its transpose: (x, mask, cotangent) to the gradient."""

    job: _Job

    def __call__(self, x: Array, *mask_and_dx: Array) -> Array:
        *mask, dx = mask_and_dx
        with jax.enable_x64(True):
            one = jnp.ones((), jnp.float64)
            slope = _XP.cast(self.job.gradient(x, *mask, one), "float64")
            summed = _XP.sum(_XP.multiply(slope, _XP.cast(dx, "float64")))
            return _XP.lower(summed, _evaluate.value_dtype(x, _XP))

    @property
    def transpose(self) -> "_Pullback":
        return _Pullback(self.job)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class _Pullback:
    """(x, mask, cotangent) to cotangent · gradient(x), the core's formula."""

    job: _Job

    def __call__(self, *operands: Array) -> Array:
        return self.job.gradient(*operands)

    @property
    def transpose(self) -> _Pushforward:
        return _Pushforward(self.job)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value(job: _Job, *operands: Array) -> Array:
    return _compiled_value(job, *operands)


@partial(jax.jit, static_argnums=0)
def _compiled_value(job: _Job, *operands: Array) -> Array:
    return job.value(*operands)


@_value.defjvp
def _value_jvp(job: _Job, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    return _value(job, *primals), apply_linear(_Pushforward(job), *primals, tangents[0])


def value(
    penalty: Any,
    x: Any,
    /,
    *,
    axes: Any = None,
    mean_over: Any = (),
    mask: Any = None,
    numerics: str = "identical",
) -> Array:
    """Evaluate a penalty: coefficient · Σ over kept axes (mean over `mean_over` of terms).

    It works eagerly and under jit, grad, jvp, hessian, vmap, scan and checkpoint.

    Parameters
    ----------
    penalty : such as `L1(1e-4)`, or a sum of penalties.
    x : array of float16, bfloat16, float32 or float64, of any shape.
    axes : names of the axes of x, such as "batch time feature"; by default the
        channels-last names of its rank.
    mean_over : axes averaged over (every other axis is summed), or "sum" (the default),
        "batchmean" or "mean".
    mask : boolean array over the leading axes of x, true where x is valid; may be traced.
    numerics : "identical" (the default), or "bounded" for XLA's own float32 sums and products:
        the same definition, quicker, within the rounding of float32 instead of to the bit.

    Returns
    -------
    A 0-d array: float64 for a float64 x, else float32. It is computed in float64 and rounded
    once, so it has the bits of `arspec.value`; its gradient has those of `arspec.gradient`
    and comes in the dtype of x.

    Raises
    ------
    SpecError: x is not floating point, or a name, a shape or the mask does not fit.
    UnsupportedError: x is complex, or sharded over explicit axes of a mesh that is not set.

    Example
    -------
    >>> import arspec as ar, arspec_jax, jax, jax.numpy as jnp
    >>> x = jnp.array([[-2.0, 0.0], [0.5, 3.0]])
    >>> print(arspec_jax.value(ar.L1(1.0), x, mean_over=("batch",)))
    2.75
    >>> print(jax.grad(lambda x: arspec_jax.value(ar.L1(1.0), x))(x))
    [[-1.  0.]
     [ 1.  1.]]
    """
    array = jnp.asarray(x)
    resolved = _evaluate.prepare(penalty, array, xp=_XP, axes=axes, mean_over=mean_over, numerics=numerics)
    given = None if mask is None else jnp.asarray(mask)
    masked = _evaluate.with_mask(resolved, given, array, _XP)
    operands = (array,) if given is None else (array, masked.mask)
    return on_automatic_axes(partial(_value, _Job(penalty, resolved)), *operands)


def schedule_factor(schedule: Schedule, step: Any) -> Array:
    """Return the factor of a schedule at a step, which may be traced, as float32."""
    with jax.enable_x64(True):
        at_step = lax.convert_element_type(jnp.asarray(step), jnp.float64)
        return _XP.lower(schedule.factor(at_step, xp=_XP), "float32")
