"""What every dialect has in common: reading into a Spec, writing back, and what is refused."""

import math
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from numbers import Real
from typing import Any, TypeVar

from arspec._axes import MeanOver
from arspec._errors import SpecError, UnsupportedError, shown, unknown
from arspec._rule import Rule
from arspec._spec import Spec
from arspec.penalties import L1L2, Penalty, Sum


class DialectWarning(UserWarning):
    """A foreign document says something that its own framework does not do."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One thing that has no exact counterpart, and why."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What became of a document or of rules.

    Attributes
    ----------
    result : a Spec (reading) or a document of plain dicts and lists (writing); it holds
        what could be converted.
    refused : what could not.
    notes : what was converted, but may surprise.
    """

    result: Any
    refused: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()


class Dialect:
    """A foreign way to write regularization.

    Attributes
    ----------
    name : what `dialect(name)` and the command line call it.
    about : the convention in one line.
    """

    __slots__ = ()
    name: str
    about: str

    def reading(self, document: Any) -> Conversion:
        """Translate a document as far as it goes; the result is a Spec."""
        raise NotImplementedError

    def writing(self, rules: Rule | Iterable[Rule]) -> Conversion:
        """Translate rules as far as they go; the result is a document."""
        raise NotImplementedError

    def read(self, document: Any) -> Spec:
        """Translate a document into the Spec that means the same.

        Raises
        ------
        SpecError: the document is not one of this dialect.
        UnsupportedError: a part of it has no exact counterpart; the text lists all of them.

        Warns
        -----
        DialectWarning: the framework itself ignores something that the document says.
        """
        conversion = self.reading(document)
        for note in conversion.notes:
            warnings.warn(note, DialectWarning, stacklevel=2)
        return _whole(self, conversion, "read")

    def write(self, rules: Rule | Iterable[Rule]) -> dict[str, Any]:
        """Translate rules, or a Spec, into a document that means the same.

        Raises
        ------
        UnsupportedError: a rule has no exact counterpart; the text lists all of them.
        """
        return _whole(self, self.writing(rules), "write")


def _whole(dialect: Dialect, conversion: Conversion, verb: str) -> Any:
    if conversion.refused:
        listed = "\n".join(f"  {refusal}" for refusal in conversion.refused)
        raise UnsupportedError(f"{dialect.name} cannot {verb} this exactly:\n{listed}")
    return conversion.result


Item = TypeVar("Item")
Result = TypeVar("Result")


def collect(
    items: Iterable[tuple[str, Item]], convert: Callable[[Item], Iterable[Result]]
) -> tuple[list[Result], tuple[Refusal, ...]]:
    """Convert named items one by one; what raises UnsupportedError is refused, with its text as the reason."""
    results: list[Result] = []
    refused = []
    for what, item in items:
        try:
            results += convert(item)
        except UnsupportedError as error:
            refused.append(Refusal(what, str(error)))
    return results, tuple(refused)


def named_rules(rules: Rule | Iterable[Rule]) -> list[tuple[str, Rule]]:
    """Return rules with the names that refusals call them by."""
    spec = rules if isinstance(rules, Spec) else Spec([rules] if isinstance(rules, Rule) else rules)
    return [(f"rules[{i}] ({rule.layer}/{rule.key})", rule) for i, rule in enumerate(spec.rules)]


def simple_parts(penalty: Penalty) -> list[Penalty]:
    """Split a sum into simple penalties that carry the whole coefficient."""
    summands = penalty.summands if isinstance(penalty, Sum) else ((1.0, penalty),)
    return [_scaled(part, factor) for factor, part in summands]


def _scaled(penalty: Penalty, factor: float) -> Penalty:
    if factor == 1:
        return penalty
    names = ("l1", "l2") if isinstance(penalty, L1L2) else ("coefficient",)
    if not is_dataclass(penalty) or not {f.name for f in fields(penalty)}.issuperset(names):
        raise UnsupportedError(f"{penalty!r} has no coefficient that its factor {factor!r} could go into.")
    return replace(penalty, **{name: factor * getattr(penalty, name) for name in names})


def refuse_schedule(rule: Rule) -> None:
    """Raise for a rule with a schedule, `when` or `trainable_only`: none of the foreign forms holds one."""
    if rule.schedule is not None:
        raise UnsupportedError(f"its coefficient follows {rule.schedule!r}; this form holds constants only.")
    if rule.when != "always":
        raise UnsupportedError(f"it says when={rule.when!r}; this form cannot.")
    if rule.trainable_only:
        raise UnsupportedError("it says trainable_only=True; this form cannot.")


def may_overlap(one: Rule, other: Rule) -> bool:
    """Return whether two rules of one placement, written with different layers, may meet the same layer."""
    if one.placement != other.placement or one.layer == other.layer:
        return False
    return any(sign in rule.layer for rule in (one, other) for sign in "*?")


def same_mean(one: MeanOver, other: MeanOver) -> bool:
    """Return whether two reductions are the same, the order of the axes aside."""
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return set(one) == set(other)


def half(name: str, number: Any) -> float:
    """Return number / 2, exactly."""
    halved = require_coefficient(name, number) / 2
    if halved * 2 != number:
        raise UnsupportedError(f"{name}={number!r}: half of it is not a float64.")
    return halved


def double(name: str, number: float) -> float:
    """Return 2 · number, exactly."""
    if math.isinf(2 * number):
        raise UnsupportedError(f"{name} would be twice {number!r}, which is beyond float64.")
    return 2 * number


def require_coefficient(name: str, number: Any) -> float:
    """Return a foreign coefficient as a float; a number given as text, or a bool, is refused."""
    if isinstance(number, bool) or not isinstance(number, Real) or not _in_range(number):
        raise SpecError(f"{name}={shown(number)}; expected a finite number >= 0.")
    return abs(float(number))  # -0.0 is 0.0


def _in_range(number: Any) -> bool:
    return 0 <= number <= sys.float_info.max


def require_keys(document: Mapping[str, Any], *allowed: str) -> None:
    """Raise for a key that nothing would read."""
    for key in document:
        if key not in allowed:
            raise unknown("key", key, allowed)
