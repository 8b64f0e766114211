"""Callbacks for Lightning: every penalty apart, and what the activations are like, in the logs.

Import this module by name; `arspec_torch` itself needs no Lightning.
"""

from collections.abc import Iterable
from typing import Any

from torch import nn

from arspec import Spec
from arspec._frameworks import require
from arspec_torch._regularization import Regularization
from arspec_torch._statistics import statistics

require("arspec_torch.lightning", "lightning", "Lightning", "lightning")

from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer


class PenaltyLogger(Callback):
    """Log every penalty of a training step apart, under "penalty/<layer>/<placement>/<penalty>".

    Parameters
    ----------
    regularization : what `attach` returned; its `total()` is part of the loss in `training_step`.
    on_step, on_epoch : as for `LightningModule.log`; an epoch has the mean over its steps.

    Notes
    -----
    The values are those of the last forward pass of the step, before a schedule multiplies them.

    Example
    -------
    >>> import arspec as ar, arspec_torch, torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
    >>> rule = ar.Rule(ar.L1(1e-4), layer="0", placement="output")
    >>> callback = PenaltyLogger(arspec_torch.attach(model, ar.Spec([rule])))
    """

    def __init__(self, regularization: Regularization, *, on_step: bool = False, on_epoch: bool = True) -> None:
        self.regularization = regularization
        self.on_step, self.on_epoch = on_step, on_epoch

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        # After the step of the optimizer the weights would be others than those of the loss.
        losses = {f"penalty/{key}": value.detach() for key, value in self.regularization.losses().items()}
        pl_module.log_dict(losses, on_step=self.on_step, on_epoch=self.on_epoch)


class StatisticsLogger(Callback):
    """Log the statistics of activations after every epoch, under "<layer>/<placement>/<statistic>".

    The statistics are "mean", "zeros" (fraction of exact zeros), "dead" (units that were 0
    everywhere) and, where it is defined, "hoyer": see `arspec_torch.statistics`.

    Parameters
    ----------
    data : batches, moved to the device of the module; as for `arspec_torch.statistics`.
    spec : which activations; None: the rules that are attached.
    model : the module to run; None: the LightningModule itself.
    every : the number of epochs from one run to the next.
    """

    def __init__(
        self, data: Iterable[Any], spec: Spec | None = None, *, model: nn.Module | None = None, every: int = 1
    ) -> None:
        self.data, self.spec, self.model, self.every = data, spec, model, every

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every:
            return
        model = pl_module if self.model is None else self.model
        batches = (move_data_to_device(batch, pl_module.device) for batch in self.data)
        pl_module.log_dict(statistics(model, batches, self.spec).metrics())
