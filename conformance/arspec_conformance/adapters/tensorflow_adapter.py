"""arspec_tensorflow through the contract: eager, tf.function and XLA, static and dynamic.

In the dynamic modes the size of the first axis is unknown while tracing, as that of the
batch is in Keras' `fit`.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

import arspec_tensorflow
from arspec_conformance._adapter import CAPABILITIES, COMPILED, COSTLY, Mode

Result = tuple[tf.Tensor, tf.Tensor]


class TensorFlowAdapter:
    """The modes of TensorFlow.

    Parameters
    ----------
    value : the differentiable function to measure, with the signature of `arspec_tensorflow.value`.
    """

    name = "tensorflow"

    def __init__(self, value: Callable[..., Any] = arspec_tensorflow.value) -> None:
        self._value = value
        self._compiled = lru_cache(maxsize=64)(self._compile)

    def versions(self) -> dict[str, str]:
        return {"tensorflow": tf.__version__}

    def devices(self) -> tuple[str, ...]:
        return ("cpu", *(f"cuda:{i}" for i in range(len(tf.config.list_logical_devices("GPU")))))

    def dtypes(self, device: str) -> tuple[str, ...]:
        return "float32", "bfloat16", "float16", "float64"

    def modes(self) -> tuple[Mode, ...]:
        static = Mode("eager"), Mode("function", COMPILED), Mode("xla", COMPILED)
        dynamic = (Mode(f"dynamic_{name}", COSTLY, sizes_known=False) for name in ("function", "xla"))
        return *static, *dynamic

    def capabilities(self) -> frozenset[str]:
        return frozenset(CAPABILITIES) - {"placements", "tied weights", "frozen layers"}  # arspec_keras has models

    def to_native(self, array: np.ndarray, dtype: str, device: str) -> tf.Tensor:
        with tf.device(device.replace("cuda", "gpu")):
            return tf.identity(tf.constant(array))

    def to_numpy(self, tensor: tf.Tensor) -> np.ndarray:
        return np.asarray(tensor.numpy())

    def value_and_gradient(
        self,
        penalty: Any,
        x: tf.Tensor,
        *,
        axes: Any = None,
        mean_over: Any = (),
        mask: tf.Tensor | None = None,
        cotangent: float = 1.0,
        mode: str,
    ) -> Result:
        with tf.device(x.device):
            upstream = tf.constant(cotangent, tf.float64 if x.dtype == tf.float64 else tf.float32)
            tensors = (x, upstream) if mask is None else (x, upstream, mask)
            if mode == "eager":
                return self._function(penalty, axes, mean_over)(*tensors)
            dynamic, xla = mode.startswith("dynamic_"), mode.endswith("xla")
            signature = tuple(_specification(tensor, dynamic) for tensor in tensors)
            return self._compiled(penalty, axes, mean_over, signature, xla)(*tensors)

    def _function(self, penalty: Any, axes: Any, mean_over: Any) -> Callable[..., Result]:
        def run(x: tf.Tensor, cotangent: tf.Tensor, mask: tf.Tensor | None = None) -> Result:
            with tf.GradientTape() as tape:
                tape.watch(x)
                found = self._value(penalty, x, axes=axes, mean_over=mean_over, mask=mask)
            return found, tape.gradient(found, x, cotangent)

        return run

    def _compile(self, penalty: Any, axes: Any, mean_over: Any, signature: Any, xla: bool) -> Callable[..., Result]:
        run = self._function(penalty, axes, mean_over)
        return tf.function(run, input_signature=signature, jit_compile=xla, autograph=False)


def _specification(tensor: tf.Tensor, dynamic: bool) -> tf.TensorSpec:
    shape = tensor.shape.as_list()
    return tf.TensorSpec([None, *shape[1:]] if dynamic and shape else shape, tensor.dtype)
