"""The clauses: the specification as data, each sentence with the check that can refute it."""

from arspec_conformance.clauses import _kinks, _layers, _numbers, _placements, _special
from arspec_conformance.clauses._clause import TIERS as TIERS
from arspec_conformance.clauses._clause import Clause as Clause
from arspec_conformance.clauses._clause import by_class


def _all() -> tuple[Clause, ...]:
    found = [clause for members in by_class().values() for clause in _numbers.clauses(members)]
    found += [clause for members in by_class().values() for clause in _special.clauses(members)]
    found += [*_kinks.clauses(), *_placements.clauses(), *_layers.clauses()]
    return tuple(sorted(found, key=lambda clause: (_subject_order(clause), list(TIERS).index(clause.tier))))


def _subject_order(clause: Clause) -> int:
    names = list(by_class())
    name = clause.id.rpartition("-")[0]
    return names.index(name) if name in names else len(names)


CLAUSES: tuple[Clause, ...] = _all()
