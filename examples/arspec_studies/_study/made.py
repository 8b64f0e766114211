"""How the results in a folder were made: command, versions and time of every framework, kept beside them."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from arspec import SpecError

NAME = "made.json"


@dataclass(frozen=True, slots=True)
class Made:
    """How the results of one framework were made.

    Attributes
    ----------
    command : what was typed.
    versions : of packages.
    note : what a reader must know besides.
    seconds : wall-clock time of all runs that trained something.
    jobs : processes at a time.
    """

    command: str
    versions: dict[str, str]
    note: str
    seconds: float
    jobs: int

    def __str__(self) -> str:
        parts = [", ".join(f"{package} {version}" for package, version in self.versions.items()), self.note]
        processes = f"{self.jobs} processes" if self.jobs > 1 else "one process"
        return "; ".join([*filter(None, parts), f"{self.seconds:.0f} s with {processes}"])


def known(folder: Path, *, quick: bool) -> dict[str, Made]:
    """Return what is known of the results in a folder, by framework.

    Raises
    ------
    SpecError: the file is not what this module writes.
    """
    return {key.removesuffix(_end(quick)): made for key, made in _read(folder).items() if key.endswith(_end(quick))}


def add(folder: Path, framework: str, made: Made, *, quick: bool, resume: bool) -> None:
    """Keep how a framework was run, instead of what was known of it; a resumed run adds its time to that."""
    kept = _read(folder)
    key = framework + _end(quick)
    if resume and key in kept:
        made = replace(made, seconds=kept[key].seconds + made.seconds)
    document = {name: asdict(one) for name, one in {**kept, key: made}.items()}
    partial = folder / f".{NAME}.{os.getpid()}.partial"
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, folder / NAME)


def _end(quick: bool) -> str:
    return ", quick" if quick else ", full"


def _read(folder: Path) -> dict[str, Made]:
    path = folder / NAME
    if not path.exists():
        return {}
    try:
        return {name: Made(**fields) for name, fields in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise SpecError(f"{path}: not what `arspec study` writes ({error}); delete the file.") from None
