"""The TensorFlow tensor engine: the core's namespace over tf, and its custom gradient.

`value` turns any penalty into a differentiable scalar. The forward pass is the core's
value, the backward pass is the core's gradient; TensorFlow never differentiates a formula
except for second derivatives, where it differentiates the core's gradient.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from arspec import SpecError, UnsupportedError, _evaluate
from arspec._axes import Axes
from arspec._bounded import Bounded
from arspec._means import mean_count
from arspec._namespace import Namespace
from arspec.penalties import Penalty
from arspec.penalties._base import components
from arspec_tensorflow import _quick
from arspec_tensorflow._tree import halve_at_run_time


class _Library:
    """TensorFlow under the names that NumPy gives the operations."""

    abs = staticmethod(tf.abs)
    sign = staticmethod(tf.sign)
    sqrt = staticmethod(tf.sqrt)
    exp = staticmethod(tf.exp)
    log = staticmethod(tf.math.log)
    tanh = staticmethod(tf.tanh)
    cos = staticmethod(tf.cos)
    matmul = staticmethod(tf.matmul)
    transpose = staticmethod(tf.transpose)


class TensorFlowNamespace(Namespace):
    """Hardened operations on tf tensors: eager, tf.function and XLA, static or unknown batch."""

    lib = _Library

    def dtype_name(self, x: tf.Tensor) -> str:
        return x.dtype.name

    def cast(self, x: tf.Tensor | float, dtype: str) -> tf.Tensor:
        return tf.cast(x, dtype)

    def bounded(self, dtype: str) -> Namespace:
        return BoundedTensorFlowNamespace(dtype)

    def guard(self, product: tf.Tensor | float) -> tf.Tensor | float:
        if tf.executing_eagerly() or isinstance(product, float):
            return product
        return self.where(product == product, product, float("nan"))

    def where(self, condition: tf.Tensor, x: tf.Tensor | float, y: tf.Tensor | float) -> tf.Tensor:
        like = x if tf.is_tensor(x) else y
        dtype = like.dtype if tf.is_tensor(like) else tf.as_dtype(self.wide)
        return tf.where(condition, tf.convert_to_tensor(x, dtype), tf.convert_to_tensor(y, dtype))

    def shape(self, x: tf.Tensor) -> tuple[Any, ...]:
        static = x.shape.as_list()
        if None not in static:
            return tuple(static)
        sizes = tf.shape(x, out_type=tf.int64)
        return tuple(sizes[i] if n is None else n for i, n in enumerate(static))

    def share(self, coefficient: float, count: Any) -> tf.Tensor | float:
        if not tf.is_tensor(count):
            return super().share(coefficient, count)
        # An opaque numerator and denominator: no compiler may multiply by a reciprocal (R3).
        divisor = self.guard(tf.maximum(tf.cast(count, self.wide), 1.0))
        return self.guard(self.where(divisor == divisor, coefficient, divisor) / divisor)

    def zeros(self, like: tf.Tensor, shape: tuple[Any, ...]) -> tf.Tensor:
        return tf.zeros(shape, like.dtype)

    def reshape(self, x: tf.Tensor, shape: tuple[Any, ...]) -> tf.Tensor:
        return tf.reshape(x, shape)

    def concat(self, parts: list[tf.Tensor], axis: int) -> tf.Tensor:
        return tf.concat(parts, axis)

    def broadcast_to(self, x: tf.Tensor, shape: tuple[Any, ...]) -> tf.Tensor:
        return tf.broadcast_to(x, shape)

    def stop_gradient(self, x: tf.Tensor) -> tf.Tensor:
        return tf.stop_gradient(x)

    def log1p(self, x: tf.Tensor) -> tf.Tensor:
        return _log1p(x)

    def raw_max(self, x: tf.Tensor, axis: tuple[int, ...]) -> tf.Tensor:
        return tf.reduce_max(x, axis=list(axis), keepdims=True) if axis else x

    def raw_power(self, x: tf.Tensor, exponent: float) -> tf.Tensor:
        return tf.pow(x, tf.constant(exponent, x.dtype))

    def constant(self, array: np.ndarray, like: tf.Tensor) -> tf.Tensor:
        return tf.constant(array)

    def pullback(
        self, function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor, weight: tf.Tensor | float
    ) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            terms = function(x)
        weights = tf.broadcast_to(tf.convert_to_tensor(weight, terms.dtype), tf.shape(terms))
        return tape.gradient(terms, x, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def halve(self, x: tf.Tensor, axis: int) -> tf.Tensor:
        if None in x.shape.as_list() and x.shape[axis] in (None, 0):
            return halve_at_run_time(x, axis)
        return super().halve(x, axis)


class BoundedTensorFlowNamespace(Bounded, TensorFlowNamespace):
    """TensorFlow's own sums and products in float32."""

    def raw_sum(self, x: tf.Tensor, axis: int) -> tf.Tensor:
        return tf.reduce_sum(x, axis=axis, keepdims=True)


XP = TensorFlowNamespace()
KERNELS = _quick.TensorFlowKernels(XP)


@tf.custom_gradient
def _log1p(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    return XP.log1p_by_log(x), lambda upstream: upstream / (1.0 + x)


@tf.autograph.experimental.do_not_convert
def value(
    penalty: Penalty,
    x: Any,
    /,
    *,
    axes: Any = None,
    mean_over: Any = (),
    mask: Any = None,
    numerics: str = "identical",
) -> tf.Tensor:
    """Evaluate a penalty of a tensor as a differentiable scalar.

    The arguments, the definition, the dtypes and the errors are those of `arspec.value`;
    the number and its gradient have the same bits, eagerly, in a tf.function and under XLA
    (`jit_compile=True`), also where a size of x is unknown while tracing. The gradient can
    be differentiated again.

    Parameters
    ----------
    penalty : such as `arspec.L1(1e-4)`.
    x : tensor or variable of float16, bfloat16, float32 or float64, of known rank.
    axes, mean_over : as in `arspec.value`.
    mask : boolean tensor over the leading axes of x, true where x is valid.
    numerics : "identical" (the default), or "bounded" for TensorFlow's own float32 sums and
        products: the same definition, quicker, within the rounding of float32.

    Returns
    -------
    A 0-d tensor: float64 for a float64 x, else float32.

    Raises
    ------
    SpecError: x is not floating point, or a name, a shape or the mask does not fit.
    UnsupportedError: x is complex, sparse or ragged, or its rank is unknown.

    Example
    -------
    >>> import arspec, tensorflow as tf
    >>> x = tf.Variable([-2.0, 0.0, 3.0])
    >>> with tf.GradientTape() as tape:
    ...     loss = value(arspec.L1(0.5), x)
    >>> tape.gradient(loss, x).numpy()
    array([-0.5,  0. ,  0.5], dtype=float32)
    """
    tensor = _dense(x)
    resolved = _evaluate.prepare(penalty, tensor, xp=XP, axes=axes, mean_over=mean_over, numerics=numerics)
    given = None if mask is None else tf.convert_to_tensor(mask)
    placed = _evaluate.with_mask(resolved, given, tensor, XP)

    quick = _quick.serves(penalty, tensor, placed)

    @tf.custom_gradient
    def penalized(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def pull_back(cotangent: tf.Tensor) -> tf.Tensor:
            return _gradient(penalty, x, cotangent, placed, quick=quick)

        return _value(penalty, x, placed, quick=quick), pull_back

    return penalized(tensor)


def _value(penalty: Penalty, x: tf.Tensor, axes: Axes, *, quick: bool) -> tf.Tensor:
    def definition() -> tf.Tensor:
        return _evaluate.value(penalty, x, xp=XP, axes=axes)

    if not quick or axes.numerics == "bounded":
        return definition()
    return _quick.certified(penalty, x, axes, XP, KERNELS, definition)


def _gradient(penalty: Penalty, x: tf.Tensor, cotangent: tf.Tensor, axes: Axes, *, quick: bool) -> tf.Tensor:
    parts = components(penalty)
    if not quick or len(parts) > 1 or axes.numerics == "bounded":
        return _evaluate.gradient(penalty, x, cotangent, xp=XP, axes=axes)
    share = XP.share(parts[0].coefficient, mean_count(XP.shape(x), axes))
    return parts[0].penalty.quick_gradient(x, tf.cast(cotangent, tf.float64) * share, KERNELS, None)


def _dense(x: Any) -> tf.Tensor:
    if isinstance(x, tf.SparseTensor | tf.RaggedTensor | tf.IndexedSlices):
        raise UnsupportedError(f"x is a {type(x).__name__}; expected a dense tensor. For a ragged one give a mask.")
    try:
        tensor = tf.convert_to_tensor(x)
    except (TypeError, ValueError) as error:
        raise SpecError(f"x is a {type(x).__name__}, which is no tensor ({error}).") from None
    if tensor.shape.rank is None:
        raise UnsupportedError("x has an unknown rank; say it with tf.ensure_shape(x, [None, ...]).")
    return tensor
