"""The bench on which a clause puts its questions: it asks, compares, counts and remembers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from arspec._axes import resolve_axes
from arspec.penalties._base import to_document
from arspec_conformance._adapter import Adapter, Mode
from arspec_conformance.cases import options
from arspec_conformance.family import Member
from arspec_conformance.judges import Expected, Part, bounded, excess, expected_of
from arspec_conformance.trials import Trial, to_token


class Violation(Exception):
    """An answer that a clause forbids."""


@dataclass(slots=True)
class Tally:
    """What a clause observed in one mode and dtype.

    Attributes
    ----------
    trials, observed : questions asked, and numbers compared.
    worst : the largest distance as a share of what was allowed.
    worst_in_u : the largest error of a value in u · S, and of a gradient in u · |gradient|.
    worst_input : the input that caused it.
    tokens : a token for the last question, to ask it again.
    """

    trials: int = 0
    observed: int = 0
    worst: float = 0.0
    worst_in_u: dict[str, float] = field(default_factory=dict)
    worst_input: dict[str, Any] | None = None
    token: str | None = None


@dataclass(slots=True)
class Bench:
    """One adapter in one mode, on one device, for one dtype.

    Attributes
    ----------
    clause : id of the clause under test.
    examples : how many examples Hypothesis draws per question.
    seed : what it draws them from; None for the same ones in every run.
    few : whether one member stands for a class of penalties, as where each costs a compilation.
    """

    adapter: Adapter
    mode: Mode
    dtype: str
    device: str
    clause: str
    examples: int = 4
    seed: int | None = None
    few: bool = False
    tally: Tally = field(default_factory=Tally)

    def of(self, members: tuple[Member, ...]) -> tuple[Member, ...]:
        """Return the members of a class of penalties that are asked about."""
        return (members[(self.seed or 0) % len(members)],) if self.few else members

    def numbered(self, number: int) -> int | tuple[int, int]:
        """Return the seed of the random numbers that a clause knows by a number."""
        return number if self.seed is None else (self.seed, number)

    def answer(self, trial: Trial) -> tuple[np.ndarray, np.ndarray]:
        """Return value and gradient as the adapter gives them, as arrays."""
        case = trial.case
        mask = None if case.mask is None else self.adapter.to_native(case.mask, "bool", self.device)
        x = self.adapter.to_native(case.x, self.dtype, self.device)
        given = {**options(case), "mask": mask, "cotangent": case.cotangent}
        self.tally.token = None
        self.tally.trials += 1
        try:
            found = self.adapter.value_and_gradient(trial.penalty, x, **given, mode=self.mode.name)
            value, gradient = (_as_array(self.adapter, name, t) for name, t in zip(_PARTS, found, strict=True))
        except Violation as error:
            raise self._violated(trial, "bounded", str(error)) from None
        except Exception as error:  # whatever an engine raises is a finding
            text = f"{type(error).__name__}: {error}"[:400]
            raise self._violated(trial, "bounded", f"the adapter raised {text}") from error
        return value, gradient

    def ask(self, trial: Trial, judge: Callable[[Trial], Expected] = bounded) -> tuple[np.ndarray, np.ndarray]:
        """Ask, compare with what the judge expects, and return the answer.

        Raises
        ------
        Violation: the answer is wrong; the text says where, what and how far.
        """
        found = self.answer(trial)
        for (name, part), got in zip(expected_of(trial, judge).items(), found, strict=True):
            wrong = self._compare(name, part, got, trial)
            if wrong:
                raise self._violated(trial, judge.__name__, wrong)
        return found

    def same(self, trial: Trial, one: Any, other: Any, why: str) -> None:
        """Demand that two answers have the same bits.

        Raises
        ------
        Violation: they have not.
        """
        for name, first, second in zip(_PARTS, one, other, strict=True):
            self.tally.observed += first.size
            if first.tobytes() != second.tobytes():
                raise self._violated(trial, "bounded", f"{name} {why}: {_shown(first)}, then {_shown(second)}")

    def _compare(self, name: str, part: Part, got: np.ndarray, trial: Trial) -> str | None:
        if got.dtype != part.dtype or got.shape != part.exact.shape:
            expected = f"expected {part.dtype} {part.exact.shape}"
            return f"{name} is {got.dtype} of shape {got.shape}; {expected}"
        share = excess(part, got)
        # Where nothing is compared a gradient's shape and dtype still are: that is one observation.
        self.tally.observed += int(np.count_nonzero(part.judged)) or 1
        if not share.size:
            return None
        self._remember(name, part, got, trial)
        worst = np.unravel_index(int(share.argmax()), share.shape)
        if np.isfinite(share[worst]):
            self.tally.worst = max(self.tally.worst, float(share[worst]))
        if share[worst] <= 1:
            return None
        where = f"{name}{[int(i) for i in worst] if worst else ''}"
        x, digits = trial.case.x, 17 if part.dtype == np.float64 else 9
        at = f" at x = {float(x[worst]):.{digits}g}" if worst and x.shape == got.shape else ""
        numbers = (f"{float(n):.{digits}g}" for n in (got[worst], part.rounded[worst]))
        return f"{where} is {next(numbers)}{at}; expected {next(numbers)}{_how_far(share[worst], part.allowed[worst])}"

    def _remember(self, name: str, part: Part, got: np.ndarray, trial: Trial) -> None:
        """Keep the largest error in u · S for the error atlas."""
        u = float(ml_dtypes.finfo(part.dtype).eps) / 2
        wide = got.astype(np.float64)
        with np.errstate(all="ignore"):
            error = np.abs(wide - part.exact) / (u * np.abs(part.exact))
        error = np.where(np.isfinite(error) & part.judged, error, 0.0)
        largest = float(error.max())
        if largest > self.tally.worst_in_u.get(name, 0.0):
            self.tally.worst_in_u[name] = largest
            if largest >= max(self.tally.worst_in_u.values()):
                self.tally.worst_input = {"case": trial.case.name, "token": self._token(trial, "bounded")}

    def _violated(self, trial: Trial, judge: str, text: str) -> Violation:
        self.tally.token = self._token(trial, judge)
        case = trial.case
        reduced = f"mean_over={case.mean_over!r}" + ("" if case.axes is None else f", axes={case.axes!r}")
        masked = "" if case.mask is None else ", with a mask"
        named = " ".join(resolve_axes(case.x.ndim, case.axes, case.mean_over).names)
        shape = f"shape {case.x.shape}" + (f" ({named})" if named else "")
        return Violation(
            f"{text}. [{to_document(trial.penalty)} on {case.name}, {self.dtype} of {shape}, {reduced}{masked}, "
            f"mode {self.mode.name}, {self.device}]"
        )

    def _token(self, trial: Trial, judge: str) -> str:
        known = {"clause": self.clause, "adapter": self.adapter.name, "mode": self.mode.name, "device": self.device}
        return to_token({**known, "judge": judge, "trial": trial.to_document()})


_PARTS = ("value", "gradient")


def _as_array(adapter: Adapter, name: str, tensor: Any) -> np.ndarray:
    if isinstance(tensor, bool | int | float | None):
        raise Violation(f"{name} is {tensor!r}, a Python {type(tensor).__name__}; expected a tensor of the framework")
    return np.asarray(adapter.to_numpy(tensor))


def _how_far(share: float, allowed: float) -> str:
    if allowed == 0 or not np.isfinite(share):
        return ""
    return f", ± {allowed:.2g} (off by {share:.3g} times that)"


def _shown(x: np.ndarray) -> str:
    return ", ".join(float(n).hex() for n in x.ravel()[:3]) + (", ..." if x.size > 3 else "")
