"""PenaltyLogger: the task's loss and every penalty apart, in logs, history and progress bar."""

from collections import Counter
from typing import Any

import keras
from arspec import Rule, Spec
from arspec_keras import _backend
from arspec_keras._attachment import Attachment, attachment_of

TASK_LOSS = "task_loss"


class Meters:
    """Averages over the batches of an epoch, as Keras averages the loss: weighted by their sizes."""

    def __init__(self, spec: Spec) -> None:
        self.task = keras.metrics.Mean(name=TASK_LOSS)
        taken: Counter[str] = Counter()
        self.of_rule: dict[int, keras.metrics.Mean] = {}
        for rule in spec.rules:
            name = f"{rule.layer}/{rule.key}"
            taken[name] += 1
            self.of_rule[id(rule)] = keras.metrics.Mean(name=name if taken[name] == 1 else f"{name}#{taken[name]}")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that the model shows: one for the task, one per rule."""
        return [self.task, *self.of_rule.values()]

    def update(self, loss: Any, penalties: list[tuple[Rule, Any]], size: Any) -> None:
        """Count one batch: its whole loss, the penalties that are part of it, and its number of examples."""
        task = loss
        for _, penalty in penalties:
            task = task - penalty
        self.task.update_state(task, sample_weight=size)
        for key, metric in self.of_rule.items():
            parts = [penalty for rule, penalty in penalties if id(rule) == key]
            if parts:
                metric.update_state(sum(parts[1:], start=parts[0]), sample_weight=size)


class PenaltyLogger(keras.callbacks.Callback):
    """Show the task's loss and every rule apart: callback for `fit` and `evaluate` of a regularized model.

    `loss` stays the whole. Beside it stand `task_loss`, the loss without the penalties, and
    the value of every rule under "<layer>/<placement>/<penalty>", such as
    "hidden/output/l1" or "**/kernel/l2", summed over the layers that the rule meets; with
    "val_" before them for the validation data. Progress bar, `History`, `CSVLogger` and
    TensorBoard show them as any metric. They are averaged over the batches as `loss` is.

    Raises
    ------
    SpecError: nothing is attached to the model.

    Example
    -------
    >>> import arspec as ar, arspec_keras, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="hidden")])
    >>> spec = ar.Spec([ar.Rule(ar.L2(0.5), layer="hidden", placement="bias")])
    >>> model = arspec_keras.attach(model, spec)
    >>> model.compile("sgd", "mse")
    >>> logger = arspec_keras.PenaltyLogger()
    >>> history = model.fit(np.ones((4, 2)), np.ones((4, 3)), verbose=0, callbacks=[logger])
    >>> sorted(history.history)
    ['hidden/bias/l2', 'loss', 'task_loss']
    """

    def __init__(self) -> None:
        super().__init__()
        self._attachment: Attachment | None = None
        self._training = False

    def set_model(self, model: keras.Model) -> None:
        """Let the model measure, before Keras makes the function of its step."""
        super().set_model(model)
        self._attachment = attachment_of(model)
        self._attachment.meters = Meters(self._attachment.spec)
        _backend.retrace(model)

    def on_train_begin(self, logs: Any = None) -> None:
        self._training = True

    def on_train_end(self, logs: Any = None) -> None:
        self._training = False
        self._stop()

    def on_test_end(self, logs: Any = None) -> None:
        if not self._training:  # the validation of a fit goes on
            self._stop()

    def _stop(self) -> None:
        if self._attachment is not None:
            self._attachment.meters = None
            _backend.retrace(self._attachment.model)
