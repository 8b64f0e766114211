"""Which layer is which, and what a transfer refuses: every decision has its evidence, in small torch modules."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import arspec as ar
from arspec.port import Layers, WeightedLayer, transfer
from arspec.port._kinds import Dense
from arspec.port._layouts import same
from arspec_torch.port import assign, layers

X = torch.linspace(-1.0, 1.0, 12).reshape(2, 6)


class Chain(nn.Module):
    """Three equal layers, called in the order of `names`, whatever the order in which they are declared."""

    def __init__(self, *names: str, declared: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.names = names
        for name in declared or names:
            self.add_module(name, nn.Linear(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        for name in self.names:
            x = torch.tanh(self.get_submodule(name)(x))
        return x


class Branches(nn.Module):
    """Two equal layers side by side."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__()
        self.names = one, other
        for name in self.names:
            self.add_module(name, nn.Linear(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return sum((F.relu(self.get_submodule(name)(x)) for name in self.names), torch.zeros(()))


def pairs(found: Any) -> dict[str, tuple[str, str]]:
    return {pair.source: (pair.target, pair.why) for pair in found.pairs}


def test_a_chain_is_told_by_the_order_in_which_it_reads_itself() -> None:
    source, target = Chain("a", "b", "c"), Chain("z", "y", "x", declared=("x", "y", "z"))
    found = transfer(layers(source, X), layers(target, X))
    assert pairs(found) == {"a": ("z", "order"), "b": ("y", "order"), "c": ("x", "order")}
    assign(target, found.weights)
    assert torch.equal(source(X), target(X))


def test_a_chain_without_examples_stops_and_names_the_cures() -> None:
    cures = r"'a' may be 'z', 'y', 'x': nothing tells them apart. Say it: names=\{'a': 'z'\}; or by_order=True"
    with pytest.raises(ar.SpecError, match=cures):
        transfer(layers(Chain("a", "b", "c")), layers(Chain("z", "y", "x")))
    found = transfer(layers(Chain("a", "b", "c")), layers(Chain("z", "y", "x")), by_order=True)
    assert pairs(found)["b"] == ("y", "listed")


def test_the_order_of_branches_says_nothing_but_their_names_do() -> None:
    with pytest.raises(ar.SpecError, match="'left' may be 'one', 'two': nothing tells them apart"):
        transfer(layers(Branches("left", "right"), X), layers(Branches("one", "two"), X))
    found = transfer(layers(Branches("left", "right"), X), layers(Branches("Right", "Left"), X))
    assert pairs(found) == {"left": ("Left", "name"), "right": ("Right", "name")}
    given = transfer(layers(Branches("left", "right")), layers(Branches("one", "two")), names={"left": "two"})
    assert pairs(given) == {"left": ("two", "given"), "right": ("one", "shapes")}


def test_names_that_contradict_the_order_stop() -> None:
    with pytest.raises(ar.SpecError, match="'a' is 'b' by the order of calls and 'a' by its name"):
        transfer(layers(Chain("a", "b"), X), layers(Chain("b", "a"), X))


def test_names_that_only_count_say_nothing_between_frameworks() -> None:
    """linen names a nested call from the outside in: its Dense_0 is not the first layer."""

    def listed(framework: str, *paths: str) -> Layers:
        shapes = {"kernel": (3, 3)}
        made = [WeightedLayer(p, Dense(3, use_bias=False), shapes, same(kernel=p), named=False) for p in paths]
        return Layers(framework, made, {p: np.eye(3, dtype=np.float32) for p in paths})

    keras, linen = listed("Keras", "dense_0", "dense_1"), listed("Linen", "Dense_0", "Dense_1")
    with pytest.raises(ar.SpecError, match="'dense_0' may be 'Dense_0', 'Dense_1': nothing tells them apart"):
        transfer(keras, linen)
    assert pairs(transfer(linen, linen))["Dense_1"] == ("Dense_1", "name")


def test_options_that_both_sides_tell_decide() -> None:
    source = nn.Sequential(nn.Conv1d(3, 3, 3, stride=2), nn.Conv1d(3, 3, 3))
    target = nn.ModuleDict({"fine": nn.Conv1d(3, 3, 3), "coarse": nn.Conv1d(3, 3, 3, stride=2)})
    assert pairs(transfer(layers(source), layers(target))) == {"0": ("coarse", "options"), "1": ("fine", "options")}


@pytest.mark.parametrize(
    ("source", "target", "lines"),
    [
        (
            nn.BatchNorm1d(3),
            nn.BatchNorm1d(3, eps=1e-3, momentum=0.01),
            ["epsilon 1e-05 -> 0.001", "momentum 0.9 -> 0.99", r"accept=\['epsilon', 'momentum'\]"],
        ),
        (nn.Conv1d(2, 3, 3, padding=1), nn.Conv1d(2, 3, 3, dilation=2), ["padding same -> valid", "dilation 1 -> 2"]),
        (nn.RNN(2, 3, nonlinearity="relu"), nn.RNN(2, 3), ["activation relu -> tanh"]),
        (nn.Linear(2, 3), nn.Linear(2, 3).double(), ["dtype float32 -> float64"]),
        (nn.Linear(2, 3).bfloat16(), nn.Linear(2, 3), ["dtype bfloat16 -> float32"]),
        (nn.Linear(2, 3), nn.Linear(2, 3).requires_grad_(False), ["trainable kernel, bias -> nothing"]),
    ],
)
def test_options_that_differ_stop_until_they_are_accepted(source: Any, target: Any, lines: list[str]) -> None:
    for line in lines:
        with pytest.raises(ar.SpecError, match=line):
            transfer(layers(source), layers(target))
    names = ("epsilon", "momentum", "padding", "dilation", "activation", "dtype", "trainable", "biases")
    found = transfer(layers(source), layers(target), accept=names)
    assert all(line in str(found) for line in lines if "accept" not in line)
    with pytest.raises(ar.SpecError, match=r"unknown option 'epsilom'; .*Did you mean 'epsilon'"):
        transfer(layers(source), layers(target), accept="epsilom")


def test_a_forward_of_its_own_leaves_the_options_open_and_says_so() -> None:
    class Same(nn.Conv1d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(F.pad(input, (0, 1)))

    found = transfer(layers(nn.Sequential(nn.Conv1d(2, 3, 2, padding="same"))), layers(nn.Sequential(Same(2, 3, 2))))
    assert not found.differences
    assert "left to the code: '0' -> '0': padding same -> (in the model's code)" in str(found)


def test_a_second_bias_that_trains_is_told_and_both_are_one_weight() -> None:
    source: Any = nn.LSTM(2, 3)
    target: Any = nn.LSTM(2, 3)
    with torch.no_grad():
        total = source.bias_ih_l0 + source.bias_hh_l0
    target.bias_hh_l0.requires_grad_(False).zero_()
    with pytest.raises(ar.SpecError, match=r"biases two that add up -> one\n.*freeze one"):
        transfer(layers(source), layers(target))
    assign(target, transfer(layers(source), layers(target), accept="biases").weights)
    assert torch.equal(target.bias_ih_l0, total)
    assert not target.bias_hh_l0.any()
    assign(source, layers(source).weights)
    assert torch.equal(source.bias_ih_l0, total)
    assert not source.bias_hh_l0.any()


def test_what_has_no_counterpart_is_listed_with_what_is_near() -> None:
    source: Any = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5))
    target: Any = nn.Sequential(nn.Linear(2, 3), nn.Linear(5, 3))
    text = (
        r"no counterpart: '1': a Dense \(bias 5, kernel 3×5\); the target has none such \(its '0' is a Dense "
        r"\(bias 3, kernel 2×3\)\); '1': a Dense \(bias 3, kernel 5×3\); the source has none such"
    )
    with pytest.raises(ar.SpecError, match=text):
        transfer(layers(source), layers(target))
    some = transfer(layers(source).only("0"), layers(target).only("0"))
    before = target[1].weight.clone()
    assign(target, some.weights)
    assert torch.equal(target[0].weight, source[0].weight)
    assert torch.equal(target[1].weight, before)
    with pytest.raises(ar.SpecError, match="'2' names no layer with weights"):
        layers(source).only("2")


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.gain = nn.Parameter(torch.ones(2))


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (Own(), r"'model': what the weights of a .*Own are is not known"),
        (parametrizations.weight_norm(nn.Linear(2, 2)), "'model': it is parametrized"),
        (nn.LSTM(2, 4, proj_size=2), "'model': an LSTM with proj_size has no counterpart"),
        (nn.BatchNorm1d(2, momentum=None), "without running statistics or momentum"),
        (nn.RMSNorm(2), "an RMSNorm without eps takes one that depends on the dtype"),
        (nn.LayerNorm([2, 2]), "a LayerNorm over 2 axes"),
        (nn.ConvTranspose1d(2, 2, 2, groups=2), "a transposed convolution with groups or dilation"),
    ],
)
def test_weights_that_nobody_knows_are_refused_by_name(module: nn.Module, text: str) -> None:
    with pytest.raises(ar.UnsupportedError, match=text):
        transfer(layers(module), layers(module))
    if isinstance(module, Own):
        assert pairs(transfer(layers(module).only("first"), layers(module).only("first"))) == {
            "first": ("first", "shapes")
        }


def test_weights_that_do_not_fit_change_nothing() -> None:
    module: Any = nn.Sequential(nn.Linear(2, 3))
    before = module[0].weight.clone()
    weights = layers(module).weights
    wrong = {**weights, "0/kernel": weights["0/kernel"].T}
    for given, text in (
        (wrong, r"0/kernel has shape \(3, 2\), not \(2, 3\)"),
        ({"0/kernel": weights["0/kernel"]}, r"0/bias \(3,\) is missing"),
        ({**weights, "1/bias": weights["0/bias"]}, r"1/bias \(3,\) is too much"),
        ({}, "there are no weights to assign"),
    ):
        with pytest.raises(ar.SpecError, match=text):
            assign(module, given)
    assert torch.equal(module[0].weight, before)


def test_a_tied_weight_has_one_name_and_one_value() -> None:
    module: Any = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    module[1].weight = module[0].weight
    listed = layers(module)
    assert list(listed.tensors) == ["0.weight"]
    weights = listed.weights
    assign(module, {name: 2 * array for name, array in weights.items()})
    assert np.array_equal(layers(module).weights["1/kernel"], 2 * weights["1/kernel"])
    with pytest.raises(ar.SpecError, match=r"'1' shares 0\.weight with another layer, and is given other weights"):
        assign(module, {**weights, "1/kernel": weights["1/kernel"] + 1})
    rule = ar.Rule(ar.L2(1.0), layer="1", placement="kernel")
    assert transfer(listed, listed, ar.Spec([rule])).spec.rules == (rule,)


def test_rules_move_to_the_names_of_the_target() -> None:
    source, target = Chain("a", "b"), Chain("block", "last")
    warm = ar.LinearWarmup(10)
    spec = ar.Spec(
        [
            ar.Rule(ar.L2(1e-3), layer="**", placement="kernel", schedule=warm),
            ar.Rule(ar.L1(1e-2), layer="b", placement="pre_activation", mean_over="sum", when="train"),
        ]
    )
    found = transfer(layers(source, X), layers(target, X), spec)
    assert found.spec == ar.Spec(
        [
            ar.Rule(ar.L2(1e-3), layer="block", placement="kernel", schedule=warm),
            ar.Rule(ar.L2(1e-3), layer="last", placement="kernel", schedule=warm),
            ar.Rule(ar.L1(1e-2), layer="last", placement="pre_activation", mean_over="sum", when="train"),
        ]
    )


def test_a_rule_at_a_layer_without_weights_is_refused_by_name() -> None:
    module = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    rule = ar.Rule(ar.L1(1.0), layer="1", placement="output")
    with pytest.raises(ar.UnsupportedError, match="1/output/l1: '1' is no layer with weights"):
        transfer(layers(module), layers(module), ar.Spec([rule]))
    with pytest.raises(ar.SpecError, match="matches no layer"):
        transfer(layers(module), layers(module), ar.Spec([ar.Rule(ar.L1(1.0), layer="9", placement="kernel")]))


def test_only_lists_of_layers_are_taken() -> None:
    with pytest.raises(ar.SpecError, match=r"source is a Linear; expected what `layers\(model\)` of a framework gives"):
        transfer(nn.Linear(2, 3), layers(nn.Linear(2, 3)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ar.SpecError, match="the source has no layer with weights"):
        transfer(layers(nn.Sequential(nn.ReLU())), layers(nn.Linear(2, 3)))
    with pytest.raises(ar.SpecError, match=r"model is a int; expected a torch\.nn\.Module"):
        layers(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ar.SpecError, match="'0' has no weights yet"):
        layers(nn.Sequential(nn.LazyLinear(3)))


def test_two_layers_of_one_name_are_refused() -> None:
    one = WeightedLayer("d", Dense(3, use_bias=False), {"kernel": (2, 3)}, same(kernel="w"))
    with pytest.raises(ar.SpecError, match="Keras: two layers are called 'd'"):
        Layers("Keras", [one, one], {"w": np.ones((2, 3))})


def test_a_layer_that_forgets_a_part_of_a_weight_cannot_be_made() -> None:
    with pytest.raises(ar.SpecError, match="'d': bias does not go to one place each"):
        WeightedLayer("d", Dense(3), {"kernel": (2, 3), "bias": (3,)}, same(kernel="w"))
