"""The modes of the TensorFlow engine: value and gradient in each, for the identity tests."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import tensorflow as tf

import arspec_tensorflow

Result = tuple[np.ndarray, np.ndarray]


def _differentiated(
    x: tf.Tensor, cotangent: tf.Tensor, mask: tf.Tensor | None, penalty: Any, axes: Any, mean_over: Any
):
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = arspec_tensorflow.value(penalty, x, axes=axes, mean_over=mean_over, mask=mask)
        loss = value * tf.cast(cotangent, value.dtype)
    return value, tape.gradient(loss, x)


@cache
def _compiled(penalty: Any, axes: Any, mean_over: Any, x: tf.TensorSpec, mask: tf.TensorSpec | None, xla: bool) -> Any:
    signature = [x, tf.TensorSpec((), tf.float64), *([] if mask is None else [mask])]

    @tf.function(input_signature=signature, jit_compile=xla)
    def run(x: tf.Tensor, cotangent: tf.Tensor, mask: tf.Tensor | None = None):
        return _differentiated(x, cotangent, mask, penalty, axes, mean_over)

    return run


def _run(penalty: Any, x: np.ndarray, *, axes=None, mean_over=(), mask=None, cotangent=1.0, kind: str) -> Result:
    tensor, factor = tf.constant(x), tf.constant(cotangent, tf.float64)
    valid = None if mask is None else tf.constant(mask)
    if kind == "eager":
        results = _differentiated(tensor, factor, valid, penalty, axes, mean_over)
    else:
        hashable = (
            tuple(axes) if isinstance(axes, list) else axes,
            tuple(mean_over) if isinstance(mean_over, list) else mean_over,
        )
        unknown = "dynamic" in kind
        shape = [None] * tensor.shape.rank if unknown else tensor.shape
        spec = tf.TensorSpec(shape, tensor.dtype)
        mask_spec = (
            None if valid is None else tf.TensorSpec([None] * valid.shape.rank if unknown else valid.shape, tf.bool)
        )
        function = _compiled(penalty, *hashable, spec, mask_spec, kind.endswith("xla"))
        results = function(tensor, factor) if valid is None else function(tensor, factor, valid)
    value, gradient = (result.numpy() for result in results)
    return np.asarray(value), gradient


MODES: dict[str, Callable[..., Result]] = {
    f"tf_{kind}": partial(_run, kind=kind) for kind in ("eager", "function", "xla", "dynamic_function", "dynamic_xla")
}
