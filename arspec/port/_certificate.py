"""Certificate: what was compared between source and target, level by level, and the verdict."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from arspec.port._bundle import Bundle
from arspec.port._mapping import WeightMap, digest
from arspec.port._probe import Subject, measure, summary

# Relative to the largest entry of a tensor. Float64 on both sides; else what float32 allows.
TOLERANCES = {True: 1e-9, False: 1e-3}
# A tensor that is nearly 0 everywhere (the bias before a batch normalization) is rounding
# noise of the others: its scale is at least this much of the largest in its group.
FLOOR = 1e-4
LEVELS = {
    "L0": "weights",
    "L1": "outputs",
    "L2": "penalties",
    "L3": "gradients",
    "L4": "state after one step",
    "L5": "planted faults",
}
_LEVEL_OF = {"eval": "L1", "train": "L1", "penalty": "L2", "gradient": "L3", "after": "L4"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was compared: its name, its error relative to its scale, and whether it holds."""

    level: str
    name: str
    error: float
    holds: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """The verdict of a port.

    Attributes
    ----------
    findings : everything compared, in order.
    tolerance : the largest relative error that holds.
    divergence : path of the first layer whose result differs, and how much, if outputs do.
    faults : for each planted fault, how it was noticed; "" if it was not.
    environment : of the process that checked.
    source : of the process that exported.
    files : SHA-256 of the files of the bundle.
    """

    findings: tuple[Finding, ...]
    tolerance: float
    divergence: str
    faults: Mapping[str, str]
    environment: Mapping[str, str]
    source: Mapping[str, str]
    files: Mapping[str, str]

    @property
    def holds(self) -> bool:
        """Whether every finding holds and every planted fault was noticed."""
        return all(finding.holds for finding in self.findings) and all(self.faults.values())

    def levels(self) -> dict[str, tuple[int, float, bool]]:
        """Return, by level, how much was compared, the worst error and whether it holds."""
        found = {}
        for level in LEVELS:
            own = [finding for finding in self.findings if finding.level == level]
            if own:
                worst = max((f.error for f in own), key=lambda e: (np.isnan(e), e))
                found[level] = (len(own), float(worst), all(finding.holds for finding in own))
        if self.faults:
            found["L5"] = (len(self.faults), 0.0, all(self.faults.values()))
        return found

    def explain(self) -> str:
        """Return a text that a stranger understands: what differs, where it begins, by how much."""
        wrong = [finding for finding in self.findings if not finding.holds]
        if not wrong:
            missed = [name for name, how in self.faults.items() if not how]
            if missed:
                return f"The certificate is blind: it did not notice {', '.join(missed)}."
            return "Source and target agree."
        lines = []
        for level, title in LEVELS.items():
            own = [finding for finding in wrong if finding.level == level]
            if own:
                of = sum(finding.level == level for finding in self.findings)
                lines.append(f"{level} {title}: {len(own)} of {of} differ.")
                lines += [f"  {f.name}: {_shown(f.error)}{f.note}" for f in own[:5]]
        if self.divergence:
            lines.append(f"The first layer whose result differs is {self.divergence}.")
        return "\n".join(lines)

    def to_document(self) -> dict[str, Any]:
        """Return the certificate as JSON."""
        return {
            "arspec_certificate": 1,
            "holds": self.holds,
            "tolerance": self.tolerance,
            "levels": {
                level: {"what": LEVELS[level], "compared": count, "worst": _number(worst), "holds": holds}
                for level, (count, worst, holds) in self.levels().items()
            },
            "divergence": self.divergence,
            "faults": dict(self.faults),
            "findings": [
                {"level": f.level, "name": f.name, "error": _number(f.error), "holds": f.holds, "note": f.note}
                for f in self.findings
            ],
            "source": dict(self.source),
            "target": dict(self.environment),
            "files": dict(self.files),
        }


def certify(
    bundle: Bundle,
    subject: Subject,
    weight_map: WeightMap,
    target_weights: Mapping[str, np.ndarray],
    environment: Mapping[str, str],
    *,
    faults: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Certificate:
    """Compare a target with the evidence of a bundle.

    Parameters
    ----------
    subject : the target, at the perturbed weights of the bundle.
    weight_map, target_weights : the map, and what the target holds as it was loaded.
    faults : what `plant` found, if it was asked.
    progress : is told what runs.
    """
    tolerance = TOLERANCES[bundle.exact]
    progress("weights")
    findings = list(_weights(bundle, weight_map, target_weights))
    scales = _scales(bundle.evidence)
    pending = {name for name in bundle.evidence if not name.startswith("trace/")}
    for name, array in measure(subject, bundle.probe):
        progress(name)
        findings.append(compare(bundle.evidence, scales, name, array, tolerance))
        pending.discard(name)
    findings += [Finding(_level(name), name, float("inf"), False, ": the target does not have it") for name in pending]
    differs = any(not finding.holds and finding.level in ("L1", "L2") for finding in findings)
    where = divergence(bundle, subject, tolerance) if differs else ""
    return Certificate(
        tuple(findings), tolerance, where, dict(faults or {}), environment, bundle.environment, bundle.files
    )


def first_difference(bundle: Bundle, subject: Subject) -> str:
    """Return how a target differs from the evidence, as soon as something does, or "" if nothing does."""
    tolerance = TOLERANCES[bundle.exact]
    scales = _scales(bundle.evidence)
    for name, array in measure(subject, bundle.probe):
        finding = compare(bundle.evidence, scales, name, array, tolerance)
        if not finding.holds:
            where = divergence(bundle, subject, tolerance) if finding.level in ("L1", "L2") else ""
            at = f", first at {where}" if where else ""
            return f"{finding.level} {finding.name}: {_shown(finding.error)}{at}"
    return ""


def compare(
    evidence: Mapping[str, np.ndarray], scales: Mapping[str, float], name: str, array: np.ndarray, tolerance: float
) -> Finding:
    """Compare one measured tensor with the evidence."""
    level = _level(name)
    expected = evidence.get(name)
    if expected is None:
        return Finding(level, name, float("inf"), False, ": the source does not have it")
    got = summary(array)
    if got.shape != expected.shape:
        return Finding(level, name, float("inf"), False, f": {got.size} entries, {expected.size} in the source")
    scale = max(float(np.abs(expected).max(initial=0.0)), FLOOR * scales[_group(name)])
    error = float(np.abs(got - expected).max(initial=0.0)) / scale if scale else float(np.abs(got).max(initial=0.0))
    return Finding(level, name, error, bool(error <= tolerance))


def divergence(bundle: Bundle, subject: Subject, tolerance: float) -> str:
    """Return the path of the first layer whose result differs in evaluation, and by how much."""
    for path, array in subject.trace(bundle.probe.inputs["b"]):
        expected = bundle.evidence.get(f"trace/{path}")
        if expected is None:
            continue
        got = summary(array)
        scale = float(np.abs(expected).max(initial=0.0)) or 1.0
        if got.shape != expected.shape:
            return f"{path!r}, whose shape {array.shape} is another"
        error = float(np.abs(got - expected).max(initial=0.0)) / scale
        if not error <= tolerance:
            return f"{path!r}, {_shown(error)}"
    return ""


def _weights(bundle: Bundle, weight_map: WeightMap, target: Mapping[str, np.ndarray]) -> Iterable[Finding]:
    """Compare bit by bit: what the target holds, moved back, with what the bundle holds."""
    weight_map.require_bijective(bundle.shapes)
    expected = bundle.weights
    got = weight_map.to_canonical(target, bundle.shapes) if weight_map.invertible else {}
    if not weight_map.invertible:  # sums cannot be taken apart: compare what the target should hold
        expected, got = weight_map.to_target(bundle.weights), dict(target)
    for name, weight in expected.items():
        held = got.get(name)
        if held is None or held.shape != weight.shape:
            note = ": the target does not have it" if held is None else f": shape {held.shape}, not {weight.shape}"
            yield Finding("L0", name, float("inf"), False, note)
        else:
            same = digest(np.asarray(held, weight.dtype)) == digest(weight)
            error = 0.0 if same else float(np.abs(held.astype(np.float64) - weight).max(initial=0.0))
            yield Finding("L0", name, error, same)


def _level(name: str) -> str:
    return _LEVEL_OF[name.partition("/")[0]]


def _group(name: str) -> str:
    parts = name.split("/")
    return "/".join(parts[:2]) if parts[0] in ("gradient", "penalty") else parts[0]


def _scales(evidence: Mapping[str, np.ndarray]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, array in evidence.items():
        group = _group(name)
        found[group] = max(found.get(group, 0.0), float(np.abs(array).max(initial=0.0)))
    return found


def _shown(error: float) -> str:
    return "missing or of another shape" if error == float("inf") else f"off by {error:.1e} of its scale"


def _number(error: float) -> float | str:
    return error if np.isfinite(error) else str(error)
