"""TensorFlow: value + gradient of one tensor; eager, in a tf.function, and under XLA."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from harness import Options, Row, Variants, compare, interleave

import arspec_tensorflow
from cases import Case, Ops, chosen

OPS = Ops(
    abs=tf.abs, square=tf.square, sqrt=tf.sqrt, log=tf.math.log, log1p=tf.math.log1p,
    sum=tf.reduce_sum, mean=tf.reduce_mean,
)  # fmt: skip


def rows(options: Options) -> Iterator[Row]:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    for mode in ("eager", "function", "xla"):
        for size in options.sizes:
            if size <= 10_000_000:
                for case in chosen(options.quick):
                    yield _isolated(case, size, mode, options)


def _isolated(case: Case, size: int, mode: str, options: Options) -> Row:
    x = tf.constant(case.array(size))
    sent = tf.random.normal(x.shape) * 1e-3

    def regularized(penalty: Callable[[tf.Tensor], tf.Tensor] | None) -> Callable[[], Any]:
        def run(x: tf.Tensor, sent: tf.Tensor) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(sent * x)
                loss = loss if penalty is None else loss + penalty(x)
            return loss, tape.gradient(loss, x)

        made = run if mode == "eager" else tf.function(run, jit_compile=mode == "xla", autograph=False)
        return lambda: made(x, sent)

    variants: Variants = {
        "none": regularized(None),
        "naive": regularized(lambda x: case.idiom(x, OPS)),
        "arspec": regularized(lambda x: arspec_tensorflow.value(case.penalty, x, **case.options)),
        "bounded": regularized(lambda x: arspec_tensorflow.value(case.penalty, x, numerics="bounded", **case.options)),
        "triad": lambda: sent + 1e-9 * x,
    }
    times = interleave(variants, clock=time.process_time, seconds=options.seconds)
    count = int(tf.size(x))
    return compare(times, options=options, mode=mode, workload="value+gradient", penalty=case.name, size=count)
