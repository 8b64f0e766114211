"""Golden vectors: what the definition gives, as data, so that an implementation in any language can conform.

Each vector is one question with its answer, every float written as C's hexadecimal float, so
that no digit is lost. `exact` vectors demand every bit; `bounded` ones say how far an entry
may be off. The file of a version of the specification never changes.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from arspec import SPEC_VERSION
from arspec.kinks import KINKS
from arspec_conformance.cases import Case
from arspec_conformance.exact_inputs import BY_PENALTY, SHAPE
from arspec_conformance.family import FAMILY
from arspec_conformance.inputs import BATCHMEAN, as_dtype, masks, plain
from arspec_conformance.judges import JUDGES, Part
from arspec_conformance.trials import Trial, short_hex

SMALL = (3, 2, 5)  # a prime number of entries along each axis


def golden() -> dict[str, Any]:
    """Return all vectors as JSON values."""
    vectors = [_vector(name, trial, judge) for name, trial, judge in _questions()]
    return {"golden": "arspec", "spec": SPEC_VERSION, "vectors": vectors}


def golden_json() -> str:
    """Return the text of the file."""
    document = golden()
    lines = ",\n".join(json.dumps(vector, allow_nan=False) for vector in document.pop("vectors"))
    head = json.dumps(document)[:-1]
    return f'{head}, "vectors": [\n{lines}\n]}}\n'


def replay(vector: dict[str, Any]) -> tuple[Trial, dict[str, Part]]:
    """Return the question of a vector, and what the vector demands."""
    trial = Trial.from_document(vector)
    parts = {}
    for name in ("value", "gradient"):
        given = vector[name]
        exact, allowed = (_numbers(given[key], given["shape"]) for key in ("exact", "allowed"))
        dtype = np.dtype(as_dtype(0.0, given["dtype"]).dtype)
        parts[name] = Part(exact, dtype, lambda allowed=allowed: allowed, np.full(exact.shape, True))
    return trial, parts


def _questions() -> Iterator[tuple[str, Trial, str]]:
    for kink in KINKS:
        case = Case(f"kink {kink.id}", as_dtype(kink.x, "float32"), kink.axes, kink.mean_over)
        yield f"kink {kink.id}", Trial(kink.penalty, case), "exact"
    for name, inputs in BY_PENALTY.items():
        for number, given in enumerate(inputs):
            k = np.random.default_rng(number).integers(-8, 9, SHAPE)
            case = Case("binary fractions", as_dtype(given.numbers(k), "float32"), given.axes, given.mean_over)
            judge = "exact" if given.gradient_too else "exact_value"
            yield f"{name} on binary fractions {number}", Trial(given.penalty(0.5), case), judge
    for member in FAMILY:
        ordinary = plain(member, "float32", SMALL, 1)
        yield member.label, Trial(member.penalty, Case("ordinary", ordinary, mean_over=BATCHMEAN)), "bounded"
        for name, mask in masks(member) if member.mask else ():
            shape = (*SHAPE[:2], 2)
            valid = np.broadcast_to(mask.reshape(mask.shape + (1,) * (3 - mask.ndim)), shape)
            x = np.where(valid, plain(member, "float32", shape, 2), as_dtype(np.nan, "float32"))
            case = Case(name, x, mean_over=BATCHMEAN, mask=mask)
            yield f"{member.label}, {name}", Trial(member.penalty, case), "bounded"
        if not member.of_kernel and member.label != "decov":  # their pattern of NaN is not pinned
            x = ordinary.copy()
            x[1, 1, 0] = np.nan
            yield f"{member.label}, one NaN", Trial(member.penalty, Case("one NaN", x, mean_over=BATCHMEAN)), "bounded"


def _vector(name: str, trial: Trial, judge: str) -> dict[str, Any]:
    expected = JUDGES[judge](trial)
    answers = {part: _part_document(found) for part, found in expected.items()}
    return {"name": name, **trial.to_document(), **answers}


def _part_document(part: Part) -> dict[str, Any]:
    exact = [short_hex(float(n)) for n in part.exact.ravel()]
    allowed = [_rounded_up(float(n)) for n in part.allowed.ravel()]
    shape = list(part.exact.shape)
    one = allowed[0] if len(set(allowed)) == 1 else allowed
    return {"dtype": part.dtype.name, "shape": shape, "exact": exact, "allowed": one}


def _rounded_up(allowed: float) -> str:
    """Return two digits, no smaller than what is allowed: an allowance needs no more."""
    return "0" if allowed == 0 else f"{allowed * 1.06:.2g}"


def _numbers(texts: list[str] | str, shape: list[int]) -> np.ndarray:
    if isinstance(texts, str):
        return np.full(shape, _number(texts))
    return np.array([_number(text) for text in texts], np.float64).reshape(shape)


def _number(text: str) -> float:
    return float.fromhex(text) if "x" in text else float(text)
