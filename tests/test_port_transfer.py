"""Weights into a module that exists: pairs by topology, by name, by what the caller says; never by guess."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import arspec as ar
from arspec.port import Bundle
from arspec_torch.port import check, export, transfer

EXAMPLE = torch.zeros(2, 6)
SPEC = ar.Spec(
    [ar.Rule(ar.L2(1e-3), layer="**", placement="kernel"), ar.Rule(ar.L1(1e-2), layer="a", placement="output")]
)


class Source(nn.Module):
    """Two branches of the same shape that are added, then a chain of equal layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(6, 5)
        self.deep = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.deep(F.relu(self.a(x)) + F.relu(self.b(x)))


class Renamed(nn.Module):
    """The same, by somebody else: other names for the chain, and declared in another order."""

    def __init__(self, first: str = "A", second: str = "B") -> None:
        super().__init__()
        self.last, self.middle, self.start = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.add_module(second, nn.Linear(6, 5))
        self.add_module(first, nn.Linear(6, 5))
        self.names = first, second

    def forward(self, x: Tensor) -> Tensor:
        one, other = (getattr(self, name) for name in self.names)
        x = F.relu(one(x)) + F.relu(other(x))
        return self.last(torch.tanh(self.middle(torch.tanh(self.start(x)))))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.manual_seed(0)
    return export(Source(), EXAMPLE, SPEC)


def test_equal_layers_are_told_apart_by_their_place_and_branches_by_their_names(bundle: Bundle) -> None:
    module = Renamed()
    written, pairs = transfer(bundle, module, EXAMPLE)
    assert {pair.source: (pair.target, pair.why) for pair in pairs} == {
        "a": ("A", "name"),
        "b": ("B", "name"),
        "deep/0": ("start", "topology"),
        "deep/2": ("middle", "topology"),
        "deep/4": ("last", "topology"),
    }
    assert "deep/0  start   topology  5×5, 5" in repr(pairs)
    certificate = check(bundle, written, module, faults=False)
    assert certificate.holds, certificate.explain()
    assert {level for level, (count, _, _) in certificate.levels().items() if count} == {"L0", "L1", "L2", "L3", "L4"}


def test_what_nothing_tells_apart_stops_with_the_candidates(bundle: Bundle) -> None:
    module = Renamed("left", "right")
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(ar.SpecError, match=r"'a' may be 'left', 'right': .* Say it: names=\{'a': 'left'\}"):
        transfer(bundle, module, EXAMPLE)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_what_the_caller_says_counts_and_is_checked(bundle: Bundle) -> None:
    module = Renamed("left", "right")
    written, pairs = transfer(bundle, module, EXAMPLE, names={"a": "left"})
    assert {pair.source: pair.why for pair in pairs}["b"] == "topology"
    assert check(bundle, written, module, faults=False).holds


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"c": "left"}, "unknown layer of the source 'c'"),
        ({"a": "centre"}, "unknown layer of the target 'centre'"),
        ({"a": "last"}, "'a' is a Dense of 6×5, 5, and 'last' is a Dense of 5×5, 5"),
    ],
)
def test_a_wrong_name_is_one_clear_error(bundle: Bundle, names: dict[str, str], message: str) -> None:
    with pytest.raises(ar.SpecError, match=message):
        transfer(bundle, Renamed("left", "right"), EXAMPLE, names=names)


def test_another_model_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ar.SpecError, match="no counterpart: no layer has its kind, shapes and neighbours"):
        transfer(bundle, nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5)), EXAMPLE)


def test_a_faithful_map_on_an_unfaithful_module_fails_the_certificate(bundle: Bundle) -> None:
    class Wrong(Renamed):
        def forward(self, x: Tensor) -> Tensor:
            one, other = (getattr(self, name) for name in self.names)
            x = F.relu(one(x)) + F.gelu(other(x))
            return self.last(torch.tanh(self.middle(torch.tanh(self.start(x)))))

    module = Wrong()
    written, _ = transfer(bundle, module, EXAMPLE)
    certificate = check(bundle, written, module, faults=False)
    assert not certificate.holds
    assert certificate.levels()["L0"][2]
