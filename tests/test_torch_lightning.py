"""Lightning's logs have every penalty and the statistics of the activations."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import arspec as ar
import arspec_torch
from arspec_torch.lightning import PenaltyLogger, StatisticsLogger

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),  # Lightning's own use of torch
]

SPEC = ar.Spec(
    [
        ar.Rule(ar.L1(1e-2), layer="net/0", placement="output"),
        ar.Rule(ar.L2(1e-3), layer="net/2", placement="kernel"),
    ]
)


class Regressor(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 7), nn.ReLU(), nn.Linear(7, 2))
        self.penalties = arspec_torch.attach(self, SPEC)
        self.seen: list[dict[str, float]] = []

    def forward(self, x: Any) -> Any:
        return self.net(x)

    def training_step(self, batch: Any, index: int) -> Any:
        x, y = batch
        loss = nn.functional.mse_loss(self(x), y) + self.penalties.total()
        self.seen.append({key: value.item() for key, value in self.penalties.losses().items()})
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(model: Any, callbacks: list[Any], folder: Path, epochs: int = 2) -> Any:
    generator = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(12, 3, generator=generator), torch.randn(12, 2, generator=generator))
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=callbacks,
    )  # fmt: skip
    trainer.fit(model, DataLoader(data, batch_size=4))
    return trainer


def test_every_penalty_is_logged(tmp_path: Path) -> None:
    model = Regressor()
    trainer = fit(model, [PenaltyLogger(model.penalties)], tmp_path)
    assert len(model.seen) == 6
    for key in ("net/0/output/l1", "net/2/kernel/l2"):
        last_epoch = [step[key] for step in model.seen[3:]]
        logged = trainer.callback_metrics[f"penalty/{key}"].item()
        assert logged == pytest.approx(sum(last_epoch) / 3, rel=1e-6)
        assert logged > 0


def test_statistics_are_logged(tmp_path: Path) -> None:
    model, data = Regressor(), [torch.ones(4, 3), torch.zeros(2, 3)]
    trainer = fit(model, [StatisticsLogger(data, every=2)], tmp_path)
    (expected,) = arspec_torch.statistics(model, data)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert logged["net/0/output/mean"] == pytest.approx(expected.mean, rel=1e-6)
    assert logged["net/0/output/zeros"] == pytest.approx(expected.zeros, rel=1e-6)
    assert logged["net/0/output/dead"] == expected.dead
    assert expected.count == 6


def test_no_statistics_between(tmp_path: Path) -> None:
    trainer = fit(Regressor(), [StatisticsLogger([torch.ones(4, 3)], every=3)], tmp_path)
    assert not any("output" in name for name in trainer.callback_metrics)
