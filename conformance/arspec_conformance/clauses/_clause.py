"""What a clause is: one sentence of the specification, and the check that can refute it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from arspec import SPEC_VERSION
from arspec_conformance.family import FAMILY, Member

TIERS = {
    "E": "exact: inputs on which nothing is rounded; every bit",
    "K": "kinks: where a gradient is a decision",
    "B": "bounded: within the error that float32 arithmetic may make, with sums in any order",
    "Q": "quality: within the error of a pairwise sum; a miss is a warning",
    "S": "special values: NaN, infinities, empty, masked, the ends of the range",
    "M": "modes: the same number again, whatever ran before, and the chain rule",
    "I": "identical: every bit of the definition on any input, where an adapter claims it",
    "P": "placement: the right tensor of a model, its value and the gradients it sends",
    "R": "round trip: a penalty or a spec through JSON",
}


@dataclass(frozen=True, slots=True)
class Clause:
    """One normative sentence.

    Attributes
    ----------
    id : such as "L1-K2": what it is about, the tier, a number. Never reused.
    sentence : what an adapter does.
    tier : a key of TIERS.
    check : puts questions on a bench; raises Violation where an answer is wrong.
    subject : the label of a penalty in the family, or "" for what is about none.
    level : 1 is measured everywhere, 2 and 3 where there is time.
    needs : the capabilities without which it is not asked.
    dtypes : the dtypes it is about, or None for all.
    must : whether a miss is a failure; else it is a warning.
    once : whether it is asked once, not per mode and dtype.
    since : the version of the specification that brought it.
    """

    id: str
    sentence: str
    tier: str
    check: Callable[[Any], None]
    subject: str = ""
    level: int = 2
    needs: tuple[str, ...] = ()
    dtypes: tuple[str, ...] | None = None
    must: bool = True
    once: bool = False
    since: str = SPEC_VERSION


def class_name(member: Member) -> str:
    """Return the name of the penalty's class, with which the ids of its clauses begin."""
    return type(member.penalty).__name__


def by_class() -> dict[str, tuple[Member, ...]]:
    """Return the members of the family by the class of their penalty."""
    found: dict[str, tuple[Member, ...]] = {}
    for member in FAMILY:
        found[class_name(member)] = (*found.get(class_name(member), ()), member)
    return found
