"""The page of the specification, made from the clauses: no sentence without a check."""

from arspec import SPEC_VERSION
from arspec_conformance.clauses import CLAUSES, TIERS, Clause
from arspec_conformance.traps import TRAPS

HEAD = """# The specification, clause by clause

Version {version}. Made from the clauses of the suite by `arspec conformance list --markdown`; do
not edit. Each sentence is what an adapter does, and each has a check that can refute it:
`arspec conformance run --clauses {example}` runs the checks of one of them.
"""


def specification() -> str:
    """Return the page as Markdown."""
    lines = [HEAD.format(version=SPEC_VERSION, example="L1-K1"), "| tier | asks |", "|---|---|"]
    lines += [f"| {tier} | {meaning} |" for tier, meaning in TIERS.items()]
    for subject in dict.fromkeys(_subject(clause) for clause in CLAUSES):
        lines += ["", f"## {subject}", "", "| clause | an adapter does this |", "|---|---|"]
        lines += [_row(clause) for clause in CLAUSES if _subject(clause) == subject]
    lines += [
        "",
        "## Traps",
        "",
        "Where it goes wrong elsewhere, and what proves that it does not here.",
        "",
    ]
    lines += ["| row | elsewhere | arspec is | clauses |", "|---|---|---|---|"]
    lines += [f"| {t.id} | {_cell(t.sentence)} | {t.stance} | {', '.join(t.clauses)} |" for t in TRAPS]
    return "\n".join(lines) + "\n"


def _subject(clause: Clause) -> str:
    return clause.id.rpartition("-")[0]


def _row(clause: Clause) -> str:
    notes = [] if clause.must else ["a miss is a warning"]
    notes += [f"needs: {', '.join(clause.needs)}"] if clause.needs else []
    remark = f" *({'; '.join(notes)})*" if notes else ""
    return f"| {clause.id} | {_cell(clause.sentence)}{remark} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
