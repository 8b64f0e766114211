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
    yield _step("activity L1", options, width=64, count=100)


def _step(kind: str, options: Options, *, width: int = WIDTH, count: int = LAYERS) -> Row:
    """Time `train_on_batch`; "naive" is the regularizer that Keras ships."""
    placement, name = kind.split()
    penalty = ar.L1(1e-4) if name == "L1" else ar.L2(1e-4)
    shipped = keras.regularizers.L1(1e-4) if name == "L1" else keras.regularizers.L2(1e-4)
    where = "output" if placement == "activity" else "kernel"

    def attached(numerics: str) -> keras.Model:
        rule = ar.Rule(penalty, layer="hidden*", placement=where, numerics=numerics)
        return arspec_keras.attach(_model(width, count), ar.Spec([rule]))

    variants: Variants = {
        "none": _trainer(_model(width, count), width),
        "naive": _trainer(_model(width, count, **{f"{placement}_regularizer": shipped}), width),
        "arspec": _trainer(attached("identical"), width),
        "bounded": _trainer(attached("bounded"), width),
    }
    times = interleave(variants, clock=time.process_time, seconds=3 * options.seconds)
    size = count * width * (BATCH if placement == "activity" else width)
    name = "step mlp" if count == LAYERS else f"step {count} layers"
    return compare(times, options=options, mode="train_on_batch", workload=name, penalty=kind, size=size)


def _model(width: int, count: int, **regularizers: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(width, "relu", name=f"hidden{i}", **regularizers) for i in range(count)]
    return keras.Sequential([keras.Input((width,)), *hidden, keras.layers.Dense(10)])


def _trainer(model: keras.Model, width: int) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((BATCH, width), np.float32), rng.standard_normal((BATCH, 10), np.float32)
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    return lambda: model.train_on_batch(x, y)
