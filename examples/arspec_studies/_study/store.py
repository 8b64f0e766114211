"""The results of a study on disk: one JSON object per line, which a crash cannot spoil.

A line is written by one call, at the end of the file; what a crash leaves of a line is
dropped when the file is read. A result counts for as long as the spec file it was trained
with is the same, to the byte.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arspec import SpecError
from arspec_studies._study.runs import Run
from arspec_studies._study.study import Study

NAME = "results.jsonl"


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one run.

    Attributes
    ----------
    study, framework, quick : what was asked.
    run : which of the runs it is.
    spec : the first digits of the SHA-256 of the spec file.
    metrics : what `measure` gave.
    shown : what `show` gave, or None.
    """

    study: str
    framework: str
    quick: bool
    run: Run
    spec: str
    metrics: dict[str, float]
    shown: Any = None


def digest(study: Study, variant: str) -> str:
    """Return what identifies a spec file."""
    return hashlib.sha256(study.path(variant).read_bytes()).hexdigest()[:16]


class Store:
    """The results in a folder, of all frameworks.

    Parameters
    ----------
    folder : it is made if it is not there.
    study, quick : rows of other studies, of the other length, or of another spec are left out.

    Raises
    ------
    SpecError: a line is not what this class writes.
    """

    def __init__(self, folder: Path, study: Study, *, quick: bool) -> None:
        self.path = folder / NAME
        self._study, self._quick = study, quick
        folder.mkdir(parents=True, exist_ok=True)
        self._rows = [_row(line, f"{self.path}:{n}") for n, line in enumerate(self._whole_lines(), 1)]

    def rows(self, framework: str | None = None) -> list[Row]:
        """Return the rows that count, of one framework or of all, each run once: the last one written."""
        current = {variant.name: digest(self._study, variant.name) for variant in self._study.variants}
        found = {
            (row.framework, row.run): row
            for row in self._rows
            if (row.study, row.quick) == (self._study.name, self._quick) and current.get(row.run.variant) == row.spec
        }
        return [row for row in found.values() if framework in (None, row.framework)]

    def forget(self, framework: str) -> None:
        """Drop the rows of a framework, all at once: the file is replaced."""
        self._rows = [row for row in self._rows if row.framework != framework]
        partial = self.path.with_name(f".{NAME}.{os.getpid()}.partial")
        partial.write_text("".join(_line(row) for row in self._rows), encoding="utf-8")
        os.replace(partial, self.path)

    def add(self, framework: str, run: Run, metrics: dict[str, float], shown: Any = None) -> None:
        """Append the result of a run."""
        row = Row(self._study.name, framework, self._quick, run, digest(self._study, run.variant), metrics, shown)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, _line(row).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._rows.append(row)

    def _whole_lines(self) -> list[str]:
        """Read the file; cut off what follows the last line end, so that the next line starts anew."""
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(self.path, len(whole))
        return whole.decode().splitlines()


def _line(row: Row) -> str:
    return json.dumps(asdict(row), allow_nan=False) + "\n"


def _row(line: str, place: str) -> Row:
    try:
        fields = json.loads(line)
        return Row(**{**fields, "run": Run(**fields["run"])})
    except (ValueError, TypeError, KeyError) as error:
        raise SpecError(f"{place}: not a result of `arspec study` ({error}); delete the line, or the file.") from None
