"""statistics of torch models: the right tensors, over all the data, and the model left as it was."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader, TensorDataset

import arspec as ar
import arspec_torch
from arspec import layers
from arspec._statistics import Accumulator

FEATURES, WIDTH = 3, 7


def rule(placement: str, layer: str = "0", **options: Any) -> ar.Rule:
    return ar.Rule(ar.L1(0.5), layer=layer, placement=placement, **options)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(WIDTH, 2))


def expected(
    name: str, tensor: Tensor, placement: str = "output", mask: Any = None, axes: str = "batch feature"
) -> Any:
    found = Accumulator()
    found.add(name, placement, tensor.detach().numpy(), tuple(axes.split()), mask)
    return found.result()[0]


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(11, FEATURES)


def test_every_site_over_batches(x: Tensor) -> None:
    network = model()
    spec = ar.Spec([rule("pre_activation"), rule("output"), rule("input", "3"), rule("output"), rule("kernel", "**")])
    loader = DataLoader(TensorDataset(x, torch.zeros(11)), batch_size=4)
    found = arspec_torch.statistics(network, loader, spec)
    h = network[0](x)
    wanted = [expected("0", h, "pre_activation"), expected("0", torch.relu(h)), expected("3", torch.relu(h), "input")]
    assert [(s.layer, s.placement, s.count, s.units, s.dead, s.zeros) for s in found] == [
        (s.layer, s.placement, s.count, s.units, s.dead, s.zeros) for s in wanted
    ]
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine.unit_means, theirs.unit_means, rtol=1e-5, atol=1e-7)
    assert len(str(found).splitlines()) == 4


class Functional(nn.Module):
    """Its activation function is a call, which a trace finds."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(FEATURES, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.hidden(x))


@pytest.mark.parametrize("own", [True, False])
def test_an_activation_that_is_a_call_is_found_in_an_attached_model(x: Tensor, own: bool) -> None:
    torch.manual_seed(0)
    network = Functional()
    spec = ar.Spec([rule("output", "hidden")])
    plain = arspec_torch.statistics(network, x, spec)
    penalties = arspec_torch.attach(network, spec)
    classes = [type(module) for module in network.modules()]
    assert repr(arspec_torch.statistics(network, x, None if own else spec)) == repr(plain)
    assert [type(module) for module in network.modules()] == classes
    network(x)
    assert penalties.total() > 0


def test_the_model_is_left_as_it_was(x: Tensor) -> None:
    network = model()
    network[3].eval()
    penalties = arspec_torch.attach(network, ar.Spec([rule("output")]))
    network(x)
    before, total = [module.training for module in network.modules()], penalties.total()
    found = arspec_torch.statistics(network, [x[:4], x[4:]])
    assert found[0].count == 11
    assert [module.training for module in network.modules()] == before
    assert penalties.total().item() == total.item()
    penalties.total().backward()
    assert network[0].weight.grad is not None
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in network.modules())


def test_batches_come_in_several_forms(x: Tensor) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = model()

        def forward(self, values: Tensor) -> Tensor:
            return self.body(values)

    network = Named()
    spec = ar.Spec([rule("output", "body/0")])
    forms = (x, [x], [(x, 1)], [[x, 1]], [{"values": x}])
    found = [arspec_torch.statistics(network, data, spec)[0] for data in forms]
    assert all(one == found[0] for one in found)


def test_b3_packed_sequences_count_their_steps() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.LSTM(FEATURES, WIDTH, batch_first=True)).double()
    x, lengths = torch.randn(3, 5, FEATURES, dtype=torch.float64), [5, 2, 1]
    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True)
    found = arspec_torch.statistics(network, [packed], ar.Spec([rule("hidden_state")]))
    mask = layers.mask_of_lengths(lengths, 5)
    hidden = network(x)[0]
    wanted = expected("0", hidden, "hidden_state", mask[..., None], "batch time feature")
    assert found[0].count == 8
    np.testing.assert_allclose(found[0].unit_means, wanted.unit_means, rtol=1e-12)


def test_channels_stand_second_in_a_convolution_and_are_asked_for_behind_it() -> None:
    network = nn.Sequential(nn.Conv2d(FEATURES, WIDTH, 2), nn.Sigmoid())
    x = torch.randn(2, FEATURES, 5, 4)
    found = arspec_torch.statistics(network, x, ar.Spec([rule("output")]))
    assert (found[0].units, found[0].count) == (WIDTH, 2 * 4 * 3)
    with pytest.raises(ar.SpecError, match=r"axes=\{'1': 'batch feature height width'\}"):
        arspec_torch.statistics(network, x, ar.Spec([rule("output", "1")]))
    axes = {"1": "batch feature height width"}
    told = arspec_torch.statistics(network, x, ar.Spec([rule("output", "1")]), axes=axes)
    assert told[0].unit_means == found[0].unit_means


def test_what_is_refused(x: Tensor) -> None:
    network = model()
    with pytest.raises(ar.SpecError, match="no rule of the spec is at an activation"):
        arspec_torch.statistics(network, x, ar.Spec([rule("kernel")]))
    with pytest.raises(ar.SpecError, match="spec=None; expected a Spec, or a model that one is attached to"):
        arspec_torch.statistics(network, x)
    with pytest.raises(ar.SpecError, match="data has no batches"):
        arspec_torch.statistics(network, [], ar.Spec([rule("output")]))

    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(FEATURES, 2), nn.Linear(FEATURES, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    with pytest.raises(ar.SpecError, match="'idle/pre_activation/l1' never fired"):
        arspec_torch.statistics(Idle(), x, ar.Spec([rule("pre_activation", "*")]))
