"""Dialects whose documents are lists of named terms, each with a layer and a few numbers.

A document is `{"dialect": "tf-slim", "terms": [{"regularizer": "l2_regularizer",
"layer": "**", "placement": "kernel", "scale": 0.001}]}`. The key that names the term is the
dialect's own: "regularizer", "optimizer", "loss".
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from arspec._axes import MEAN, MeanOver, parse_mean_over
from arspec._errors import SpecError, UnsupportedError, did_you_mean, shown, unknown
from arspec._placements import PARAMETERS
from arspec._rule import Rule
from arspec._spec import Spec, at
from arspec.dialects._dialect import (
    Conversion,
    Dialect,
    collect,
    double,
    half,
    may_overlap,
    named_rules,
    refuse_schedule,
    require_coefficient,
    require_keys,
    same_mean,
    simple_parts,
)
from arspec.penalties import L1, L1L2, L2, Penalty

EVERY_PARAMETER = tuple(PARAMETERS)
SUMMED: tuple[MeanOver, ...] = ((),)
# Sum over the features, mean over every other axis; what the rows of a data set of
# activations are called is up to the model.
PER_EXAMPLE: tuple[MeanOver, ...] = (("batch",), ("batch", "time"))
EVERYWHERE: tuple[MeanOver, ...] = (MEAN, ("batch", "time", "feature"))


@dataclass(frozen=True, slots=True)
class Term:
    """One foreign term: an equation, the numbers in it, and where it may stand.

    Attributes
    ----------
    name : the foreign name.
    equation : what the foreign code computes, in one line.
    penalty : makes the penalty of the foreign numbers, given by keyword.
    numbers : gives the foreign numbers of a simple penalty, or None where it is another.
    required : names of the foreign numbers.
    optional : further ones, with the foreign defaults.
    placements : where the term may stand; the first is meant where none is written, unless it
        is a parameter.
    means : the reductions the term may have; the first is meant where none is written.
    """

    name: str
    equation: str
    penalty: Callable[..., Penalty]
    numbers: Callable[[Penalty], dict[str, Any] | None]
    required: tuple[str, ...]
    optional: Mapping[str, Any] = field(default_factory=dict)
    placements: tuple[str, ...] = EVERY_PARAMETER
    means: tuple[MeanOver, ...] = SUMMED

    def has_mean(self, mean_over: MeanOver) -> bool:
        """Return whether the term can be averaged like this, the order of the axes aside."""
        return any(same_mean(mean_over, mine) for mine in self.means)


def proportional(name: str, cls: type[L1] | type[L2], number: str, *, halved: bool = False, **where: Any) -> Term:
    """Make the term `number · Σ|x|`, `number · Σx²` or, `halved`, `number · ½Σx²`."""
    body = "|x|" if cls is L1 else "x²"

    def penalty(**numbers: Any) -> Penalty:
        given = numbers[number]
        return cls(half(number, given) if halved else require_coefficient(number, given))

    def numbers(penalty: Penalty) -> dict[str, Any] | None:
        if type(penalty) is not cls:
            return None
        return {number: double(number, penalty.coefficient) if halved else penalty.coefficient}

    equation = f"{number} · {'½' if halved else ''}Σ{body}"
    return Term(name, equation, penalty, numbers, (number,), **where)


@dataclass(frozen=True, slots=True)
class TermDialect(Dialect):
    """A dialect that is a table of terms.

    Attributes
    ----------
    key : what names the term in a document.
    table : the terms it has.
    refused : foreign terms that have no exact counterpart, each with the reason.
    single : whether a parameter may be met by one term only.
    """

    name: str
    about: str
    key: str
    table: tuple[Term, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    single: bool = False

    def rule(
        self, term: str, /, *, layer: str, placement: str | None = None, mean_over: Any = None, **numbers: Any
    ) -> Rule:
        """Return the rule that means what the foreign `term` means.

        Parameters
        ----------
        term : the foreign name, such as "l2_regularizer".
        layer : path of a layer or a glob, as in a Rule.
        placement, mean_over : as in a Rule; None for what the term itself says.
        numbers : the foreign numbers, such as `scale=0.001`.

        Raises
        ------
        SpecError: no such term, number or placement.
        UnsupportedError: the term has no exact counterpart; the text says why.
        """
        known = self._term(term)
        allowed = [*known.required, *known.optional]
        for name in numbers:
            if name not in allowed:
                raise SpecError(f"{term} has no {name!r}; it has {', '.join(allowed)}.{did_you_mean(name, allowed)}")
        for name in known.required:
            if name not in numbers:
                raise SpecError(f"{term} needs {name!r}; it is {known.equation}.")
        where = self._placement(known, placement)
        mean = known.means[0] if mean_over is None else parse_mean_over(mean_over)
        if not known.has_mean(mean):
            raise SpecError(f"mean_over={mean_over!r}; {term} has {_listed(known.means)}.")
        return Rule(known.penalty(**{**known.optional, **numbers}), layer=layer, placement=where, mean_over=mean)

    def reading(self, document: Any) -> Conversion:
        if not isinstance(document, Mapping) or not isinstance(document.get("terms"), list):
            raise SpecError(f'got {shown(document)}; expected {{"dialect": "{self.name}", "terms": [...]}}.')
        require_keys(document, "dialect", "terms")
        said = document.get("dialect", self.name)
        if said != self.name:
            raise SpecError(f"the document says that its dialect is {said!r}, not {self.name!r}.")
        items = [(f"terms[{i}]", (f"terms[{i}]", entry)) for i, entry in enumerate(document["terms"])]
        rules, refused = collect(items, self._read_entry)
        return Conversion(Spec(rules), refused)

    def writing(self, rules: Rule | Iterable[Rule]) -> Conversion:
        named = named_rules(rules)
        crowded = _crowded(named) if self.single else {}

        def convert(item: tuple[str, Rule]) -> list[dict[str, Any]]:
            what, rule = item
            if what in crowded:
                raise UnsupportedError(crowded[what])
            return self._write_rule(rule)

        entries, refused = collect([(what, (what, rule)) for what, rule in named], convert)
        return Conversion({"dialect": self.name, "terms": entries}, refused)

    def _term(self, name: Any) -> Term:
        if name in tuple(self.refused):
            raise UnsupportedError(f"{name}: {self.refused[name]}")
        for term in self.table:
            if term.name == name:
                return term
        raise unknown(f"{self.key} of {self.name}", name, [*(term.name for term in self.table), *self.refused])

    def _placement(self, term: Term, placement: str | None) -> str:
        if placement is None:
            if term.placements[0] in PARAMETERS:
                raise SpecError(f"{term.name} needs a placement, such as 'kernel'; none of them goes without saying.")
            return term.placements[0]
        if placement not in term.placements:
            raise unknown(f"placement of {term.name}", placement, term.placements)
        return placement

    def _read_entry(self, item: tuple[str, Any]) -> list[Rule]:
        path, entry = item
        with at(path):
            if not isinstance(entry, Mapping) or self.key not in entry:
                raise SpecError(f"got {shown(entry)}; expected an object with the key {self.key!r}.")
            term = self._term(entry[self.key])
            if "layer" not in entry:
                raise SpecError("no key 'layer'; expected the path of a layer or a glob, such as '**'.")
            return [self.rule(term.name, **{key: value for key, value in entry.items() if key != self.key})]

    def _write_rule(self, rule: Rule) -> list[dict[str, Any]]:
        refuse_schedule(rule)
        return [entry for part in simple_parts(rule.penalty) for entry in self._write_part(rule, part)]

    def _write_part(self, rule: Rule, part: Penalty) -> list[dict[str, Any]]:
        reasons = []
        for term in self.table:
            numbers = term.numbers(part)
            if numbers is None:
                continue
            reason = _misplaced(term, rule)
            if reason is None:
                where = {self.key: term.name, "layer": rule.layer, "placement": rule.placement}
                mean = {"mean_over": rule.mean_over_document()} if len(term.means) > 1 else {}
                return [{**where, **mean, **numbers}]
            reasons.append(reason)
        if not reasons and isinstance(part, L1L2):
            return [entry for half in (L1(part.l1), L2(part.l2)) for entry in self._write_part(rule, half)]
        names = ", ".join(term.name for term in self.table)
        raise UnsupportedError(" ".join(reasons) or f"there is no term for {part!r}; there is {names}.")


def _misplaced(term: Term, rule: Rule) -> str | None:
    """Return why the rule stands where the term cannot, or None."""
    if rule.placement not in term.placements:
        return f"{term.name} stands at {', '.join(term.placements)}, not at {rule.placement}."
    if not term.has_mean(rule.mean_over):
        return f"{term.name} has {_listed(term.means)}, this rule mean_over={rule.mean_over_document()!r}."
    return None


def _crowded(named: list[tuple[str, Rule]]) -> dict[str, str]:
    """Find rules that may meet the same parameter."""
    reasons = {}
    for i, (what, rule) in enumerate(named):
        others = [other for j, (_, other) in enumerate(named) if j != i]
        if any(other.layer == rule.layer and other.placement == rule.placement for other in others) or any(
            may_overlap(rule, other) for other in others
        ):
            reasons[what] = "another rule may meet the same parameter, which can be in one group only; add them up."
    return reasons


def _listed(means: Iterable[MeanOver]) -> str:
    return " or ".join(f"mean_over={mean if isinstance(mean, str) else list(mean)!r}" for mean in means)
