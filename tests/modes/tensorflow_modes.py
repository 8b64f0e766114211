"""Value and gradient of a penalty in TensorFlow, per execution mode, as NumPy arrays.

In the dynamic modes every size is unknown while tracing, as the batch is in Keras' `fit`.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import tensorflow as tf

from arspec_tensorflow import value

Result = tuple[np.ndarray, np.ndarray]


def _differentiated(x: tf.Tensor, cotangent: tf.Tensor, mask: tf.Tensor | None, penalty: Any, options: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(x)
        found = value(penalty, x, mask=mask, **dict(options))
        loss = found * tf.cast(cotangent, found.dtype)
    return found, tape.gradient(loss, x)


def eager(penalty: Any, x: np.ndarray, *, cotangent: float = 1.0, mask: Any = None, **options: Any) -> Result:
    factor = tf.constant(cotangent, tf.float64)
    return _to_numpy(_differentiated(tf.constant(x), factor, _mask(mask), penalty, options))


def compiled(
    penalty: Any,
    x: np.ndarray,
    *,
    cotangent: float = 1.0,
    mask: Any = None,
    xla: bool,
    dynamic: bool,
    **options: Any,
) -> Result:
    tensors = [tf.constant(x), tf.constant(cotangent, tf.float64), *([] if mask is None else [_mask(mask)])]
    specs = tuple(tf.TensorSpec([None] * t.shape.rank if dynamic else t.shape, t.dtype) for t in tensors)
    return _to_numpy(_compiled(penalty, _hashable(options), specs, xla)(*tensors))


@cache
def _compiled(penalty: Any, options: Any, specs: tuple[tf.TensorSpec, ...], xla: bool) -> Any:
    @tf.function(input_signature=specs, jit_compile=xla)
    def run(x: tf.Tensor, cotangent: tf.Tensor, mask: tf.Tensor | None = None) -> Any:
        return _differentiated(x, cotangent, mask, penalty, options)

    return run


def _hashable(options: dict[str, Any]) -> Any:
    return tuple((key, tuple(held) if isinstance(held, list) else held) for key, held in sorted(options.items()))


def _mask(mask: np.ndarray | None) -> tf.Tensor | None:
    return None if mask is None else tf.constant(mask)


def _to_numpy(results: Any) -> Result:
    found, gradient = results
    return np.asarray(found.numpy()), np.asarray(gradient.numpy())


MODES: dict[str, Callable[..., Result]] = {
    "tf_eager": eager,
    "tf_function": partial(compiled, xla=False, dynamic=False),
    "tf_xla": partial(compiled, xla=True, dynamic=False),
    "tf_dynamic_function": partial(compiled, xla=False, dynamic=True),
    "tf_dynamic_xla": partial(compiled, xla=True, dynamic=True),
}
