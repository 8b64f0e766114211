"""Spec: the JSON document, to the bit and back, and what is refused on the way."""

import copy
import json
import os
import pickle
import re
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import arspec as ar
from arspec._axes import AXIS_NAMES
from arspec._placements import PLACEMENTS
from documents import BAD, GOOD, L1, RULE, document, with_penalty

numbers = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
# Factors that no product of them drives out of range.
factors = st.floats(min_value=0, max_value=1e3)
simple = st.one_of(st.builds(ar.L1, numbers), st.builds(ar.L2, numbers), st.builds(ar.L1L2, numbers, numbers))
bounded = st.one_of(st.builds(ar.L1, factors), st.builds(ar.L1L2, factors, factors))
sums = st.lists(st.tuples(factors, bounded), min_size=1, max_size=4).map(lambda pairs: ar.Sum(tuple(pairs)))
layers = st.text(min_size=1).filter(lambda text: text.strip("./ "))
reductions = st.one_of(
    st.none(), st.sampled_from(["sum", "batchmean", "mean"]), st.lists(st.sampled_from(AXIS_NAMES), unique=True)
)
rules = st.builds(
    ar.Rule, st.one_of(simple, sums), layer=layers, placement=st.sampled_from(list(PLACEMENTS)), mean_over=reductions
)
specs = st.lists(rules, max_size=4).map(ar.Spec)

SPEC = ar.Spec(
    [
        ar.Rule(ar.L1(1e-4) + 0.1 * ar.L2(0.3), layer="hidden", placement="output"),
        ar.Rule(ar.L2(1e-3), layer="**", placement="kernel", mean_over="mean"),
    ]
)


def coefficients(penalty: Any) -> list[float]:
    """Return every number a penalty holds."""
    if isinstance(penalty, ar.Sum):
        return [number for factor, part in penalty.summands for number in (factor, *coefficients(part))]
    return [getattr(penalty, name) for name in penalty.__slots__]


def error_of(document: Any) -> str | None:
    """Return the text of the SpecError that a document causes; any other error passes through."""
    try:
        ar.Spec.from_document(document)
    except ar.SpecError as error:
        return str(error)
    return None


@given(specs)
def test_a_document_gives_back_the_spec_to_the_bit(spec: ar.Spec) -> None:
    read = ar.Spec.from_json(spec.to_json())
    assert read == spec
    for mine, theirs in zip(read.rules, spec.rules, strict=True):
        bits = [[struct.pack("d", c) for c in coefficients(r.penalty)] for r in (mine, theirs)]
        assert bits[0] == bits[1]
    assert read.to_json() == spec.to_json()


@given(specs)
def test_a_spec_is_a_value(spec: ar.Spec) -> None:
    assert copy.deepcopy(spec) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert hash(ar.Spec(list(spec.rules))) == hash(spec)
    assert ar.Spec(iter(spec.rules)) == spec


def test_the_document_writes_everything_out() -> None:
    assert SPEC.to_document() == {
        "arspec": "2026.1",
        "rules": [
            {
                "penalty": {
                    "name": "sum",
                    "summands": [
                        {"factor": 1.0, "penalty": {"name": "l1", "coefficient": 1e-4}},
                        {"factor": 0.1, "penalty": {"name": "l2", "coefficient": 0.3}},
                    ],
                },
                "layer": "hidden",
                "placement": "output",
                "mean_over": ["batch"],
            },
            {
                "penalty": {"name": "l2", "coefficient": 1e-3},
                "layer": "**",
                "placement": "kernel",
                "mean_over": "mean",
            },
        ],
    }
    assert json.loads(SPEC.to_json()) == SPEC.to_document()
    assert SPEC.to_json().endswith("}\n")


def test_sums_are_flat_and_keep_their_order() -> None:
    nested = 0.5 * (ar.L1(1.0) + 4 * (ar.L2(2.0) + ar.L1(3.0)))
    assert nested == ar.Sum(((0.5, ar.L1(1.0)), (2.0, ar.L2(2.0)), (2.0, ar.L1(3.0))))
    assert ar.Sum(((0.5, ar.L1(1.0) + ar.L2(1.0)),)) == 0.5 * ar.L1(1.0) + 0.5 * ar.L2(1.0)
    assert ar.L1(1.0) * 2 == 2 * ar.L1(1.0)


@pytest.mark.parametrize("name", GOOD)
def test_good_documents(name: str) -> None:
    spec = ar.Spec.from_document(GOOD[name])
    assert len(spec.rules) == len(GOOD[name]["rules"])
    assert ar.Spec.from_document(spec.to_document()) == spec
    assert ar.Spec.from_json(json.dumps(GOOD[name])) == spec


@pytest.mark.parametrize("name", BAD)
def test_bad_documents_are_refused_by_their_place(name: str) -> None:
    given_document, place, text = BAD[name]
    with pytest.raises(ar.SpecError) as error:
        ar.Spec.from_document(given_document)
    assert str(error.value).startswith(f"{place}: ")
    assert text in str(error.value)


def test_keys_that_are_not_strings() -> None:
    """JSON has none, but a document may come from YAML or from code."""
    for wrong, place in (({**document(), 3: 1}, "document"), (document({**RULE, None: 1}), "rules[0]")):
        with pytest.raises(ar.SpecError, match=re.escape(f"{place}: unknown key")):
            ar.Spec.from_document(wrong)
    with pytest.raises(ar.SpecError, match=re.escape("rules[0].penalty: unknown key (1, 2)")):
        ar.Spec.from_document(with_penalty({**L1, (1, 2): 1}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "broken or truncated JSON: Expecting value at line 1, column 1."),
        ('{"arspec":\n "2026.1", ', "broken or truncated JSON: Expecting property name enclosed in double quotes at "),
        ("not json", "broken or truncated JSON: Expecting value at line 1, column 1."),
        (SPEC.to_json() + "}", "broken or truncated JSON: Extra data at line "),
        ('{"arspec": NaN}', "the number NaN is not JSON; expected a finite number."),
        ('{"arspec": -Infinity}', "the number -Infinity is not JSON; expected a finite number."),
        ('{"arspec": "2026.1", "rules": [], "rules": []}', "the key 'rules' stands twice in one object."),
        ("9" * 5000, "a number that cannot be read: Exceeds the limit (4300"),
        ("[" * 100_000, "the JSON is nested too deeply for an arspec document; allowed: 200 levels."),
        (None, "text=None; expected JSON text. From a file: arspec.load(path)."),
        (b"{}", "text=b'{}'; expected JSON text. From a file: arspec.load(path)."),
    ],
)
def test_broken_text(text: Any, message: str) -> None:
    with pytest.raises(ar.SpecError) as error:
        ar.Spec.from_json(text)
    assert str(error.value).startswith(message)


def nested_sums(count: int) -> str:
    opening = '{"name": "sum", "summands": [{"factor": 1, "penalty": ' * count
    return json.dumps(with_penalty("HERE")).replace('"HERE"', opening + json.dumps(L1) + "}]}" * count)


@pytest.mark.parametrize("frames", [1_000, 100_000])
def test_the_depth_allowed_is_the_same_whatever_the_stack(frames: int) -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(frames)  # torch and others raise it
    try:
        assert len(ar.Spec.from_json(nested_sums(60)).rules) == 1
        with pytest.raises(ar.SpecError, match="the JSON is nested too deeply"):
            ar.Spec.from_json(nested_sums(70))
    finally:
        sys.setrecursionlimit(before)


def test_brackets_within_a_string_do_not_nest() -> None:
    layer = 'a\\"' + "[{" * 300
    document = {"arspec": "2026.1", "rules": [{**RULE, "layer": layer}]}
    assert ar.Spec.from_json(json.dumps(document)).rules[0].layer == layer


def test_every_truncation_of_a_document_is_refused() -> None:
    text = SPEC.to_json().rstrip()
    for length in range(len(text)):
        with pytest.raises(ar.SpecError, match="broken or truncated JSON"):
            ar.Spec.from_json(text[:length])


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_any_json_gives_a_spec_or_a_spec_error(anything: Any) -> None:
    for wrong in (anything, {"arspec": "2026.1", "rules": anything}, document(anything), with_penalty(anything)):
        text = error_of(wrong)
        assert text is None or ": " in text


@given(st.sampled_from(sorted(RULE)), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()))
def test_any_value_of_a_key_gives_a_spec_or_a_spec_error(key: str, anything: Any) -> None:
    text = error_of(document({**RULE, key: anything}))
    assert text is None or text.startswith(f"rules[0].{key}: ")


@pytest.mark.parametrize(
    ("rules_given", "text"),
    [
        (3, "rules=3; expected a list of rules."),
        (None, "rules=None; expected a list of rules."),
        (SPEC.rules[1], f"rules={SPEC.rules[1]!r}; expected a list of rules."),
        ([ar.L1(1.0)], "rules[0] is L1(coefficient=1.0); expected a Rule."),
        ("ab", "rules[0] is 'a'; expected a Rule."),
    ],
)
def test_a_spec_holds_rules(rules_given: Any, text: str) -> None:
    with pytest.raises(ar.SpecError) as error:
        ar.Spec(rules_given)
    assert str(error.value) == text


class TestFiles:
    """`save` and `load`."""

    def test_round_trip(self, tmp_path: Path) -> None:
        SPEC.save(tmp_path / "spec.json")
        assert ar.load(tmp_path / "spec.json") == SPEC
        assert ar.load(str(tmp_path / "spec.json")) == SPEC
        assert [p.name for p in tmp_path.iterdir()] == ["spec.json"]

    def test_errors_name_the_file_and_the_place(self, tmp_path: Path) -> None:
        path = tmp_path / "spec.json"
        path.write_text(SPEC.to_json().replace('"l2"', '"l3"'))
        with pytest.raises(ar.SpecError) as error:
            ar.load(path)
        assert str(error.value).startswith(f"{path}: rules[0].penalty.summands[1].penalty: unknown penalty 'l3';")

    def test_a_byte_order_mark_is_no_error(self, tmp_path: Path) -> None:
        path = tmp_path / "spec.json"
        path.write_bytes(b"\xef\xbb\xbf" + SPEC.to_json().encode())
        assert ar.load(path) == SPEC

    def test_not_a_text_file(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.bin"
        path.write_bytes(b"\x89PNG\r\n")
        with pytest.raises(ar.SpecError) as error:
            ar.load(path)
        assert str(error.value) == f"{path}: not a text file (invalid start byte at byte 0); expected JSON."

    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            ar.load(tmp_path / "nowhere.json")

    def test_a_save_that_fails_leaves_the_old_file_and_no_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "spec.json"
        SPEC.save(path)

        def full_disk(source: str, target: Path) -> None:
            assert Path(source).read_text() == ar.Spec([]).to_json()
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full_disk)
        with pytest.raises(OSError, match="No space left"):
            ar.Spec([]).save(path)
        assert ar.load(path) == SPEC
        assert list(tmp_path.iterdir()) == [path]

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="nowhere"):
            SPEC.save(tmp_path / "nowhere" / "spec.json")
