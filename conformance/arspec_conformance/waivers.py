"""Waivers: failures that someone knows of, with an issue, a reason and a day on which they end.

A file is JSON: {"waivers": [{"clause": "L1-K1", "backend": "torch", "issue": "https://...",
"reason": "...", "expires": "2027-01-31"}]}; "mode" and "dtype" narrow a waiver down. A waiver
that has expired, or that meets no failure, is stale, and stale is an error.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from arspec import SpecError
from arspec_conformance.clauses import CLAUSES
from arspec_conformance.matrix import Column
from arspec_conformance.runner import FAIL, NOTRUN, UNSUPPORTED, WAIVED


@dataclass(frozen=True, slots=True)
class Waiver:
    """One known failure.

    Attributes
    ----------
    clause : id of a clause; "*" stands for anything.
    backend : name of the backend.
    issue : address of the issue where it is tracked.
    reason : why it is accepted for now.
    expires : the last day on which it counts.
    mode, dtype : which ones; "*" stands for anything.
    """

    clause: str
    backend: str
    issue: str
    reason: str
    expires: date
    mode: str = "*"
    dtype: str = "*"

    def meets(self, backend: str, cell: Mapping[str, Any]) -> bool:
        """Return whether a result is what it speaks of."""
        given = ((cell["clause"], self.clause), (backend, self.backend), (cell["mode"], self.mode))
        return all(fnmatchcase(got, pattern) for got, pattern in (*given, (cell["dtype"], self.dtype)))


def read_waivers(path: Path) -> tuple[Waiver, ...]:
    """Read a file of waivers.

    Raises
    ------
    SpecError: names the waiver, what is missing or wrong, and what is expected.
    OSError: the file cannot be read.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SpecError(f"{path}: not JSON: {error}") from None
    listed = document.get("waivers") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise SpecError(f'{path}: expected an object with a list "waivers".')
    return tuple(_read(entry, f"{path}: waivers[{index}]") for index, entry in enumerate(listed))


def apply(waivers: Sequence[Waiver], columns: Iterable[Column], today: date) -> list[str]:
    """Mark the failures that are waived, and return what is stale."""
    stale, used = [], set()
    for column in columns:
        for cell in column.cells:
            met = [w for w in waivers if cell["status"] == FAIL and w.meets(column.name, cell) and w.expires >= today]
            if met:
                used.update(met)
                cell["status"] = WAIVED
                cell["waiver"] = {"issue": met[0].issue, "reason": met[0].reason, "expires": str(met[0].expires)}
    for waiver in waivers:
        about = f"{waiver.clause} on {waiver.backend} ({waiver.issue})"
        if waiver.expires < today:
            stale.append(f"the waiver of {about} expired on {waiver.expires}.")
        elif waiver not in used and _was_asked(waiver, columns):
            stale.append(f"the waiver of {about} meets no failure; remove it.")
    return stale


def _was_asked(waiver: Waiver, columns: Iterable[Column]) -> bool:
    skipped = (UNSUPPORTED, NOTRUN)
    return any(waiver.meets(c.name, cell) and cell["status"] not in skipped for c in columns for cell in c.cells)


def _read(entry: Any, where: str) -> Waiver:
    required = ("clause", "backend", "issue", "reason", "expires")
    allowed = [field.name for field in fields(Waiver)]
    if not isinstance(entry, dict) or not all(isinstance(value, str) and value.strip() for value in entry.values()):
        raise SpecError(f"{where} is {entry!r}; expected an object of texts with {', '.join(required)}.")
    wrong = [f"lacks {key!r}" for key in required if key not in entry]
    wrong += [f"has an unknown key {key!r}" for key in entry if key not in allowed]
    if wrong:
        raise SpecError(f"{where} {', '.join(wrong)}; allowed: {', '.join(allowed)}.")
    if not entry["issue"].startswith(("https://", "http://")):
        raise SpecError(f"{where}.issue={entry['issue']!r}; expected the address of an issue.")
    if not any(fnmatchcase(clause.id, entry["clause"]) for clause in CLAUSES):
        raise SpecError(f"{where}.clause={entry['clause']!r} is no clause; `arspec conformance list` shows them.")
    try:
        expires = date.fromisoformat(entry["expires"])
    except ValueError:
        raise SpecError(f"{where}.expires={entry['expires']!r}; expected a day such as 2027-01-31.") from None
    return Waiver(**{**entry, "expires": expires})
