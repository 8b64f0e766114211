"""The statistics of activations in the history of `fit`."""

import numpy as np

import arspec as ar
import keras
from arspec_keras import StatisticsLogger, attach, statistics

SPEC = ar.Spec([ar.Rule(ar.L1(1e-2), layer="hidden", placement="output")])


def test_history_has_the_statistics_of_the_weights_after_each_epoch() -> None:
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(7, activation="relu", name="hidden")])
    model = attach(model, SPEC)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    generator = np.random.default_rng(2)
    x, y = generator.normal(size=(12, 3)).astype("float32"), generator.normal(size=(12, 7)).astype("float32")
    before = statistics(model, x)[0]
    logger, seldom = StatisticsLogger(x), StatisticsLogger([x[:5]], SPEC, every=3)
    history = model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[logger]).history
    after = statistics(model, x)[0]
    assert len(history["hidden/output/mean"]) == 2
    assert history["hidden/output/mean"][-1] == after.mean != before.mean
    assert history["hidden/output/zeros"][-1] == after.zeros
    assert history["hidden/output/dead"][-1] == after.dead
    assert len(history["loss"]) == 2
    again = model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[seldom]).history
    assert "hidden/output/mean" not in again
