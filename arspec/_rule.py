"""Rule: one penalty at one place."""

from dataclasses import dataclass
from typing import Any

from arspec._axes import MEAN, MeanOver, parse_mean_over, parse_numerics
from arspec._errors import SpecError, unknown
from arspec._placements import ACTIVATIONS, PLACEMENTS, default_mean_over
from arspec._schedules import Schedule
from arspec.penalties._base import Penalty, is_penalty

WHEN = ("always", "train")


@dataclass(frozen=True, slots=True)
class Rule:
    """Apply `penalty` to the tensor at `placement` of every layer that `layer` names.

    Parameters
    ----------
    penalty : such as `L1(1e-4)`, or a sum of penalties.
    layer : path of a layer, such as "encoder/0", or a glob: "*" stands for one part of a
        path, "**" for any number of parts. "." separates parts as well as "/".
    placement : such as "pre_activation", "output", "cell_state", "kernel" or "bias";
        `arspec.layers` defines all of them.
    mean_over : axes averaged over (every other axis is summed), or "sum", "batchmean",
        "mean". None stands for ("batch",) at an activation and () at a parameter.
    schedule : how the coefficient changes over training, such as `LinearWarmup(1000)`, or
        None for a constant coefficient. Totals then ask for the step.
    numerics : "identical" to the bit in every framework, or "bounded": the framework's own
        float32 sums and products, quicker where docs/performance.md says so.
    when : "always" (in training and in evaluation alike, as Keras does), or "train": in
        evaluation the rule's value is 0.
    trainable_only : whether a rule at a parameter counts 0 for one that is frozen, as in
        Keras 3. False: the penalty of a frozen weight is a constant, as in tf-keras.

    Raises
    ------
    SpecError: an argument is not one of these.

    Example
    -------
    >>> import arspec as ar
    >>> ar.Rule(ar.L1(1e-4), layer="hidden", placement="output").mean_over
    ('batch',)
    """

    penalty: Penalty
    layer: str
    placement: str
    mean_over: MeanOver
    schedule: Schedule | None
    numerics: str
    when: str
    trainable_only: bool

    def __init__(
        self,
        penalty: Penalty,
        *,
        layer: str,
        placement: str,
        mean_over: Any = None,
        schedule: Schedule | None = None,
        numerics: str = "identical",
        when: str = "always",
        trainable_only: bool = False,
    ) -> None:
        if not is_penalty(penalty):
            raise SpecError(f"penalty={penalty!r}; expected a penalty such as L1(1e-4).")
        if not isinstance(layer, str) or not layer.strip("./ "):
            raise SpecError(f"layer={layer!r}; expected the path of a layer or a glob, such as 'hidden' or '**'.")
        if placement not in tuple(PLACEMENTS):  # a tuple: what came may not be hashable
            raise unknown("placement", placement, PLACEMENTS)
        parsed = default_mean_over(placement) if mean_over is None else parse_mean_over(mean_over)
        if not isinstance(schedule, Schedule | None):
            raise SpecError(f"schedule={schedule!r}; expected one such as LinearWarmup(1000), or None.")
        checked = {"penalty": penalty, "layer": layer, "placement": placement, "mean_over": parsed}
        checked |= {"schedule": schedule, "numerics": parse_numerics(numerics), "when": parse_when(when)}
        checked["trainable_only"] = parse_trainable_only(trainable_only, placement)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def key(self) -> str:
        """The part of a loss's name that does not depend on the layer: placement/penalty."""
        return f"{self.placement}/{self.penalty.name}"

    def mean_over_document(self) -> list[str] | str:
        """Return `mean_over` as JSON writes it."""
        return MEAN if isinstance(self.mean_over, str) else list(self.mean_over)


def parse_when(when: object) -> str:
    """Return `when` if it is "always" or "train", or raise SpecError."""
    if when not in WHEN:
        raise unknown("when", when, WHEN)
    return str(when)


def parse_trainable_only(trainable_only: object, placement: str) -> bool:
    """Return `trainable_only` if it is a bool that means something at `placement`, or raise SpecError."""
    if not isinstance(trainable_only, bool):
        raise SpecError(f"trainable_only={trainable_only!r}; expected True or False.")
    if trainable_only and placement in ACTIVATIONS:
        raise SpecError(f"trainable_only=True says nothing about {placement!r}; only a parameter can be frozen.")
    return trainable_only
