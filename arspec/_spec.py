"""Spec: a list of rules, and its JSON document."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from arspec._axes import parse_mean_over, parse_numerics
from arspec._errors import SpecError, did_you_mean, require_number, shown, unknown
from arspec._placements import PLACEMENTS
from arspec._rule import Rule, parse_trainable_only, parse_when
from arspec._schedules import Schedule, schedule_document, schedule_from, schedule_parameters
from arspec.penalties import _base

SPEC_VERSION = "2026.1"
DEEPEST = 200  # levels of JSON; one sum within another takes three
_RULE_KEYS = ("penalty", "layer", "placement", "mean_over", "schedule", "numerics", "when", "trainable_only")
_EXAMPLE = {"name": "l1", "coefficient": 0.0001}


@dataclass(frozen=True, slots=True)
class Spec:
    """An ordered list of rules; the whole regularization of a model.

    Parameters
    ----------
    rules : any iterable of `Rule`; an empty one means no regularization.

    Example
    -------
    >>> import arspec as ar
    >>> spec = ar.Spec([ar.Rule(ar.L2(1e-3), layer="**", placement="kernel")])
    >>> ar.Spec.from_json(spec.to_json()) == spec
    True
    """

    rules: tuple[Rule, ...]

    def __init__(self, rules: Iterable[Rule]) -> None:
        if isinstance(rules, Rule) or not isinstance(rules, Iterable):
            raise SpecError(f"rules={rules!r}; expected a list of rules.")
        listed = tuple(rules)
        for index, rule in enumerate(listed):
            if not isinstance(rule, Rule):
                raise SpecError(f"rules[{index}] is {rule!r}; expected a Rule.")
        object.__setattr__(self, "rules", listed)

    def to_document(self) -> dict[str, Any]:
        """Return the JSON document as plain dicts and lists."""
        rules = [_rule_document(rule) for rule in self.rules]
        return {"arspec": SPEC_VERSION, "rules": rules}

    def to_json(self) -> str:
        """Return the JSON text; numbers round-trip to the bit."""
        return json.dumps(self.to_document(), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_document(cls, document: Any) -> "Spec":
        """Build a Spec from parsed JSON.

        Raises
        ------
        SpecError: names the path in the document, what stood there and what is allowed.
        """
        with at("document"):
            _require_object(document)
            if "arspec" not in document:
                keys = ", ".join(map(repr, list(document)[:5])) or "none"
                raise SpecError(f"this is not an arspec document: it has no key 'arspec' (its keys: {keys}).")
            _require_keys(document, required=("arspec", "rules"), allowed=("arspec", "rules"))
        with at("arspec"):
            if document["arspec"] != SPEC_VERSION:
                raise SpecError(f"spec version {document['arspec']!r}; this arspec reads {SPEC_VERSION!r}.")
        with at("rules"):
            if not isinstance(document["rules"], list):
                raise SpecError(f"got {shown(document['rules'])}; expected a list.")
        return cls(_read_rule(rule, f"rules[{index}]") for index, rule in enumerate(document["rules"]))

    @classmethod
    def from_json(cls, text: str) -> "Spec":
        """Build a Spec from JSON text; errors as `from_document`, and for broken JSON."""
        if not isinstance(text, str):
            raise SpecError(f"text={shown(text)}; expected JSON text. From a file: arspec.load(path).")
        return cls.from_document(_parse(text))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON text to `path`, all of it or nothing."""
        text = self.to_json()
        folder, name = os.path.split(path)
        partial = os.path.join(folder, f".{name}.{os.getpid()}.partial")
        try:
            with open(partial, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(partial, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(partial)


def load(path: str | os.PathLike[str]) -> Spec:
    """Read a Spec from a JSON file.

    Raises
    ------
    SpecError: the file is truncated, is not JSON or is not an arspec document; the text
        names the file and the place in it.
    OSError: the file cannot be read, for example FileNotFoundError.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:  # some editors put a byte order mark first
            text = file.read()
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not a text file ({error.reason} at byte {error.start}); expected JSON.") from None
    with at(str(path)):
        return Spec.from_json(text)


@contextmanager
def at(path: str) -> Iterator[None]:
    """Prefix the text of a SpecError with the place in the document."""
    try:
        yield
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


def _rule_document(rule: Rule) -> dict[str, Any]:
    document = {
        "penalty": _base.to_document(rule.penalty),
        "layer": rule.layer,
        "placement": rule.placement,
        "mean_over": rule.mean_over_document(),
    }
    if rule.schedule is not None:
        document["schedule"] = schedule_document(rule.schedule)
    if rule.numerics != "identical":
        document["numerics"] = rule.numerics
    if rule.when != "always":
        document["when"] = rule.when
    if rule.trainable_only:
        document["trainable_only"] = True
    return document


def _read_rule(document: Any, path: str) -> Rule:
    with at(path):
        _require_object(document)
        _require_keys(document, required=_RULE_KEYS[:3], allowed=_RULE_KEYS)
    penalty = _read_penalty(document["penalty"], f"{path}.penalty")
    with at(f"{path}.placement"):
        if document["placement"] not in tuple(PLACEMENTS):
            raise unknown("placement", document["placement"], PLACEMENTS)
    with at(f"{path}.mean_over"):
        given = document.get("mean_over")
        mean_over = None if given is None else parse_mean_over(given)
    schedule = _read_schedule(document.get("schedule"), f"{path}.schedule")
    with at(f"{path}.numerics"):
        numerics = parse_numerics(document.get("numerics", "identical"))
    with at(f"{path}.when"):
        counts = {"when": parse_when(document.get("when", "always"))}
    with at(f"{path}.trainable_only"):
        only = parse_trainable_only(document.get("trainable_only", False), document["placement"])
    with at(f"{path}.layer"):  # the one thing left to refuse
        where = {"layer": document["layer"], "placement": document["placement"], "mean_over": mean_over}
        return Rule(penalty, **where, **counts, schedule=schedule, numerics=numerics, trainable_only=only)


def _read_schedule(document: Any, path: str) -> Schedule | None:
    if document is None:
        return None
    with at(path):
        _require_object(document)
        if "name" not in document:
            raise SpecError('no key \'name\'; expected an object such as {"name": "linear_warmup", "steps": 1000}.')
        required, allowed = schedule_parameters(document["name"])
        _require_keys(document, required=("name", *required), allowed=("name", *allowed))
        return schedule_from(document)


def _read_penalty(document: Any, path: str) -> _base.Penalty:
    with at(path):
        _require_object(document)
        if "name" not in document:
            raise SpecError(f"no key 'name'; expected an object such as {json.dumps(_EXAMPLE)}.")
    if document["name"] == _base.Sum.name:
        return _read_sum(document, path)
    with at(path):
        required, allowed = _base.parameter_names(document["name"])
        _require_keys(document, required=("name", *required), allowed=("name", *allowed))
        return _base.from_parameters(document)


def _read_sum(document: Any, path: str) -> _base.Sum:
    with at(path):
        _require_keys(document, required=("name", "summands"), allowed=("name", "summands"))
    with at(f"{path}.summands"):
        if not isinstance(document["summands"], list):
            raise SpecError(f"got {shown(document['summands'])}; expected a list.")
    parts = [_read_summand(part, f"{path}.summands[{i}]") for i, part in enumerate(document["summands"])]
    with at(path):
        return _base.Sum(tuple(parts))


def _read_summand(document: Any, path: str) -> tuple[float, _base.Penalty]:
    with at(path):
        _require_object(document)
        _require_keys(document, required=("factor", "penalty"), allowed=("factor", "penalty"))
        factor = require_number("sum", "factor", document["factor"])
    return factor, _read_penalty(document["penalty"], f"{path}.penalty")


def _require_object(document: Any) -> None:
    if not isinstance(document, Mapping):
        raise SpecError(f"got {shown(document)}; expected an object.")


def _require_keys(document: Mapping[str, Any], *, required: Iterable[str], allowed: Iterable[str]) -> None:
    names = list(allowed)
    for key in document:
        if key not in names:
            raise SpecError(f"unknown key {key!r}; allowed: {', '.join(names)}.{did_you_mean(key, names)}")
    for key in required:
        if key not in document:
            raise SpecError(f"no key {key!r}; expected {', '.join(names)}.")


def _parse(text: str) -> Any:
    if _nesting(text) > DEEPEST:
        raise SpecError(f"the JSON is nested too deeply for an arspec document; allowed: {DEEPEST} levels.")
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates)
    except SpecError:
        raise
    except json.JSONDecodeError as error:
        raise SpecError(
            f"broken or truncated JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except ValueError as error:  # Python reads integers of at most 4300 digits
        raise SpecError(f"a number that cannot be read: {error}.") from None


def _nesting(text: str) -> int:
    """Return how many brackets are open at the deepest place outside of strings."""
    brackets = re.findall(r"[][{}]", re.sub(r'"(?:[^"\\]|\\.)*"?', "", text, flags=re.DOTALL))
    return max(accumulate(1 if bracket in "[{" else -1 for bracket in brackets), default=0)


def _refuse_constant(name: str) -> Any:
    raise SpecError(f"the number {name} is not JSON; expected a finite number.")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [key for key, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise SpecError(f"the key {twice!r} stands twice in one object.")
    return document
