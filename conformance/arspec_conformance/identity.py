"""The identity matrix: penalty × dtype × mode, each cell compared with the definition in NumPy.

A cell counts elements and says how far the worst one is off, in units in the last place.
Where identity is claimed, one different bit fails the cell; float64 through log, exp, tanh,
a general power or a product of matrices is held to the derived bound of `bounds`. A cell that compared nothing
fails.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

import arspec as ar
from arspec._axes import resolve_axes
from arspec._evaluate import with_mask
from arspec._numpy import NumpyNamespace
from arspec_conformance._adapter import Adapter, Mode
from arspec_conformance.bits import ulp_distance
from arspec_conformance.bounds import allowed_distance
from arspec_conformance.cases import DTYPES, Case, Group, groups, options
from arspec_conformance.family import BOUNDED, Member

PROFILES = ("quick", "standard", "full")
SAMPLE = ("l1_l2", "group_lasso feature", "hoyer", "tanh", "sum")


@dataclass(slots=True)
class Part:
    """The value or the gradient of one cell.

    Attributes
    ----------
    claim : "identical" or "bounded".
    compared, different : elements.
    worst_ulp : the largest distance, in units in the last place of the dtype.
    worst_of_bound : for "bounded" the largest distance as a share of what is allowed.
    worst : the case, the index and both numbers of the worst element, where one differs.
    """

    claim: str
    compared: int = 0
    different: int = 0
    worst_ulp: int = 0
    worst_of_bound: float = 0.0
    worst: dict[str, Any] | None = None

    @property
    def holds(self) -> bool:
        """Whether the claim holds and something was compared."""
        within = self.worst_of_bound <= 1 if self.claim == BOUNDED else self.different == 0
        return self.compared > 0 and within


@dataclass(slots=True)
class Cell:
    """One penalty in one dtype in one mode of one adapter."""

    penalty: str
    dtype: str
    mode: str
    value: Part
    gradient: Part
    groups: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether both claims hold and nothing was raised."""
        return not self.errors and self.value.holds and self.gradient.holds

    def to_document(self) -> dict[str, Any]:
        """Return the cell as JSON values, with the verdict."""
        return {**asdict(self), "holds": self.holds}


def measure(
    adapter: Adapter, members: Sequence[Member], dtypes: Sequence[str], device: str, profile: str
) -> Iterator[Cell]:
    """Yield the cells of some penalties, one by one; which ones `depth` says."""
    served = [dtype for dtype in DTYPES if dtype in dtypes and dtype in adapter.dtypes(device)]
    for member, dtype in itertools.product(members, served):
        known = [g for g in groups(member, dtype) if g.needs is None or g.needs in adapter.capabilities()]
        expected: dict[int, _Expected] = {}
        for mode in adapter.modes():
            level = depth(profile, mode, member, dtype) if dtype in (mode.dtypes or served) else 0
            if level:
                yield _cell(adapter, member, dtype, mode, device, [g for g in known if g.level <= level], expected)


def count(adapter: Adapter, members: Sequence[Member], dtypes: Sequence[str], device: str, profile: str) -> int:
    """Return how many cells `measure` will yield."""
    served = [dtype for dtype in dtypes if dtype in adapter.dtypes(device)]
    cells = itertools.product(members, served, adapter.modes())
    return sum(t in (mode.dtypes or served) and depth(profile, mode, m, t) > 0 for m, t, mode in cells)


def depth(profile: str, mode: Mode, member: Member, dtype: str) -> int:
    """Return up to which level a cell runs the groups of cases; 0 where it is not measured.

    Every profile measures every penalty and dtype in the modes that compile nothing. A mode
    that compiles gets fewer shapes; a costly one one shape, and beyond float32 (in "quick"
    in float32 too) only the penalties of SAMPLE.
    """
    if member.of_kernel and not mode.sizes_known:
        return 0
    first, sampled = dtype == "float32", member.label in SAMPLE
    if profile == "full":
        return (3, 3, 2)[mode.cost]
    if profile == "standard":
        return (3, 2 if first else 1, int(first or sampled))[mode.cost]
    return (2, int(first or sampled), int(first and sampled))[mode.cost]


class _Expected:
    """What the reference says about a case, and for float64 how far one may be off."""

    def __init__(self, member: Member, case: Case) -> None:
        given = options(case)
        self.value = np.asarray(ar.value(member.penalty, case.x, **given, mask=case.mask))
        self.gradient = ar.gradient(member.penalty, case.x, **given, mask=case.mask, cotangent=case.cotangent)
        self.allowed: dict[str, np.ndarray] = {}
        if case.x.dtype == np.float64 and member.inexact and case.x.size:
            axes = resolve_axes(case.x.ndim, case.axes, case.mean_over)
            axes = with_mask(axes, case.mask, case.x, NumpyNamespace())
            bounds = allowed_distance(member.penalty, case.x, axes, case.cotangent)
            self.allowed = dict(zip(("value", "gradient"), bounds, strict=True))


def _cell(
    adapter: Adapter,
    member: Member,
    dtype: str,
    mode: Mode,
    device: str,
    chosen: list[Group],
    expected: "dict[int, _Expected]",
) -> Cell:
    parts = {name: Part(member.claim(name, dtype)) for name in ("value", "gradient")}
    cell = Cell(member.label, dtype, mode.name, *parts.values(), groups=[group.name for group in chosen])
    for case in (case for group in chosen for case in group.cases):
        if id(case) not in expected:
            expected[id(case)] = _Expected(member, case)
        reference = expected[id(case)]
        try:
            got = _run(adapter, member, case, dtype, mode.name, device)
        except Exception as error:  # whatever an engine raises is a finding, not the end of the run
            cell.errors.append(f"{case.name}: {type(error).__name__}: {error}"[:500])
            continue
        for (name, part), array in zip(parts.items(), got, strict=True):
            refused = _compare(part, case.name, array, getattr(reference, name), reference.allowed.get(name))
            if refused:
                cell.errors.append(f"{case.name}: {name} {refused}")
    return cell


def _run(adapter: Adapter, member: Member, case: Case, dtype: str, mode: str, device: str) -> list[np.ndarray]:
    mask = None if case.mask is None else adapter.to_native(case.mask, "bool", device)
    x = adapter.to_native(case.x, dtype, device)
    given = {**options(case), "mask": mask, "cotangent": case.cotangent}
    return [adapter.to_numpy(t) for t in adapter.value_and_gradient(member.penalty, x, **given, mode=mode)]


def _compare(part: Part, case: str, got: np.ndarray, expected: np.ndarray, allowed: np.ndarray | None) -> str | None:
    """Count one array into a part; return what is wrong with its dtype or shape."""
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return f"is {got.dtype} {got.shape}, expected {expected.dtype} {expected.shape}"
    part.compared += got.size
    distance = ulp_distance(got, expected)
    if not distance.any():
        return None
    part.different += int(np.count_nonzero(distance))
    worst = np.unravel_index(int(distance.argmax()), distance.shape)
    if distance[worst] > part.worst_ulp:
        part.worst_ulp = int(distance[worst])
        part.worst = {"case": case, "index": [int(i) for i in worst]}
        part.worst |= {"got": float(got[worst]).hex(), "expected": float(expected[worst]).hex()}
    if part.claim == BOUNDED:
        part.worst_of_bound = max(part.worst_of_bound, _share_of_bound(got, expected, allowed))
    return None


def _share_of_bound(got: np.ndarray, expected: np.ndarray, allowed: np.ndarray | None) -> float:
    """Return the largest distance divided by what is allowed; infinite where NaN or infinity differ."""
    with np.errstate(all="ignore"):
        share = np.abs(got - expected) / np.asarray(allowed, np.float64)
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    share = np.where(same, 0.0, np.where(np.isfinite(share), share, np.inf))
    return float(min(share.max(), 2.0**1000))
