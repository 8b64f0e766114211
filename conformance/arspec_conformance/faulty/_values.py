"""Faults of values: coefficients, factors, precision, reductions, axes, formulas."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import ml_dtypes
import numpy as np

import arspec as ar
from arspec_conformance.faulty._fault import Answer, Call, Fault, at, rounded_to


def with_penalty(change: Callable[[Any], Any], *names: str) -> Callable[[Call], Answer]:
    """Return the answer for another penalty, where the penalty has one of the names."""
    return lambda call: call.run(penalty=change(call.penalty)) if at(call.penalty, *names) else call.run()


def parameter(name: str, value: Any) -> Callable[[Any], Any]:
    """Return what sets one parameter of a penalty."""

    def changed(penalty: Any) -> Any:
        given = {f.name: getattr(penalty, f.name) for f in fields(penalty)}
        return type(penalty)(**{**given, name: value})

    return changed


def coefficient_off(call: Call) -> Answer:
    return call.run(penalty=(1 + 1e-5) * call.penalty)


def coefficient_in(dtype: Any) -> Callable[[Call], Answer]:
    """Return the answer for a coefficient that was rounded to a dtype."""

    def answer(call: Call) -> Answer:
        coefficient = getattr(call.penalty, "coefficient", 0.0)
        if not coefficient:
            return call.run()
        return call.run(penalty=parameter("coefficient", float(dtype(coefficient)))(call.penalty))

    return answer


def twice(call: Call) -> Answer:
    return call.run(penalty=2 * call.penalty)


def value_in(dtype: str) -> Callable[[Call], Answer]:
    """Return the value after it went through a narrow dtype."""

    def answer(call: Call) -> Answer:
        value, gradient = call.run()
        return rounded_to(value, dtype), gradient

    return answer


def value_in_the_inputs_dtype(call: Call) -> Answer:
    value, gradient = call.run()
    return rounded_to(value, call.x.dtype.name), gradient


def last_dropped(call: Call) -> Answer:
    if call.x.size < 2:
        return call.run()
    x = call.x.copy()
    x.reshape(-1)[-1] = 0
    return call.run(x=x)


def mean_for_sum(call: Call) -> Answer:
    return call.run(mean_over="mean") if call.mean_over in ("sum", ()) else call.run()


def sum_for_mean(call: Call) -> Answer:
    return call.run(mean_over="sum")


def mean_for_batchmean(call: Call) -> Answer:
    return call.run(mean_over="mean") if call.mean_over == "batchmean" else call.run()


def last_axis_is_the_batch(call: Call) -> Answer:
    return call.run(mean_over=(call.resolved.names[-1],)) if call.mean_over == "batchmean" else call.run()


def one_less(call: Call) -> Answer:
    n = np.prod([call.x.shape[i] for i in call.resolved.averaged])
    return call.run(penalty=float(n / (n - 1)) * call.penalty) if n > 1 else call.run()


def first_axis_is_the_batch(call: Call) -> Answer:
    names = list(call.resolved.names)
    if "batch" not in names or names[0] == "batch":
        return call.run()
    index = names.index("batch")
    names[0], names[index] = names[index], names[0]
    return call.run(axes=" ".join(names))


def names_ignored(call: Call) -> Answer:
    return call.run(axes=None) if call.axes is not None and "batch" in call.axes else call.run()


def channels_first(call: Call) -> Answer:
    names = list(call.resolved.names)
    if len(names) < 3 or "feature" not in names:
        return call.run()
    return call.run(axes=" ".join([names[0], names[-1], *names[1:-1]]))


def kl_first(call: Call) -> Answer:
    if not at(call.penalty, "kl_sparsity"):
        return call.run()
    n = max(int(np.prod([call.x.shape[i] for i in call.resolved.averaged])), 1)
    value, gradient = call.run(mean_over="sum")
    return (value / n).astype(value.dtype), (gradient / n).astype(gradient.dtype)


def along_the_batch(call: Call) -> Answer:
    names = list(call.resolved.names)
    if not at(call.penalty, "temporal_difference", "norm_stabilizer") or call.mask is not None:
        return call.run()
    if "batch" not in names or "time" not in names:
        return call.run()
    swapped = {"batch": "time", "time": "batch"}
    averaged = tuple(swapped.get(name, name) for name in call.resolved.mean_over)
    return call.run(axes=" ".join(swapped.get(name, name) for name in names), mean_over=averaged)


def epsilon_in_the_norm(call: Call) -> Answer:
    value, gradient = call.run()
    if at(call.penalty, "group_lasso", "l2_norm"):
        value = np.sqrt(np.square(value, dtype=np.float64) + 1e-12).astype(value.dtype)
    return value, gradient


def divided_by_one_less(call: Call) -> Answer:
    n = len(call.x) if call.x.ndim else 0
    if not at(call.penalty, "decov") or n < 2 or call.resolved.names[0] != "batch":
        return call.run()
    return call.run(penalty=(n / (n - 1)) ** 2 * call.penalty)


def squares_overflow(call: Call) -> Answer:
    value, gradient = call.run()
    if at(call.penalty, "group_lasso", "l2_norm", "hoyer") and call.x.dtype == np.float32:
        largest = np.max(np.abs(np.where(call.valid, call.x, 0)), initial=0.0)
        value = np.array(np.inf, value.dtype) if largest > 1e19 else value
    return value, gradient


def flushed(call: Call) -> Answer:
    """Squares of small entries vanish before their root is taken."""
    if not at(call.penalty, "group_lasso", "l2_norm"):
        return call.run()
    limit = float(ml_dtypes.finfo(call.x.dtype).smallest_normal) ** 0.5
    return call.run(x=np.where(np.abs(call.x) < limit, np.zeros_like(call.x), call.x))


def summand_dropped(call: Call) -> Answer:
    if not isinstance(call.penalty, ar.Sum) or len(call.penalty.summands) < 2:
        return call.run()
    factor, penalty = call.penalty.summands[0]
    return call.run(penalty=factor * penalty)


def without_negatives(call: Call) -> Answer:
    return call.run(x=np.where(call.x < 0, np.zeros_like(call.x), call.x))


_NORM = ("group_lasso", "l2_norm")
_TIME = ("temporal_difference", "norm_stabilizer")

FAULTS = (
    Fault("coefficient off by 1e-5", "The coefficient is 1.00001 times what it should be.", coefficient_off),
    Fault("coefficient in bfloat16", "The coefficient is rounded to bfloat16.", coefficient_in(ml_dtypes.bfloat16)),
    Fault("coefficient in float16", "The coefficient is rounded to float16.", coefficient_in(np.float16)),
    Fault("counted twice", "Everything counts twice.", twice),
    Fault("half", "½ Σ x², as some libraries have it.", with_penalty(lambda p: 0.5 * p, "l2"), ("l2",)),
    Fault("unsquared", "‖x‖ for Σ x².", with_penalty(lambda p: ar.L2Norm(p.coefficient), "l2"), ("l2",)),
    Fault("squared", "Σ x² for ‖x‖.", with_penalty(lambda p: ar.L2(p.coefficient), "l2_norm"), ("l2_norm",)),
    Fault("float16 sums", "The value is accumulated in float16.", value_in("float16")),
    Fault("bfloat16 sums", "The value is accumulated in bfloat16.", value_in("bfloat16")),
    Fault(
        "sums in the input's dtype",
        "The value of a float16 or bfloat16 is accumulated in it.",
        value_in_the_inputs_dtype,
        ("l1", "l2"),
        dtypes=("bfloat16", "float16"),
    ),
    Fault("last entry dropped", "The last entry does not count.", last_dropped),
    Fault("mean for sum", "A sum is a mean.", mean_for_sum),
    Fault("sum for mean", "A mean is a sum.", sum_for_mean),
    Fault("mean over everything", "A mean over the batch is one over all axes.", mean_for_batchmean),
    Fault("wrong batch axis", "The last axis is taken for the batch.", last_axis_is_the_batch),
    Fault("axis 0 is the batch", "The first axis is taken for the batch, whatever its name.", first_axis_is_the_batch),
    Fault("names ignored", "The names of the axes are ignored.", names_ignored),
    Fault("channels first", "Channels-last is taken for channels-first.", channels_first, ("group_lasso",)),
    Fault("one less", "A mean divides by n - 1.", one_less),
    Fault("KL before the mean", "The divergence is averaged, not taken of the average.", kl_first, ("kl_sparsity",)),
    Fault("TAR along the batch", "Differences are taken between examples.", along_the_batch, _TIME),
    Fault(
        "no √g",
        "Groups are not scaled by √g.",
        with_penalty(parameter("size_scaled", False), "group_lasso"),
        ("group_lasso",),
    ),
    Fault("epsilon in the norm", "√(Σ x² + ε).", epsilon_in_the_norm, _NORM),
    Fault(
        "transposed kernel",
        "Rows are taken for columns.",
        lambda call: (
            call.run(penalty=parameter("mode", {"rows": "columns", "columns": "rows"}[call.penalty.mode])(call.penalty))
            if at(call.penalty, "orthogonal", "soft_orthogonal")
            else call.run()
        ),
        ("orthogonal", "soft_orthogonal"),
    ),
    Fault("covariance by n - 1", "DeCov divides by B - 1.", divided_by_one_less, ("decov",)),
    Fault("squares overflow", "The squares of large entries are inf.", squares_overflow, _NORM),
    Fault("flush to zero", "The squares of small entries are 0.", flushed, _NORM),
    Fault("a summand dropped", "Only the first penalty of a sum counts.", summand_dropped, ("sum",)),
    Fault("negatives ignored", "Negative entries do not count.", without_negatives),
    Fault(
        "delta ignored", "Huber's δ is 1.", with_penalty(parameter("delta", 1.0), "huber", "pseudo_huber"), ("huber",)
    ),
    Fault(
        "scale ignored", "The scale is 1.", with_penalty(parameter("scale", 1.0), "student_t", "tanh"), ("student_t",)
    ),
    Fault(
        "half a total variation",
        "One axis of several.",
        with_penalty(lambda p: parameter("over", p.over[:1])(p), "total_variation"),
        ("total_variation",),
    ),
    Fault(
        "l1 and l2 swapped",
        "The two coefficients change places.",
        with_penalty(lambda p: ar.L1L2(p.l2, p.l1), "l1_l2"),
        ("l1_l2",),
    ),
    Fault(
        "Hoyer for its square",
        "‖x‖₁/‖x‖₂ is not squared.",
        with_penalty(lambda p: ar.Hoyer(p.coefficient), "hoyer_square"),
        ("hoyer_square",),
    ),
)
