"""The core's sum over an axis whose size is known only when the graph runs.

The tree of `Namespace.halve` cuts at the largest power of two below the size, which gives
the same bits as padding with zeros to a power of two and halving until one entry is left.
Halving an axis of size 1 adds a zero, so a fixed number of steps serves every size. A loop
would need fewer, but XLA allows no loop whose tensors change shape. What the steps need to
know is computed for all of them at once, which leaves three operations in each.
"""

import tensorflow as tf

HALVINGS = 40


def halve_at_run_time(x: tf.Tensor, axis: int) -> tf.Tensor:
    """Sum `x` over `axis`, kept with size 1, in the order of the core's tree."""
    shape = tf.shape(x, out_type=tf.int64)
    entries, padded = shape[axis], _next_power_of_two(shape[axis])
    x = tf.reshape(x, (tf.reduce_prod(shape[:axis]), entries, tf.reduce_prod(shape[axis + 1 :])))
    x = tf.pad(x, [[0, 0], [0, padded - entries], [0, 0]])
    for halves, padding in zip(*_steps(padded), strict=True):
        low, high = tf.raw_ops.SplitV(value=x, size_splits=halves, axis=1, num_split=2)
        x = low + tf.pad(high, padding)
    return tf.reshape(x, tf.concat([shape[:axis], [1], shape[axis + 1 :]], 0))


def _steps(size: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Return for every halving the sizes of both halves, and what the second one lacks."""
    before = tf.maximum(tf.bitwise.right_shift(size, tf.range(HALVINGS, dtype=tf.int64)), 1)
    low = tf.maximum(before // 2, 1)
    halves = tf.stack([low, before - low], axis=1)
    paddings = tf.pad((2 * low - before)[:, None, None], [[0, 0], [1, 1], [1, 0]])
    return tf.unstack(halves), tf.unstack(paddings)


def _next_power_of_two(size: tf.Tensor) -> tf.Tensor:
    filled = tf.maximum(size, 1) - 1
    for shift in (1, 2, 4, 8, 16, 32):
        filled = tf.bitwise.bitwise_or(filled, tf.bitwise.right_shift(filled, tf.constant(shift, tf.int64)))
    return filled + 1
