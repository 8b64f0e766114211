"""The kink table: where a penalty has no gradient, or more than one, and which number is taken.

The principle: the subgradient of smallest norm where the penalty is convex, the named value
where it is not. Tests, conformance and documentation read this table.

Example
-------
>>> from arspec.kinks import KINKS
>>> kink = next(k for k in KINKS if k.id == "linf-tie")
>>> kink.x, kink.gradient
((2.0, -2.0, 1.0), (0.5, -0.5, 0.0))
"""

from dataclasses import dataclass
from math import inf
from typing import Any

from arspec import penalties as p


@dataclass(frozen=True, slots=True)
class Kink:
    """One point and what is defined there.

    Attributes
    ----------
    id : unique, the name of the penalty and of the point.
    penalty : the penalty, with parameters that make every number here exact in float16.
    x : the point, nested tuples of numbers.
    gradient : the gradient that is defined there, of the shape of x.
    value : the value there.
    note : why this gradient.
    lower, upper : the smallest and largest of each entry over all subgradients; None where
        the penalty is not convex, or has no subgradient.
    minimum_norm : whether `gradient` is the shortest of all subgradients.
    axes, mean_over : as in `arspec.value`.
    """

    id: str
    penalty: p.Penalty
    x: Any
    gradient: Any
    value: float
    note: str
    lower: Any = None
    upper: Any = None
    minimum_norm: bool = True
    axes: str | None = None
    mean_over: tuple[str, ...] = ()


BATCH = ("batch",)
SHORTEST = "the shortest subgradient"
SMOOTH = "differentiable"
STAYS = "not convex, vertical on both sides: 0, so that a zero stays"
LIMIT = "the limit, where inf/inf or 0 · inf would be NaN"
CONSTANT = "there is nothing to compare: constant"

_SEPARABLE = (
    Kink("l1-0", p.L1(1.0), (0.0, -0.0, 2.0), (0.0, 0.0, 1.0), 2.0, SHORTEST, (-1.0, -1.0, 1.0), (1.0, 1.0, 1.0)),
    Kink(
        "l1_l2-0",
        p.L1L2(1.0, 0.5),
        (0.0, -0.0, 2.0),
        (0.0, 0.0, 3.0),
        4.0,
        SHORTEST,
        (-1.0, -1.0, 3.0),
        (1.0, 1.0, 3.0),
    ),
    Kink("lp-1-0", p.Lp(1.0, p=1), (0.0, -2.0), (0.0, -1.0), 2.0, SHORTEST, (-1.0, -1.0), (1.0, -1.0)),
    Kink("lp-1.5-0", p.Lp(1.0, p=1.5), (0.0, 4.0), (0.0, 3.0), 8.0, SMOOTH, (0.0, 3.0), (0.0, 3.0)),
    Kink("lp-0.5-0", p.Lp(1.0, p=0.5), (0.0, -0.0, 4.0), (0.0, 0.0, 0.25), 2.0, STAYS),
    Kink("lp-0.5-inf", p.Lp(1.0, p=0.5), (inf, -inf), (0.0, 0.0), inf, LIMIT),
    Kink(
        "huber-delta",
        p.Huber(1.0, delta=2.0),
        (2.0, -2.0, 0.0),
        (2.0, -2.0, 0.0),
        4.0,
        SMOOTH,
        (2.0, -2.0, 0.0),
        (2.0, -2.0, 0.0),
    ),
    Kink("huber-inf", p.Huber(1.0, delta=2.0), (inf, -inf), (2.0, -2.0), inf, LIMIT),
    Kink("pseudo_huber-0", p.PseudoHuber(1.0, delta=2.0), (0.0, -0.0), (0.0, 0.0), 0.0, SMOOTH, (0.0, 0.0), (0.0, 0.0)),
    Kink("pseudo_huber-inf", p.PseudoHuber(1.0, delta=2.0), (inf, -inf), (2.0, -2.0), inf, LIMIT),
    Kink("smooth_l1-0", p.SmoothL1(1.0, epsilon=4.0), (0.0, -0.0), (0.0, 0.0), 4.0, SMOOTH, (0.0, 0.0), (0.0, 0.0)),
    Kink("smooth_l1-inf", p.SmoothL1(1.0, epsilon=4.0), (inf, -inf), (1.0, -1.0), inf, LIMIT),
    Kink("student_t-0", p.StudentT(1.0), (0.0, -0.0), (0.0, 0.0), 0.0, "a minimum"),
    Kink("student_t-inf", p.StudentT(1.0), (inf, -inf), (0.0, 0.0), inf, LIMIT),
    Kink("tanh-0", p.Tanh(1.0, scale=2.0), (0.0, -0.0), (0.0, 0.0), 0.0, "not convex: 0, midway between -s and s"),
    Kink("tanh-inf", p.Tanh(1.0, scale=2.0), (inf, -inf), (0.0, 0.0), 2.0, LIMIT),
    Kink(
        "binary_entropy-0-1",
        p.BinaryEntropy(1.0),
        (0.0, 1.0),
        (inf, -inf),
        0.0,
        "0 log 0 = 0; the entropy is vertical there",
    ),
    Kink(
        "binarize-0-half-1",
        p.Binarize(1.0),
        (0.0, 0.5, 1.0),
        (0.0, 0.0, 0.0),
        0.0625,
        "minima, and a maximum between them",
    ),
    Kink(
        "l0_step-threshold",
        p.L0Step(1.0, threshold=0.5, bandwidth=0.25),
        (0.5, 0.25, 1.0),
        (0.0, 0.0, 0.0),
        1.0,
        "a step: 0 to x; an entry at the threshold does not count",
    ),
    Kink(
        "sum-0", p.L1(1.0) + 2 * p.Huber(1.0, delta=1.0), (0.0, 2.0), (0.0, 3.0), 5.0, SHORTEST, (-1.0, 3.0), (1.0, 3.0)
    ),
)

_NORMS = (
    Kink(
        "group_lasso-0",
        p.GroupLasso(1.0, norm_over=("feature",)),
        ((0.0, 0.0), (0.0, 2.0)),
        ((0.0, 0.0), (0.0, 1.0)),
        2.0,
        SHORTEST,
        ((-1.0, -1.0), (0.0, 1.0)),
        ((1.0, 1.0), (0.0, 1.0)),
    ),
    Kink(
        "group_lasso-scaled-0",
        p.GroupLasso(1.0, norm_over=("feature",), size_scaled=True),
        (0.0, 0.0, 0.0, 0.0),
        (0.0, 0.0, 0.0, 0.0),
        0.0,
        SHORTEST,
        (-2.0, -2.0, -2.0, -2.0),
        (2.0, 2.0, 2.0, 2.0),
    ),
    Kink("l2_norm-0", p.L2Norm(1.0), (0.0, -0.0), (0.0, 0.0), 0.0, SHORTEST, (-1.0, -1.0), (1.0, 1.0)),
    Kink(
        "l2_norm-0-of-a-batch",
        p.L2Norm(1.0),
        ((0.0, 0.0), (0.0, 2.0)),
        ((0.0, 0.0), (0.0, 0.5)),
        1.0,
        SHORTEST,
        ((-0.5, -0.5), (0.0, 0.5)),
        ((0.5, 0.5), (0.0, 0.5)),
        mean_over=BATCH,
    ),
    Kink("linf-0", p.LInf(1.0), (0.0, -0.0), (0.0, 0.0), 0.0, SHORTEST, (-1.0, -1.0), (1.0, 1.0)),
    Kink(
        "linf-tie",
        p.LInf(1.0),
        (2.0, -2.0, 1.0),
        (0.5, -0.5, 0.0),
        2.0,
        "the shortest subgradient: equal shares",
        (0.0, -1.0, 0.0),
        (1.0, 0.0, 0.0),
    ),
    Kink(
        "linf-tie-in-a-batch",
        p.LInf(1.0),
        ((2.0, 2.0), (0.0, -1.0)),
        ((0.25, 0.25), (0.0, -0.5)),
        1.5,
        "the shortest subgradient: equal shares",
        ((0.0, 0.0), (0.0, -0.5)),
        ((0.5, 0.5), (0.0, -0.5)),
        mean_over=BATCH,
    ),
    Kink("linf-inf", p.LInf(1.0), (inf, -inf, 1.0), (0.5, -0.5, 0.0), inf, "the shortest subgradient: equal shares"),
    Kink(
        "hoyer-0", p.Hoyer(1.0), (0.0, -0.0), (0.0, 0.0), 0.0, "0/0: the zero vector is as sparse as can be, and stays"
    ),
    Kink("hoyer-entry-0", p.Hoyer(1.0), (0.0, 2.0), (0.0, 0.0), 1.0, "the sign of a zero entry is 0"),
    Kink("hoyer-one", p.Hoyer(1.0), (-3.0,), (0.0,), 1.0, CONSTANT),
    Kink(
        "hoyer_square-0",
        p.HoyerSquare(1.0),
        (0.0, -0.0),
        (0.0, 0.0),
        0.0,
        "0/0: the zero vector is as sparse as can be, and stays",
    ),
    Kink("hoyer_square-entry-0", p.HoyerSquare(1.0), (0.0, 2.0), (0.0, 0.0), 1.0, "the sign of a zero entry is 0"),
    Kink("hoyer_square-one", p.HoyerSquare(1.0), (-3.0,), (0.0,), 1.0, CONSTANT),
)

_COUPLED = (
    Kink(
        "kl_sparsity-0-1",
        p.KLSparsity(1.0, target=0.25),
        ((0.0, 1.0), (0.0, 1.0)),
        ((-inf, inf), (-inf, inf)),
        inf,
        "a dead and a saturated unit: vertical",
        mean_over=BATCH,
    ),
    Kink(
        "kl_sparsity-target",
        p.KLSparsity(1.0, target=0.25),
        ((0.125,), (0.375,)),
        ((0.0,), (0.0,)),
        0.0,
        "the minimum",
        ((0.0,), (0.0,)),
        ((0.0,), (0.0,)),
        mean_over=BATCH,
    ),
    Kink(
        "temporal_difference-tie",
        p.TemporalDifference(1.0),
        (((1.0,), (1.0,)),),
        (((0.0,), (0.0,)),),
        0.0,
        SMOOTH,
        (((0.0,), (0.0,)),),
        (((0.0,), (0.0,)),),
    ),
    Kink(
        "temporal_difference-one-step",
        p.TemporalDifference(1.0),
        (((3.0, 4.0),),),
        (((0.0, 0.0),),),
        0.0,
        CONSTANT,
        (((0.0, 0.0),),),
        (((0.0, 0.0),),),
    ),
    Kink(
        "norm_stabilizer-0",
        p.NormStabilizer(1.0),
        (((0.0, 0.0), (0.0, 2.0)),),
        (((0.0, 0.0), (0.0, 4.0)),),
        4.0,
        "the direction of a zero state is 0",
    ),
    Kink("norm_stabilizer-one-step", p.NormStabilizer(1.0), (((3.0, 4.0),),), (((0.0, 0.0),),), 0.0, CONSTANT),
    Kink(
        "total_variation-constant",
        p.TotalVariation(1.0, over=("feature",)),
        (1.0, 1.0, 1.0),
        (0.0, 0.0, 0.0),
        0.0,
        SHORTEST,
        (-1.0, -2.0, -1.0),
        (1.0, 2.0, 1.0),
    ),
    Kink(
        "total_variation-tie",
        p.TotalVariation(1.0, over=("feature",)),
        (1.0, 1.0, 2.0, 2.0),
        (0.0, -1.0, 1.0, 0.0),
        1.0,
        "the sign of each difference of 0 is 0; equal shares on a plateau would be shorter, and not local",
        (-1.0, -2.0, 0.0, -1.0),
        (1.0, 0.0, 2.0, 1.0),
        minimum_norm=False,
    ),
    Kink(
        "total_variation-one-step",
        p.TotalVariation(1.0, over=("feature",)),
        (5.0,),
        (0.0,),
        0.0,
        CONSTANT,
        (0.0,),
        (0.0,),
    ),
    Kink(
        "orthogonal-zero-row",
        p.Orthogonal(1.0),
        ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)),
        ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0)),
        0.0,
        "the direction of a zero row is 0, and so is the sign of a zero cosine",
        axes="input output",
    ),
    Kink(
        "orthogonal-parallel",
        p.Orthogonal(1.0),
        ((1.0, 0.0), (-2.0, 0.0)),
        ((0.0, 0.0), (0.0, 0.0)),
        1.0,
        "a maximum",
        axes="input output",
    ),
    Kink("orthogonal-one-row", p.Orthogonal(1.0), ((3.0, 4.0),), ((0.0, 0.0),), 0.0, CONSTANT, axes="input output"),
    Kink("decov-batch-1", p.DeCov(1.0), ((3.0, 4.0),), ((0.0, 0.0),), 0.0, CONSTANT),
)

KINKS: tuple[Kink, ...] = (*_SEPARABLE, *_NORMS, *_COUPLED)
