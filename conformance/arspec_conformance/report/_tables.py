"""What all formats of a report show: clauses by mode, and the largest errors."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from arspec_conformance.clauses import CLAUSES

ORDER = ("FAIL", "WAIVED", "QUALITY", "PASS", "UNSUPPORTED", "NOTRUN")
Result = Mapping[str, Any]


def worst(cells: Iterable[Result]) -> str:
    """Return the worst status among some results, "NOTRUN" for none."""
    return min((cell["status"] for cell in cells), key=ORDER.index, default="NOTRUN")


@dataclass(frozen=True, slots=True)
class Row:
    """One clause, and its status in every column."""

    clause: str
    sentence: str
    statuses: tuple[str, ...]


def columns(document: Result) -> list[tuple[str, str]]:
    """Return the pairs (backend, mode) of a report."""
    return [(r["backend"], mode) for r in document["results"] for mode in modes(r)]


def modes(result: Result) -> list[str]:
    """Return the modes of one backend; what is asked once stands in its first."""
    return [mode for mode in dict.fromkeys(cell["mode"] for cell in result["cells"]) if mode != "once"] or ["-"]


def rows(document: Result) -> list[Row]:
    """Return the matrix clause × (backend, mode), each at its worst over dtypes."""
    found: dict[tuple[str, str, str], list[Result]] = {}
    for result in document["results"]:
        first = modes(result)[0]
        for cell in result["cells"]:
            mode = first if cell["mode"] == "once" else cell["mode"]
            found.setdefault((cell["clause"], result["backend"], mode), []).append(cell)
    asked = {key[0] for key in found}
    return [
        Row(clause.id, clause.sentence, tuple(worst(found.get((clause.id, *c), ())) for c in columns(document)))
        for clause in CLAUSES
        if clause.id in asked
    ]


def failures(document: Result) -> list[tuple[str, Result]]:
    """Return the results that failed or were waived, with their backends."""
    listed = [(r["backend"], cell) for r in document["results"] for cell in r["cells"]]
    return [(backend, cell) for backend, cell in listed if cell["status"] in ("FAIL", "WAIVED", "QUALITY")]


@dataclass(frozen=True, slots=True)
class Peak:
    """The largest error of one subject, dtype and mode."""

    backend: str
    subject: str
    dtype: str
    mode: str
    value: float
    gradient: float
    share: float
    case: str
    token: str


def atlas(document: Result) -> list[Peak]:
    """Return the largest errors, in u · S for values and u · |gradient| for gradients, by backend and subject."""
    peaks: dict[tuple[str, str, str, str], list[Result]] = {}
    for result in document["results"]:
        for cell in result["cells"]:
            # Warnings have no bound; kinks and special values are right or wrong, never near.
            if cell["tier"] in "BM" and cell["observed"]:
                subject = cell["clause"].rpartition("-")[0]
                peaks.setdefault((result["backend"], subject, cell["dtype"], cell["mode"]), []).append(cell)
    return [_peak(key, cells) for key, cells in peaks.items()]


def _peak(key: tuple[str, str, str, str], cells: list[Result]) -> Peak:
    def largest(part: str) -> float:
        return max(cell["worst_in_u"].get(part, 0.0) for cell in cells)

    widest = max(cells, key=lambda cell: max(cell["worst_in_u"].values(), default=0.0))
    given = widest["worst_input"] or {"case": "", "token": ""}
    share = max(cell["worst"] for cell in cells)
    return Peak(*key, largest("value"), largest("gradient"), share, given["case"], given["token"])
