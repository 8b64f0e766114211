"""Library: what a check needs to know about a framework, and the check itself, which all share."""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from arspec.port._bundle import Bundle
from arspec.port._certificate import Certificate, certify
from arspec.port._environment import environment
from arspec.port._faults import Fault, plant
from arspec.port._probe import Subject
from arspec.port._source import Written
from arspec.port._target import require_tensors


def _no_faults(bundle: Bundle) -> Iterable[Fault]:
    return ()


@dataclass(frozen=True, slots=True)
class Library:
    """A framework that targets are written for.

    Attributes
    ----------
    name, packages, settings : of the framework, those whose versions belong to a certificate,
        and what else belongs there.
    write, load : of its port, such as `arspec_torch.port.write` and `load`.
    arrays : of a model, by the names of the map.
    subject : makes a `Subject`.
    faults : those that only this framework can have.
    """

    name: str
    packages: tuple[str, ...]
    write: Callable[[Bundle], Written]
    load: Callable[[Path, str, Mapping[str, np.ndarray]], Any]
    arrays: Callable[[Any], Mapping[str, Any]]
    subject: Callable[[Bundle, Written, Any], Subject]
    faults: Callable[[Bundle], Iterable[Fault]] = _no_faults
    settings: Mapping[str, str] = field(default_factory=dict)

    def certificate(
        self, bundle: Bundle, written: Written, model: Any, faults: bool, progress: Callable[[str], None]
    ) -> Certificate:
        """Compare a model with the evidence of a bundle, level by level."""
        held = {name: np.asarray(array) for name, array in self.arrays(model).items()}
        require_tensors(held, written)
        subject = self.subject(bundle, written, model)
        more = self.faults(bundle)
        found = plant(bundle, self._faulty, subject, more=more, progress=progress) if faults else {}
        where = environment(self.name, *self.packages, **self.settings, dtype="float64")
        return certify(bundle, subject, written.weights, held, where, faults=found, progress=progress)

    def build(self, bundle: Bundle, written: Written) -> Any:
        """Return a model of the source code that was written, with the weights of the bundle."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "written.py"
            file.write_text(written.text, encoding="utf-8")
            return self.load(file, written.class_name, written.weights.to_target(bundle.weights))

    def _faulty(self, bundle: Bundle, edit: Callable[[Written], Written]) -> Subject:
        written = edit(self.write(bundle))
        return self.subject(bundle, written, self.build(bundle, written))
