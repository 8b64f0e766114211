"""Rule: what it assumes, how it is written, what it refuses."""

import copy
import dataclasses
import pickle

import pytest

import arspec as ar
from arspec._placements import ACTIVATIONS, PARAMETERS, PLACEMENTS


def rule(**options: object) -> ar.Rule:
    return ar.Rule(ar.L1(1e-4), **{"layer": "hidden", "placement": "output", **options})


@pytest.mark.parametrize(
    ("placement", "mean_over"),
    [*((name, ("batch",)) for name in ACTIVATIONS), *((name, ()) for name in PARAMETERS)],
)
def test_activations_are_averaged_over_the_batch_and_parameters_summed(
    placement: str, mean_over: tuple[str, ...]
) -> None:
    assert rule(placement=placement).mean_over == mean_over
    assert rule(placement=placement, mean_over=None).mean_over == mean_over
    assert rule(placement=placement).mean_over_document() == list(mean_over)


@pytest.mark.parametrize(
    ("given", "kept", "written"),
    [
        ("sum", (), []),
        ((), (), []),
        ("batchmean", ("batch",), ["batch"]),
        (["time", "batch"], ("time", "batch"), ["time", "batch"]),
        ("mean", "mean", "mean"),
    ],
)
def test_mean_over_is_normalized(given: object, kept: object, written: object) -> None:
    assert rule(mean_over=given).mean_over == kept
    assert rule(mean_over=given).mean_over_document() == written


def test_two_ways_to_write_a_reduction_are_one_rule() -> None:
    assert rule() == rule(mean_over="batchmean") == rule(mean_over=["batch"])
    assert len({rule(), rule(mean_over=("batch",))}) == 1
    assert rule() != rule(mean_over="sum")


def test_when_and_trainable_only() -> None:
    assert (rule().when, rule().trainable_only) == ("always", False)
    assert rule(when="train") != rule()
    assert rule(placement="kernel", trainable_only=True).trainable_only
    with pytest.raises(ar.SpecError, match=r"unknown when 'training'; allowed: always, train\. Did you mean 'train'"):
        rule(when="training")
    with pytest.raises(ar.SpecError, match="trainable_only=1; expected True or False"):
        rule(placement="kernel", trainable_only=1)
    with pytest.raises(ar.SpecError, match="says nothing about 'output'; only a parameter can be frozen"):
        rule(trainable_only=True)


def test_key() -> None:
    assert rule().key == "output/l1"
    assert ar.Rule(ar.L1(1.0) + ar.L2(1.0), layer="a", placement="kernel").key == "kernel/sum"


def test_a_rule_is_a_value() -> None:
    original = rule(mean_over="mean")
    assert copy.deepcopy(original) == original
    assert pickle.loads(pickle.dumps(original)) == original
    assert dataclasses.replace(original, layer="out") == rule(layer="out", mean_over="mean")
    with pytest.raises(dataclasses.FrozenInstanceError):
        original.layer = "out"
    assert repr(rule()) == (
        "Rule(penalty=L1(coefficient=0.0001), layer='hidden', placement='output', mean_over=('batch',), "
        "schedule=None, numerics='identical', when='always', trainable_only=False)"
    )


def test_options_are_keyword_only() -> None:
    with pytest.raises(TypeError, match="positional"):
        ar.Rule(ar.L1(1.0), "hidden", "output")


@pytest.mark.parametrize("penalty", [1e-4, None, ar.L1, "l1", {"name": "l1", "coefficient": 1}])
def test_wrong_penalty(penalty: object) -> None:
    with pytest.raises(ar.SpecError) as error:
        ar.Rule(penalty, layer="hidden", placement="output")
    assert str(error.value) == f"penalty={penalty!r}; expected a penalty such as L1(1e-4)."


@pytest.mark.parametrize("layer", ["", " ", ".", "/", "./", None, 3, [], ["hidden"]])
def test_wrong_layer(layer: object) -> None:
    with pytest.raises(ar.SpecError) as error:
        rule(layer=layer)
    assert str(error.value) == f"layer={layer!r}; expected the path of a layer or a glob, such as 'hidden' or '**'."


@pytest.mark.parametrize(
    ("placement", "suggestion"),
    [
        ("outputs", " Did you mean 'output'?"),
        ("preactivation", " Did you mean 'pre_activation'?"),
        ("kernels", " Did you mean 'kernel'?"),
        ("weight", ""),
        (None, ""),
        ([], ""),
        ({}, ""),
    ],
)
def test_wrong_placement(placement: object, suggestion: str) -> None:
    with pytest.raises(ar.SpecError) as error:
        rule(placement=placement)
    allowed = f"allowed: {', '.join(sorted(PLACEMENTS))}."
    assert str(error.value) == f"unknown placement {placement!r}; {allowed}{suggestion}"


def test_wrong_mean_over() -> None:
    with pytest.raises(ar.SpecError, match=r"unknown axis 'bach'; .* Did you mean 'batch'\?"):
        rule(mean_over=["bach"])
