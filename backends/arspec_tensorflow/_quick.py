"""L1 and L2 in few TensorFlow operations: sums in TensorFlow's own order, certified while the graph runs.

In a graph every guard is an operation of its own, and the tree of the definition fifty of
them. Here the guards are left out where nothing is left to guard: a product of two float32
in float64 is exact, and a gradient is rounded right after its product.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from arspec._axes import Axes
from arspec._certified import slack
from arspec._means import mean_count
from arspec.penalties import Penalty

# Beyond it twice a weight could overflow where the definition does not.
LARGEST_COEFFICIENT = 2.0**500


class TensorFlowKernels:
    """Exact products and float64 sums."""

    def __init__(self, xp: Any) -> None:
        self._xp = xp

    def sum_of_magnitudes(self, x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(tf.abs(x), tf.float64))

    def sum_of_squares(self, x: tf.Tensor) -> tf.Tensor:
        wide = tf.cast(x, tf.float64)
        return tf.reduce_sum(wide * wide)

    def signs(self, x: tf.Tensor, weight: tf.Tensor, out: None) -> tf.Tensor:
        narrow = self._xp.narrow(x)
        return self._xp.lower(tf.cast(self._xp.sign(narrow), tf.float64) * weight, x.dtype.name)

    def scaled(self, x: tf.Tensor, weight: tf.Tensor, out: None) -> tf.Tensor:
        return self._xp.lower(self._xp.lift(x) * weight, x.dtype.name)


def serves(penalty: Penalty, x: tf.Tensor, axes: Axes) -> bool:
    """Return whether a penalty of x has this form: all parts quick, no mask, no float64, and x not known as empty."""
    parts = [part for part in penalty.components() if part.coefficient != 0]
    return (
        bool(parts)
        and axes.mask is None
        and axes.dtype != "float64"
        and 0 not in x.shape.as_list()
        and all(part.penalty.quick and part.coefficient < LARGEST_COEFFICIENT for part in parts)
    )


def certified(
    penalty: Penalty, x: tf.Tensor, axes: Axes, xp: Any, kernels: Any, definition: Callable[[], tf.Tensor]
) -> tf.Tensor:
    """Return the value in float32: that of any order where all orders agree, else that of the definition."""
    size = tf.cast(tf.size(x), tf.float64)
    bound = slack(size + 8.0)
    low = high = tf.zeros((), tf.float64)
    for coefficient, part in penalty.components():
        if coefficient:
            share = xp.share(coefficient, mean_count(xp.shape(x), axes))
            summed = part.quick_sum(x, kernels)
            low += tf.maximum(summed - size * part.subnormal_term, 0.0) * (1.0 - bound) * share
            high += summed * (1.0 + bound) * share
    rounded = tf.cast(low, tf.float32)
    return tf.cond(rounded == tf.cast(high, tf.float32), lambda: rounded, definition)
