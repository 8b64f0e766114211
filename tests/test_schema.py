"""The JSON Schema judges documents as the reader does."""

import json
from typing import Any

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

import arspec as ar
from arspec.penalties import registered
from arspec.penalties._base import parameter_names
from documents import BAD, GOOD, L1, summed, with_penalty
from test_spec import SPEC, specs

validator = Draft202012Validator(ar.json_schema())


def accepts(document: Any) -> bool:
    return validator.is_valid(document)


def reads(document: Any) -> bool:
    try:
        return bool(ar.Spec.from_document(document).to_document())
    except ar.SpecError:
        return False


def test_it_is_a_schema_and_plain_json() -> None:
    Draft202012Validator.check_schema(ar.json_schema())
    assert json.loads(json.dumps(ar.json_schema(), allow_nan=False)) == ar.json_schema()
    assert ar.json_schema()["title"] == f"arspec {ar.SPEC_VERSION}"


def test_every_penalty_is_in_it() -> None:
    names = [option["properties"]["name"]["const"] for option in ar.json_schema()["$defs"]["penalty"]["oneOf"]]
    assert sorted(names) == sorted(["sum", *registered()])


@given(specs)
def test_it_accepts_what_is_written(spec: ar.Spec) -> None:
    validator.validate(spec.to_document())


@pytest.mark.parametrize("name", GOOD)
def test_it_accepts_what_is_read(name: str) -> None:
    assert reads(GOOD[name])
    validator.validate(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_it_rejects_what_is_refused(name: str) -> None:
    assert not reads(BAD[name][0])
    assert not accepts(BAD[name][0])


EVERY_PARAMETER = {
    "coefficient": 1e-3,
    "l1": 0.1,
    "l2": 0.2,
    "p": 1.5,
    "norm_over": ["feature"],
    "delta": 1.0,
    "epsilon": 1e-3,
    "target": 0.1,
    "over": ["time"],
    "threshold": 0.1,
    "bandwidth": 0.01,
}


def of_every_parameter(name: str) -> dict[str, Any]:
    """Return a document with the penalty called `name`, every parameter written out."""
    needed, _ = parameter_names(name)
    given = {parameter: EVERY_PARAMETER[parameter] for parameter in needed}
    return ar.Spec.from_document(with_penalty({"name": name, **given})).to_document()


def changed(document: Any) -> list[Any]:
    """Return every document with one value replaced by another of a different kind, or left out."""
    if isinstance(document, dict):
        shorter = [{k: v for k, v in document.items() if k != key} for key in document]
        inner = [{**document, key: value} for key, old in document.items() for value in changed(old)]
        return [*shorter, *inner, {**document, "extra": 1}, None]
    if isinstance(document, list):
        return [[*document[:i], value, *document[i + 1 :]] for i, old in enumerate(document) for value in changed(old)]
    return [None, True, -1, 0.5, "", "zzz", [], {}, ["batch"], float("inf")]


def test_they_agree_on_every_single_change() -> None:
    documents = changed(SPEC.to_document())
    judged = [(accepts(document), reads(document)) for document in documents]
    disagreements = [d for d, (schema, reader) in zip(documents, judged, strict=True) if schema != reader]
    assert disagreements == []
    assert sum(reader for _, reader in judged) > 10
    assert sum(not reader for _, reader in judged) > 100


def test_what_a_schema_cannot_say_the_reader_still_refuses() -> None:
    """The one known difference: a product of numbers, each of which is in range."""
    document = with_penalty(summed((1e308, {**L1, "coefficient": 1e308})))
    assert accepts(document)
    assert not reads(document)


@pytest.mark.parametrize("name", registered())
def test_they_agree_on_every_penalty(name: str) -> None:
    document = of_every_parameter(name)
    validator.validate(document)
    assert json.loads(json.dumps(document)) == document
    penalty = document["rules"][0]["penalty"]
    documents = [with_penalty(other) for other in changed(penalty)]
    assert [d for d in documents if accepts(d) != reads(d)] == []
