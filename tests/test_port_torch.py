"""Porting from PyTorch: modules read by torch.fx, written again and compared at every level."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import arspec as ar
from arspec.port import Bundle, Certificate, Written
from arspec_torch.port import check, export, write
from arspec_torch.port._check import build


def round_trip(model: nn.Module, *examples: Tensor, spec: ar.Spec | None = None) -> tuple[Bundle, Written, Certificate]:
    """Export a model with weights that hide nothing, write it as torch again, and compare."""
    scramble(model)
    bundle = export(model, examples, spec)
    written = write(bundle)
    certificate = check(bundle, written, build(bundle, written))
    assert certificate.holds, certificate.explain()
    return bundle, written, certificate


def scramble(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dtype.is_floating_point:
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(noise + 0.5 if name.endswith("running_var") else noise - 0.4)


class Block(nn.Module):
    """A residual block with its activation function in place."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after, momentum=0.3)
        self.down = nn.Sequential(nn.Conv2d(before, after, 1, stride), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += self.down(x)
        return self.relu(y)


class Residual(nn.Module):
    """A small residual network, its head after a flatten, channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, (7, 5), 2, 3)
        self.bn = nn.BatchNorm2d(5)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.layers = nn.Sequential(Block(5, 5, 1), Block(5, 7, 2))
        self.fc1 = nn.Linear(7 * 3 * 2, 11)
        self.drop = nn.Dropout(0.3)
        self.fc2 = nn.Linear(11, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.pool(F.relu(self.bn(self.stem(x)))))
        return self.fc2(self.drop(F.gelu(self.fc1(torch.flatten(x, 1)))))


SPEC = ar.Spec(
    [
        ar.Rule(ar.L2(1e-3), layer="**", placement="kernel"),
        ar.Rule(ar.L1(1e-2), layer="fc1", placement="output"),
        ar.Rule(ar.L1(2e-2), layer="fc1", placement="pre_activation"),
        ar.Rule(ar.L1(3e-2), layer="stem", placement="input"),
        ar.Rule(ar.GroupLasso(1e-2, norm_over=("input", "height")), layer="stem", placement="kernel"),
    ]
)


def test_residual_network_comes_back_with_every_rule() -> None:
    bundle, written, certificate = round_trip(Residual(), torch.randn(2, 3, 19, 13), spec=SPEC)
    assert {"L0", "L1", "L2", "L3", "L4"} <= set(certificate.levels())
    assert [site.key for site in bundle.sites][-3:-1] == ["fc1/pre_activation/l1", "stem/input/l1"]
    places = {site.key: (site.layer, site.placement) for site in bundle.sites}
    assert places["fc1/output/l1"] == ("gelu", "output")
    assert places["stem/input/l1"] == ("stem_pad", "input")
    assert "nn.BatchNorm2d(5, eps=1e-05, momentum=0.3)" in written.text


def test_weights_come_back_bit_equal() -> None:
    model = Residual()
    bundle, written, _ = round_trip(model, torch.randn(2, 3, 19, 13))
    again = export(build(bundle, written), torch.randn(2, 3, 19, 13))
    flat = {name.replace("/", "_"): weight.tobytes() for name, weight in bundle.weights.items()}
    assert {name.replace("/", "_"): weight.tobytes() for name, weight in again.weights.items()} == flat
