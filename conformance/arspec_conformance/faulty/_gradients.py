"""Faults of gradients: at kinks, in factors, in the chain rule."""

import ml_dtypes
import numpy as np

import arspec as ar
from arspec_conformance.faulty._fault import Answer, Call, Fault, at

NORMS = ("group_lasso", "l2_norm", "norm_stabilizer")
CONVEX = ("l1", "l1_l2", "total_variation", "linf", "group_lasso", "l2_norm")


def right_derivative(call: Call) -> Answer:
    return _beside_zero(call, 1.0)


def left_derivative(call: Call) -> Answer:
    return _beside_zero(call, -1.0)


def _beside_zero(call: Call, side: float) -> Answer:
    value, gradient = call.run()
    small = 4 * float(ml_dtypes.finfo(call.x.dtype).smallest_normal)
    beside = np.where(call.x == 0, np.array(side * small, call.x.dtype), call.x)
    return value, np.where(call.x == 0, call.run(x=beside)[1], gradient)


def smoothed(call: Call) -> Answer:
    if not at(call.penalty, "l1"):
        return call.run()
    return call.run(penalty=ar.SmoothL1(call.penalty.coefficient, epsilon=1e-6))


def first_of_ties(call: Call) -> Answer:
    value, gradient = call.run()
    if not at(call.penalty, "linf"):
        return value, gradient
    falling = 1 - np.arange(call.x.size).reshape(call.x.shape) / (4096 * max(call.x.size, 1))
    return value, call.run(x=(call.x * falling).astype(call.x.dtype))[1]


def nan_at_zero_group(call: Call) -> Answer:
    value, gradient = call.run()
    if at(call.penalty, *NORMS) and call.x.size:
        names = {"group_lasso": getattr(call.penalty, "norm_over", ()), "norm_stabilizer": ("feature",)}
        over = names.get(call.penalty.name)
        index = call.resolved.summed if over is None else call.resolved.indices(over)
        empty = np.all(call.x == 0, axis=index, keepdims=True) & call.valid
        gradient = np.where(empty, np.array(np.nan, gradient.dtype), gradient)
    return value, gradient


def vertical_at_zero(call: Call) -> Answer:
    value, gradient = call.run()
    if at(call.penalty, "lp") and call.penalty.p < 1:
        gradient = np.where(call.x == 0, np.array(np.inf, gradient.dtype), gradient)
    return value, gradient


def unscaled(call: Call) -> Answer:
    if not hasattr(call.penalty, "coefficient") or call.penalty.coefficient == 0:
        return call.run()
    value, _ = call.run()
    return value, call.run(penalty=(1 / call.penalty.coefficient) * call.penalty)[1]


def without_two(call: Call) -> Answer:
    value, gradient = call.run()
    return value, (gradient / 2).astype(gradient.dtype) if at(call.penalty, "l2") else gradient


def detached(call: Call) -> Answer:
    value, gradient = call.run()
    return value, np.zeros_like(gradient)


def flipped(call: Call) -> Answer:
    value, gradient = call.run()
    return value, -gradient


def no_cotangent(call: Call) -> Answer:
    return call.run(cotangent=1.0)


def cotangent_in_half(call: Call) -> Answer:
    return call.run(cotangent=float(np.float16(call.cotangent)))


def squared_cotangent(call: Call) -> Answer:
    return call.run(cotangent=call.cotangent**2)


def of_one_example(call: Call) -> Answer:
    value, gradient = call.run()
    if gradient.ndim > 1 and len(gradient) > 1:
        gradient = np.concatenate([gradient[:1], np.zeros_like(gradient[1:])])
    return value, gradient


def in_half(call: Call) -> Answer:
    value, gradient = call.run()
    if gradient.dtype == np.float32:
        gradient = gradient.astype(np.float16).astype(np.float32)
    return value, gradient


def clipped(call: Call) -> Answer:
    value, gradient = call.run()
    return value, np.clip(gradient, np.array(-1, gradient.dtype), np.array(1, gradient.dtype))


def straight_through(call: Call) -> Answer:
    value, gradient = call.run()
    return value, np.where(call.valid, np.ones_like(gradient), gradient) if at(call.penalty, "l0_step") else gradient


def through_the_norm(call: Call) -> Answer:
    """Leave out how the norm in the denominator changes."""
    value, gradient = call.run()
    if at(call.penalty, "hoyer"):
        signs = call.run(penalty=ar.L1(call.penalty.coefficient))[1]
        lengths = call.run(penalty=ar.L2Norm(1.0), mean_over="sum", cotangent=1.0)[0]
        gradient = (signs / max(float(lengths), 1e-9)).astype(gradient.dtype)
    return value, gradient


FAULTS = (
    Fault("right derivative", "d|x| at 0 is +1, as JAX has it.", right_derivative, CONVEX),
    Fault("left derivative", "d|x| at 0 is -1.", left_derivative, CONVEX),
    Fault("smoothed", "|x| is √(x² + ε).", smoothed, ("l1",)),
    Fault("first of ties", "The gradient of a maximum goes to the first of equal entries.", first_of_ties, ("linf",)),
    Fault("NaN at a zero group", "The gradient of a norm at 0 is 0/0.", nan_at_zero_group, NORMS),
    Fault("vertical at 0", "The gradient of |x|^p at 0, p < 1, is inf.", vertical_at_zero, ("lp",)),
    Fault("gradient unscaled", "The gradient lacks the coefficient.", unscaled, ("l1", "huber")),
    Fault("gradient without 2", "The gradient of x² is x.", without_two, ("l2",)),
    Fault("gradient detached", "The gradient is 0.", detached),
    Fault("gradient flipped", "The gradient has the other sign.", flipped),
    Fault("no cotangent", "The gradient is that of the value, whatever it is multiplied by.", no_cotangent),
    Fault("cotangent in float16", "The upstream gradient is rounded to float16.", cotangent_in_half),
    Fault("cotangent squared", "The upstream gradient is applied twice.", squared_cotangent),
    Fault("gradient of one example", "Only the first example gets a gradient.", of_one_example),
    Fault("gradient in float16", "A float32 gradient passes through float16.", in_half),
    Fault("gradient clipped", "Each entry of the gradient is clipped to ±1.", clipped, ("l2", "lp")),
    Fault("straight through to x", "A step hands its gradient on to x.", straight_through, ("l0_step",)),
    Fault("norm held constant", "A ratio's denominator is taken as constant.", through_the_norm, ("hoyer",)),
)
