"""Maps of weights: a bijective one moves every bit there and back, any other is refused."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import arspec as ar
from arspec.port import Entry, WeightMap
from arspec.port._mapping import Block, Step

Array = np.ndarray
Drawn = tuple[WeightMap, dict[str, Array]]


@st.composite
def steps_and_shape(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    """Draw steps that can be done on a tensor of this shape, and the shape after them."""
    steps: list[Step] = []
    for name in draw(st.lists(st.sampled_from(["transpose", "reshape", "flip", "order"]), max_size=4)):
        if name == "transpose":
            numbers = tuple(draw(st.permutations(range(len(shape)))))
            shape = tuple(shape[axis] for axis in numbers)
        elif name == "reshape":
            numbers = draw(st.sampled_from([(int(np.prod(shape)),), (*shape, 1), (shape[0], int(np.prod(shape[1:])))]))
            shape = numbers
        elif name == "flip":
            numbers = tuple(sorted(draw(st.sets(st.sampled_from(range(len(shape)))))))
        else:
            blocks = draw(st.sampled_from([n for n in (1, 2, 3, 4) if shape[-1] % n == 0]))
            numbers = tuple(draw(st.permutations(range(blocks))))
        steps.append((name, numbers))
    return tuple(steps), shape


@st.composite
def bijective(draw: st.DrawFn) -> Drawn:
    """Draw tensors that are cut along their first axis, moved about, and stacked along the target's first axis."""
    shapes = draw(st.lists(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4), min_size=1, max_size=4))
    entries: list[Entry] = []
    targets: dict[str, tuple[int, ...]] = {}
    tensors: dict[str, Array] = {}
    for index, shape in enumerate(shapes):
        dtype = draw(st.sampled_from([np.float32, np.float64, np.float16]))
        tensors[f"w{index}"] = _random_bits(draw(st.integers(0, 2**32 - 1)), tuple(shape), dtype)
        moved, result = draw(steps_and_shape(tuple(shape)))
        half = shape[0] // 2
        together = draw(st.booleans()) and half > 0
        if together:
            moved, result = draw(steps_and_shape((half, *shape[1:])))
            rest = shape[0] - half
            cut: Block = ((0, 0, half),)
            other: Block = ((0, half, shape[0]),)
            targets[f"t{index}"] = (rest, *shape[1:])
            targets[f"u{index}"] = (2 * result[0], *result[1:])
            entries.append(Entry(f"w{index}", f"u{index}", moved, cut, ((0, 0, result[0]),)))
            entries.append(Entry(f"w{index}", f"t{index}", (), other))
            tensors[f"v{index}"] = _random_bits(index, (half, *shape[1:]), dtype)
            entries.append(Entry(f"v{index}", f"u{index}", moved, (), ((0, result[0], 2 * result[0]),)))
        else:
            targets[f"t{index}"] = result
            entries.append(Entry(f"w{index}", f"t{index}", moved))
    return WeightMap(tuple(draw(st.permutations(entries))), targets), tensors


def _random_bits(seed: int, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return any bits, of NaN, infinity and -0.0 as well."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(np.random.default_rng(seed).bytes(size), dtype).reshape(shape)


def _same_bits(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and one[name].tobytes() == other[name].tobytes() for name in one
    )


def _shapes(tensors: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in tensors.items()}


@given(bijective())
def test_a_bijective_map_goes_there_and_back_bit_by_bit(drawn: Drawn) -> None:
    weights, tensors = drawn
    weights.require_bijective(_shapes(tensors))
    assert weights.invertible
    target = weights.to_target(tensors)
    assert {name: tensor.shape for name, tensor in target.items()} == dict(weights.shapes)
    back = weights.to_canonical(target, _shapes(tensors))
    assert _same_bits(back, tensors)
    assert _same_bits(weights.to_target(back), target)


@given(bijective())
def test_a_map_survives_json(drawn: Drawn) -> None:
    weights, tensors = drawn
    again = WeightMap.from_document(json.loads(json.dumps(weights.to_document())))
    assert again == weights
    assert _same_bits(again.to_target(tensors), weights.to_target(tensors))


@given(bijective(), st.data())
def test_d8_a_map_that_loses_doubles_or_leaves_out_is_refused(drawn: Drawn, data: st.DataObject) -> None:
    """TRAPS D8: every source entry goes to one place, and every place is filled."""
    weights, tensors = drawn
    shapes = _shapes(tensors)
    one = data.draw(st.sampled_from(weights.entries))
    others = tuple(entry for entry in weights.entries if entry is not one)
    faulty = {
        r"the map does not move": replace(weights, entries=others),
        r"moves .* twice": replace(weights, entries=(*weights.entries, one)),
        r"nothing fills 'more'": replace(weights, shapes={**weights.shapes, "more": (2,)}),
        r"which the target does not have": replace(weights, entries=(*others, replace(one, target="nowhere"))),
        r"which the bundle does not have": replace(weights, entries=(*others, replace(one, source="nothing"))),
    }
    for text, wrong in faulty.items():
        with pytest.raises(ar.SpecError, match=text):
            wrong.require_bijective(shapes)


@given(bijective())
def test_d7_two_weights_in_one_place_are_refused_unless_they_add(drawn: Drawn) -> None:
    """TRAPS D7, D10: what adds up is written down, and is not reversible."""
    weights, tensors = drawn
    shapes = _shapes(tensors)
    first = weights.entries[0]
    twin = {**shapes, "twin": shapes[first.source]}
    both = (*weights.entries, replace(first, source="twin"))
    partly = {name: shapes[name] for name in shapes}
    whole = not first.take
    if whole:
        with pytest.raises(ar.SpecError, match="two weights go to the same place"):
            replace(weights, entries=both).require_bijective(twin)
        adding = tuple(replace(each, adds=each.target == first.target) for each in both)
        added = replace(weights, entries=adding)
        added.require_bijective(twin)
        assert not added.invertible
    weights.require_bijective(partly)


@given(bijective(), st.data())
def test_d7_a_shape_that_does_not_fit_is_refused(drawn: Drawn, data: st.DataObject) -> None:
    """TRAPS D7: nothing is reshaped until it fits."""
    weights, tensors = drawn
    name = data.draw(st.sampled_from(sorted(weights.shapes)))
    wrong = replace(weights, shapes={**weights.shapes, name: (*weights.shapes[name], 7)})
    with pytest.raises(ar.SpecError, match=r"has shape .* when it comes to"):
        wrong.require_bijective(_shapes(tensors))


def test_what_no_weight_fills_has_its_constant() -> None:
    """TRAPS C14: the second bias of torch stays at zero."""
    weights = WeightMap((Entry("lstm/bias", "lstm.bias_ih_l0"),), {"lstm.bias_ih_l0": (4,), "lstm.bias_hh_l0": (4,)})
    with pytest.raises(ar.SpecError, match=r"nothing fills 'lstm\.bias_hh_l0'"):
        weights.require_bijective({"lstm/bias": (4,)})
    derived = replace(weights, derived={"lstm.bias_hh_l0": 0.0})
    derived.require_bijective({"lstm/bias": (4,)})
    target = derived.to_target({"lstm/bias": np.arange(4.0)})
    assert target["lstm.bias_hh_l0"].tolist() == [0.0] * 4
    assert derived.to_canonical(target, {"lstm/bias": (4,)})["lstm/bias"].tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    "broken",
    [
        {},
        [],
        None,
        {"entries": 3, "shapes": {}, "derived": {}, "layers": {}},
        {"entries": [], "shapes": {"a": [True]}, "derived": {}, "layers": {}},
        {"entries": [{"source": "a"}], "shapes": {}, "derived": {}, "layers": {}},
    ],
)
def test_a_document_that_is_no_map_is_one_clear_error(broken: Any) -> None:
    with pytest.raises(ar.SpecError, match="map of weights"):
        WeightMap.from_document(broken)


def test_an_unknown_step_is_named() -> None:
    entry = {"source": "a", "target": "b", "steps": [["eval", []]], "take": [], "put": [], "adds": False}
    with pytest.raises(ar.SpecError, match="'eval'"):
        WeightMap.from_document({"entries": [entry], "shapes": {"b": [1]}, "derived": {}, "layers": {}})
