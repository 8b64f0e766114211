"""Faults of special values, masks, types and modes."""

import numpy as np

from arspec_conformance.cases import DTYPES
from arspec_conformance.faulty._fault import Answer, Call, Fault
from arspec_conformance.faulty._gradients import right_derivative


def nan_lost(call: Call) -> Answer:
    return call.run(x=np.where(np.isnan(call.x), np.zeros_like(call.x), call.x))


def nan_of_gradient_lost(call: Call) -> Answer:
    value, gradient = call.run()
    return value, np.where(np.isnan(gradient), np.zeros_like(gradient), gradient)


def infinity_clipped(call: Call) -> Answer:
    largest = np.array(np.finfo(np.float32).max, np.float32).astype(call.x.dtype)
    return call.run(x=np.where(np.isinf(call.x), np.copysign(largest, call.x), call.x))


def raises_on_empty(call: Call) -> Answer:
    if not call.x.size:
        raise IndexError("index 0 is out of bounds for axis 0 with size 0")
    return call.run()


def nan_of_nothing(call: Call) -> Answer:
    value, gradient = call.run()
    return (value if call.valid.any() and call.x.size else np.full_like(value, np.nan)), gradient


def mask_ignored(call: Call) -> Answer:
    return call.run(mask=None)


def pads_counted(call: Call) -> Answer:
    return call.run(mask=None, x=np.where(call.valid, call.x, np.zeros_like(call.x)))


def mask_inverted(call: Call) -> Answer:
    return call.run() if call.mask is None else call.run(mask=~call.mask)


def gradient_at_pads(call: Call) -> Answer:
    value, gradient = call.run()
    return value, gradient if call.mask is None else np.where(call.valid, gradient, np.ones_like(gradient))


def zero_times_nan(call: Call) -> Answer:
    value, gradient = call.run()
    nothing = not any(component.coefficient for component in call.penalty.components())
    return (np.full_like(value, np.nan) if nothing and np.isnan(call.x).any() else value), gradient


def python_float(call: Call) -> Answer:
    value, gradient = call.run()
    return float(value), gradient


def value_has_the_inputs_dtype(call: Call) -> Answer:
    value, gradient = call.run()
    return value.astype(call.x.dtype), gradient


def gradient_is_float32(call: Call) -> Answer:
    value, gradient = call.run()
    return value, gradient.astype(np.float32)


def gradient_is_flat(call: Call) -> Answer:
    value, gradient = call.run()
    return value, gradient.reshape(-1)


def value_is_a_vector(call: Call) -> Answer:
    value, gradient = call.run()
    return value.reshape(1), gradient


def only_other_modes(call: Call) -> Answer:
    return call.run() if call.is_first_mode else right_derivative(call)


def baked_in(call: Call) -> Answer:
    mask = None if call.mask is None else call.mask.shape
    key = (call.penalty, call.x.shape, call.x.dtype, str(call.axes), str(call.mean_over), mask, call.mode)
    return call.memory.setdefault(key, call.run()) if call.cotangent == 1.0 else call.run()


def baked_in_cotangent(call: Call) -> Answer:
    key = ("cotangent", call.penalty, call.x.shape, call.x.dtype, call.mode)
    return call.run(cotangent=call.memory.setdefault(key, call.cotangent))


def last_bit(call: Call) -> Answer:
    value, gradient = call.run()
    call.memory["calls"] = call.memory.get("calls", 0) + 1
    return (np.nextafter(value, np.array(np.inf, value.dtype)) if call.memory["calls"] % 3 == 0 else value), gradient


def float64_in_float32(call: Call) -> Answer:
    if call.x.dtype != np.float64:
        return call.run()
    value, gradient = call.run(x=call.x.astype(np.float32))
    return value.astype(np.float64), gradient.astype(np.float64)


def half_through_bfloat16(call: Call) -> Answer:
    if call.x.dtype != DTYPES["float16"]:
        return call.run()
    return call.run(x=call.x.astype(DTYPES["bfloat16"]).astype(call.x.dtype))


def size_one_axes(call: Call) -> Answer:
    return call.run(penalty=2 * call.penalty) if 1 in call.x.shape else call.run()


def many_entries(call: Call) -> Answer:
    if call.x.size <= 65_536:
        return call.run()
    x = call.x.copy()
    x.reshape(-1)[65_536:] = 0
    return call.run(x=x)


def four_axes(call: Call) -> Answer:
    if call.x.ndim != 4:
        return call.run()
    return call.run(axes="batch width height feature", mean_over=("width",))


def sums_over_the_calls(call: Call) -> Answer:
    """What a layer adds to a list that nobody empties."""
    value, gradient = call.run()
    key = (call.penalty, value.dtype)
    call.memory[key] = call.memory.get(key, 0.0) + float(value)
    return np.array(call.memory[key], value.dtype), gradient


_BOTH_HALVES = ("bfloat16", "float16")

FAULTS = (
    Fault("NaN lost", "A NaN counts as 0.", nan_lost),
    Fault("NaN lost in the gradient", "A NaN gradient is 0.", nan_of_gradient_lost),
    Fault("infinity clipped", "An infinity counts as the largest number.", infinity_clipped, ("l1", "huber")),
    Fault("raises on empty", "Nothing is an error.", raises_on_empty),
    Fault("NaN of nothing", "The mean of nothing is 0/0.", nan_of_nothing),
    Fault("mask ignored", "Masked positions count.", mask_ignored),
    Fault("padded steps counted", "A mean divides by all positions, masked ones too.", pads_counted, ("l1",)),
    Fault("mask inverted", "What is valid is taken for what is not.", mask_inverted),
    Fault("gradient at pads", "Masked positions get a gradient.", gradient_at_pads),
    Fault("0 · NaN", "A coefficient of 0 does not hide a NaN.", zero_times_nan),
    Fault("Python float", "The value is a Python float.", python_float),
    Fault("narrow value", "The value has the dtype of x.", value_has_the_inputs_dtype, dtypes=_BOTH_HALVES),
    Fault("wide gradient", "The gradient is float32.", gradient_is_float32, dtypes=_BOTH_HALVES),
    Fault("flat gradient", "The gradient has one axis.", gradient_is_flat),
    Fault("value of shape (1,)", "The value is a vector of one.", value_is_a_vector),
    Fault("eager right, others wrong", "Only the first mode knows the kinks.", only_other_modes, ("l1",), modes=2),
    Fault("baked in", "What the first call saw is given ever after.", baked_in),
    Fault("cotangent baked in", "The first upstream gradient is used ever after.", baked_in_cotangent),
    Fault("last bit", "Every third call differs in the last bit of the value.", last_bit),
    Fault("float64 in float32", "float64 is computed in float32.", float64_in_float32, dtypes=("float64",)),
    Fault("float16 by bfloat16", "float16 goes through bfloat16.", half_through_bfloat16, dtypes=("float16",)),
    Fault("axes of size 1", "Wrong only where an axis has size 1.", size_one_axes),
    Fault("many entries", "Wrong only beyond 65 536 entries.", many_entries),
    Fault("four axes", "Wrong only for images: another axis is averaged.", four_axes, ("l1",)),
    Fault("never emptied", "Values add up over the calls.", sums_over_the_calls),
)
