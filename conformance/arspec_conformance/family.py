"""The penalties that are measured, and what is claimed for each: identity, or a derived bound."""

from collections.abc import Sequence
from dataclasses import dataclass

import arspec as ar
from arspec._errors import unknown
from arspec.penalties import Penalty

IDENTICAL = "identical"
BOUNDED = "bounded"


@dataclass(frozen=True, slots=True)
class Member:
    """One penalty with its parameters, and what its arguments may look like.

    Attributes
    ----------
    label : unique, the name of the penalty and what sets this member apart.
    penalty : the penalty.
    unit_interval : whether x is a probability.
    mask : the named axes along which a mask may vary; none: a mask is refused.
    inexact : the parts ("value", "gradient") that use log, exp, tanh, a general power or a
        product of matrices. In float64 they are only as good as the framework's: bounded.
    of_kernel : whether it is a penalty of a whole kernel, whose sizes are always known.
    """

    label: str
    penalty: Penalty
    unit_interval: bool = False
    mask: tuple[str, ...] = ("batch", "time")
    inexact: tuple[str, ...] = ()
    of_kernel: bool = False

    def claim(self, part: str, dtype: str) -> str:
        """Return what is claimed for "value" or "gradient" of an input of `dtype`."""
        return BOUNDED if dtype == "float64" and part in self.inexact else IDENTICAL


_BOTH = ("value", "gradient")

FAMILY = (
    Member("l1", ar.L1(0.3)),
    Member("l2", ar.L2(0.7)),
    Member("l1_l2", ar.L1L2(0.2, 0.45)),
    Member("lp p=0.5", ar.Lp(0.5, p=0.5)),
    Member("lp p=1.5", ar.Lp(0.5, p=1.5)),
    Member("lp p=3", ar.Lp(0.5, p=3)),
    Member("lp p=1.3", ar.Lp(0.5, p=1.3), inexact=_BOTH),
    Member("group_lasso feature", ar.GroupLasso(0.4, norm_over=("feature",))),
    Member("group_lasso scaled", ar.GroupLasso(0.4, norm_over=("batch", "feature"), size_scaled=True)),
    Member("l2_norm", ar.L2Norm(0.3)),
    Member("linf", ar.LInf(0.3)),
    Member("hoyer", ar.Hoyer(0.3)),
    Member("hoyer_square", ar.HoyerSquare(0.3)),
    Member("huber", ar.Huber(0.3, delta=0.7)),
    Member("pseudo_huber", ar.PseudoHuber(0.3, delta=0.7)),
    Member("smooth_l1", ar.SmoothL1(0.3, epsilon=0.01)),
    Member("student_t", ar.StudentT(0.3, scale=0.7), inexact=("value",)),
    Member("tanh", ar.Tanh(0.3, scale=1.7), inexact=_BOTH),
    Member("kl_sparsity", ar.KLSparsity(0.3, target=0.05), unit_interval=True, inexact=("value",)),
    Member("binary_entropy", ar.BinaryEntropy(0.3), unit_interval=True, inexact=_BOTH),
    Member("binarize", ar.Binarize(0.3)),
    Member("temporal_difference", ar.TemporalDifference(0.3)),
    Member("norm_stabilizer", ar.NormStabilizer(0.3)),
    Member("total_variation", ar.TotalVariation(0.3, over=("time", "feature"))),
    Member("orthogonal rows", ar.Orthogonal(0.3), mask=(), inexact=_BOTH, of_kernel=True),
    Member("orthogonal columns", ar.Orthogonal(0.3, mode="columns"), mask=(), inexact=_BOTH, of_kernel=True),
    Member("soft_orthogonal columns", ar.SoftOrthogonal(0.3), mask=(), inexact=_BOTH, of_kernel=True),
    Member("soft_orthogonal rows", ar.SoftOrthogonal(0.3, mode="rows"), mask=(), inexact=_BOTH, of_kernel=True),
    Member("decov", ar.DeCov(0.3), mask=("batch",), inexact=_BOTH),
    Member("l0_step", ar.L0Step(0.3, threshold=0.2, bandwidth=0.1)),
    Member("sum", ar.L1(0.1) + 2 * ar.Huber(0.3, delta=1)),
)


def members(names: Sequence[str] = ()) -> tuple[Member, ...]:
    """Return the members with these labels or penalty names, or all.

    Raises
    ------
    SpecError: a name that no member has.
    """
    for name in names:
        if not any(name in (member.label, member.penalty.name) for member in FAMILY):
            raise unknown("penalty", name, {member.penalty.name for member in FAMILY})
    return tuple(m for m in FAMILY if not names or m.label in names or m.penalty.name in names)
