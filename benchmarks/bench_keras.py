"""Keras: a training step on a batch, with its own regularizers and with an attached spec."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from harness import Options, Row, Variants, compare, interleave

import arspec as ar
import arspec_keras
import keras

WIDTH, LAYERS, BATCH = 512, 3, 128


def rows(options: Options) -> Iterator[Row]:
    for kind in ("activity L1", "kernel L2") if options.quick else ("activity L1", "kernel L1", "kernel L2"):
        yield _step(kind, options)


def _step(kind: str, options: Options) -> Row:
    """Time `train_on_batch`; "naive" is the regularizer that Keras ships."""
    placement, name = kind.split()
    penalty = ar.L1(1e-4) if name == "L1" else ar.L2(1e-4)
    shipped = keras.regularizers.L1(1e-4) if name == "L1" else keras.regularizers.L2(1e-4)
    where = "output" if placement == "activity" else "kernel"

    def attached(numerics: str) -> keras.Model:
        rule = ar.Rule(penalty, layer="hidden*", placement=where, numerics=numerics)
        return arspec_keras.attach(_model(), ar.Spec([rule]))

    variants: Variants = {
        "none": _trainer(_model()),
        "naive": _trainer(_model(**{f"{placement}_regularizer": shipped})),
        "arspec": _trainer(attached("identical")),
        "bounded": _trainer(attached("bounded")),
    }
    times = interleave(variants, clock=time.process_time, seconds=3 * options.seconds)
    size = LAYERS * WIDTH * (BATCH if placement == "activity" else WIDTH)
    return compare(times, options=options, mode="train_on_batch", workload="step mlp", penalty=kind, size=size)


def _model(**regularizers: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(WIDTH, "relu", name=f"hidden{i}", **regularizers) for i in range(LAYERS)]
    return keras.Sequential([keras.Input((WIDTH,)), *hidden, keras.layers.Dense(10)])


def _trainer(model: keras.Model) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((BATCH, WIDTH), np.float32), rng.standard_normal((BATCH, 10), np.float32)
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    return lambda: model.train_on_batch(x, y)
