"""Schedules: how a coefficient changes over the steps of training.

A schedule is a factor that multiplies a penalty. It is computed in float64, rounded to
float32, and multiplies the value; the gradient follows by the chain rule. Step 0 is the
first training step.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar

from arspec._errors import SpecError, require_number, unknown
from arspec._namespace import Array, Namespace
from arspec._numpy import NumpyNamespace


class Schedule:
    """What the schedules have in common: `schedule(step)` is the factor at that step."""

    __slots__ = ()
    name: ClassVar[str]

    def factor(self, step: Array, *, xp: Namespace) -> Array:
        """Return the factor at `step`, a float64 array of the namespace."""
        raise NotImplementedError

    def __call__(self, step: float) -> float:
        """Return the factor at `step`, a whole number >= 0 (0 is the first training step).

        Raises
        ------
        SpecError: the step is negative or not a number.
        """
        number = require_number(type(self).__name__, "step", step)
        numpy = NumpyNamespace()
        return float(self.factor(numpy.lib.asarray(number, "float64"), xp=numpy))


@dataclass(frozen=True, slots=True)
class Constant(Schedule):
    """The factor 1 at every step.

    Example
    -------
    >>> Constant()(1000)
    1.0
    """

    name: ClassVar[str] = "constant"

    def factor(self, step: Array, *, xp: Namespace) -> Array:
        return xp.where(step == step, 1.0, step)


@dataclass(frozen=True, slots=True)
class LinearWarmup(Schedule):
    """step / steps, and 1 from `steps` on.

    Parameters
    ----------
    steps : whole number >= 1, the first step with the full coefficient.

    Example
    -------
    >>> [LinearWarmup(4)(step) for step in (0, 1, 4, 9)]
    [0.0, 0.25, 1.0, 1.0]
    """

    name: ClassVar[str] = "linear_warmup"
    steps: int

    def __post_init__(self) -> None:
        _whole(self, "steps", self.steps)

    def factor(self, step: Array, *, xp: Namespace) -> Array:
        return _progress(step, self.steps, xp)


@dataclass(frozen=True, slots=True)
class Cosine(Schedule):
    """final + (1 - final) · ½(1 + cos(π · step / steps)), and `final` from `steps` on.

    Parameters
    ----------
    steps : whole number >= 1.
    final : finite number >= 0, the factor at the end.

    References
    ----------
    I. Loshchilov, F. Hutter, SGDR: stochastic gradient descent with warm restarts,
    ICLR 2017, equation (5), without restarts.

    Example
    -------
    >>> [round(Cosine(4)(step), 12) for step in (0, 2, 4, 9)]
    [1.0, 0.5, 0.0, 0.0]
    """

    name: ClassVar[str] = "cosine"
    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        _whole(self, "steps", self.steps)
        object.__setattr__(self, "final", require_number("Cosine", "final", self.final))

    def factor(self, step: Array, *, xp: Namespace) -> Array:
        progress = _progress(step, self.steps, xp)
        fall = xp.multiply(0.5 * (1 - self.final), 1.0 + xp.cos(xp.multiply(math.pi, progress)))
        return xp.where(progress >= 1, self.final, self.final + fall)


@dataclass(frozen=True, slots=True)
class Step(Schedule):
    """decay^k, k being how many of the boundaries have been reached.

    Parameters
    ----------
    boundaries : increasing whole numbers >= 1; the factor changes at these steps.
    decay : finite number >= 0.

    Example
    -------
    >>> [Step((10, 20), decay=0.5)(step) for step in (9, 10, 20)]
    [1.0, 0.5, 0.25]
    """

    name: ClassVar[str] = "step"
    boundaries: tuple[int, ...]
    decay: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.boundaries, list | tuple) or not self.boundaries:
            raise SpecError(f"Step: boundaries={self.boundaries!r}; expected a tuple of whole numbers, not empty.")
        boundaries = tuple(_whole(self, "boundaries", boundary) for boundary in self.boundaries)
        if any(later <= earlier for earlier, later in pairwise(boundaries)):
            raise SpecError(f"Step: boundaries={boundaries!r}; expected increasing numbers.")
        object.__setattr__(self, "boundaries", boundaries)
        object.__setattr__(self, "decay", require_number("Step", "decay", self.decay))

    def factor(self, step: Array, *, xp: Namespace) -> Array:
        factor = xp.where(step == step, 1.0, step)
        for reached, boundary in enumerate(self.boundaries, start=1):
            factor = xp.where(step >= boundary, self.decay**reached, factor)
        return factor


_SCHEDULES: Mapping[str, type[Schedule]] = {cls.name: cls for cls in (Constant, LinearWarmup, Cosine, Step)}


def schedule_document(schedule: Schedule) -> dict[str, Any]:
    """Return the JSON form of a schedule: its name and its parameters."""
    described = fields(schedule)  # pyright: ignore[reportArgumentType]
    values = {f.name: getattr(schedule, f.name) for f in described}
    return {"name": schedule.name, **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}}


def schedule_parameters(name: object) -> tuple[list[str], list[str]]:
    """Return the required and the allowed parameters of the schedule called `name`."""
    if name not in tuple(_SCHEDULES):
        raise unknown("schedule", name, _SCHEDULES)
    described = fields(_SCHEDULES[str(name)])  # pyright: ignore[reportArgumentType]
    return [f.name for f in described if f.default is MISSING], [f.name for f in described]


def schedule_from(document: Mapping[str, Any]) -> Schedule:
    """Build a schedule from its name and parameters, whose keys have been checked."""
    return _SCHEDULES[document["name"]](**{key: value for key, value in document.items() if key != "name"})


def schedules() -> dict[str, type[Schedule]]:
    """Return the schedules that JSON documents may name."""
    return dict(_SCHEDULES)


def scheduled_step(step: object, keys: list[str]) -> None:
    """Raise unless a step was given where `keys` name penalties with a schedule."""
    if keys and step is None:
        listed = ", ".join(map(repr, keys[:4]))
        raise SpecError(f"{listed} {'has' if len(keys) == 1 else 'have'} a schedule; say the step: total(step=...).")


def _progress(step: Array, steps: int, xp: Namespace) -> Array:
    return xp.where(step >= steps, 1.0, xp.multiply(step, 1 / steps))


def _whole(owner: Schedule, field: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SpecError(f"{type(owner).__name__}: {field}={value!r}; expected a whole number >= 1.")
    return value
