"""StatisticsLogger: what the activations are like, in the logs of `fit`."""

from typing import Any

import keras
from arspec import Spec
from arspec_keras._statistics import statistics


class StatisticsLogger(keras.callbacks.Callback):
    """Log the statistics of activations after every epoch, under "<layer>/<placement>/<statistic>".

    The statistics are "mean", "zeros" (fraction of exact zeros), "dead" (units that were 0
    everywhere) and, where it is defined, "hoyer": see `arspec_keras.statistics`. `History`,
    `CSVLogger` and TensorBoard show them as any metric.

    Parameters
    ----------
    data, spec : as for `arspec_keras.statistics`; data must be there anew every epoch.
    every : the number of epochs from one run to the next.

    Example
    -------
    >>> import arspec as ar, arspec_keras, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="relu", name="hidden")])
    >>> model.compile("sgd", "mse")
    >>> rule = ar.Rule(ar.L1(1.0), layer="hidden", placement="output")
    >>> x = np.ones((4, 2), "float32")
    >>> logger = arspec_keras.StatisticsLogger(x, ar.Spec([rule]))
    >>> history = model.fit(x, np.ones((4, 3)), epochs=2, verbose=0, callbacks=[logger])
    >>> len(history.history["hidden/output/zeros"])
    2
    """

    def __init__(self, data: Any, spec: Spec | None = None, *, every: int = 1) -> None:
        super().__init__()
        self.data, self.spec, self.every = data, spec, every

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if (epoch + 1) % self.every == 0 and logs is not None:
            logs.update(statistics(self.model, self.data, self.spec).metrics())
