"""The core's sum over an axis whose size is known only when the graph runs.

The tree of `Namespace.halve` cuts at the largest power of two below the size, which gives
the same bits as padding with zeros to a power of two and halving until one entry is left.
Halving an axis of size 1 adds a zero, so a fixed number of steps serves every size. A loop
would need fewer, but XLA allows no loop whose tensors change shape.
"""

import tensorflow as tf

MOST_HALVINGS = 40


def halve_at_run_time(x: tf.Tensor, axis: int) -> tf.Tensor:
    """Sum `x` over `axis`, kept with size 1, in the order of the core's tree."""
    shape = tf.shape(x, out_type=tf.int64)
    size = _next_power_of_two(shape[axis])
    x = tf.reshape(x, (tf.reduce_prod(shape[:axis]), shape[axis], tf.reduce_prod(shape[axis + 1 :])))
    x = _padded(x, size)
    for _ in range(MOST_HALVINGS):
        size = tf.maximum(size // 2, 1)
        x = x[:, :size] + _padded(x[:, size:], size)
    return tf.reshape(x, tf.concat([shape[:axis], [1], shape[axis + 1 :]], 0))


def _padded(x: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    missing = size - tf.shape(x, out_type=tf.int64)[1]
    return tf.pad(x, [[0, 0], [0, missing], [0, 0]])


def _next_power_of_two(size: tf.Tensor) -> tf.Tensor:
    filled = tf.maximum(size, 1) - 1
    for shift in (1, 2, 4, 8, 16, 32):
        filled = tf.bitwise.bitwise_or(filled, tf.bitwise.right_shift(filled, tf.constant(shift, tf.int64)))
    return filled + 1
