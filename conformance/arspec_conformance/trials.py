"""One question to an adapter, and its form as a token that says everything needed to ask it again."""

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from arspec import SPEC_VERSION, Spec, SpecError
from arspec.penalties import Penalty
from arspec.penalties._base import to_document
from arspec_conformance.cases import DTYPES, Case

LONGEST = 1 << 20  # characters of a token's JSON; more than any case of the suite takes


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A penalty and an input.

    Attributes
    ----------
    penalty : the penalty.
    case : the input with its options; `case.x` has the dtype that is asked about.
    """

    penalty: Penalty
    case: Case

    def to_document(self) -> dict[str, Any]:
        """Return JSON values from which `from_document` makes the same trial, to the bit."""
        case = self.case
        return {
            "penalty": to_document(self.penalty),
            "x": _array_document(case.x),
            "axes": case.axes,
            "mean_over": case.mean_over if isinstance(case.mean_over, str) else list(case.mean_over),
            "mask": None if case.mask is None else {"shape": case.mask.shape, "valid": case.mask.ravel().tolist()},
            "cotangent": short_hex(float(case.cotangent)),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Trial":
        """Build a trial from what `to_document` gave."""
        mask, mean_over = document["mask"], document["mean_over"]
        valid = None if mask is None else np.array(mask["valid"], bool).reshape(mask["shape"])
        case = Case(
            "from a token",
            _array(document["x"]),
            document["axes"],
            mean_over if isinstance(mean_over, str) else tuple(mean_over),
            valid,
            float.fromhex(document["cotangent"]),
        )
        return cls(penalty_from(document["penalty"]), case)


def penalty_from(document: Mapping[str, Any]) -> Penalty:
    """Read the JSON form of a penalty, with the checks and errors of a Spec."""
    rule = {"penalty": document, "layer": "x", "placement": "output"}
    return Spec.from_document({"arspec": SPEC_VERSION, "rules": [rule]}).rules[0].penalty


def to_token(document: Mapping[str, Any]) -> str:
    """Pack JSON values into letters, digits, "-" and "_"."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")


def from_token(token: str) -> dict[str, Any]:
    """Unpack a token.

    Raises
    ------
    SpecError: it is not one, or too long, or cut off.
    """
    try:
        packed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        unpack = zlib.decompressobj()
        text = unpack.decompress(packed, LONGEST)
        if not unpack.eof:
            raise ValueError
        document = json.loads(text)
    except (ValueError, zlib.error):
        raise SpecError(f"{token[:40]!r}... is not a token of this suite; copy all of it from the report.") from None
    if not isinstance(document, dict):
        raise SpecError("the token holds no question of this suite.")
    return document


def _array_document(x: np.ndarray) -> dict[str, Any]:
    return {"dtype": x.dtype.name, "shape": x.shape, "hex": [short_hex(float(n)) for n in x.ravel()]}


def short_hex(number: float) -> str:
    """Return C's hexadecimal form of a float, such as "0x1.8p+1", without zeros that say nothing."""
    digits, p, exponent = number.hex().partition("p")  # "inf" and "nan" have none
    return digits.rstrip("0").rstrip(".") + p + exponent if p and "." in digits else number.hex()


def _array(document: Mapping[str, Any]) -> np.ndarray:
    numbers = [float.fromhex(text) for text in document["hex"]]
    return np.array(numbers, np.float64).reshape(document["shape"]).astype(DTYPES[document["dtype"]])
