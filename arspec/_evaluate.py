"""Value and gradient of a penalty over any namespace: the one pipeline all engines run.

value    = round( Σ_i  c_i / n_i · Σ terms_i(x) )
gradient = round( Σ_i  terms_gradient_i(x, cotangent · c_i / n_i) )

i runs over the components of a composed penalty, n is the number of terms averaged. The
tensor is lifted to float64, summed in a fixed order, and rounded once at the end. With a
mask, n depends on the position and becomes a weight on every term.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from arspec import _certified
from arspec._axes import Axes, parse_numerics, resolve_axes
from arspec._blocks import Blocks, blocks_of
from arspec._bounded import chosen
from arspec._certified import check_terms
from arspec._errors import SpecError, UnsupportedError
from arspec._means import mean_count, mean_weight
from arspec._namespace import FLOAT_DTYPES, Array, Namespace, cut, power_of_two_below
from arspec.penalties._base import Component, components, is_penalty

Parts = tuple[Component, ...]


def prepare(penalty: Any, x: Array, *, xp: Namespace, axes: Any, mean_over: Any, numerics: str = "identical") -> Axes:
    """Check the arguments of a public `value` or `gradient` and name the axes of `x`."""
    require_penalty(penalty)
    return named_axes(len(x.shape), xp.dtype_name(x), axes, mean_over, numerics)


def require_penalty(penalty: object) -> None:
    """Raise SpecError unless `penalty` can be evaluated."""
    if not is_penalty(penalty):
        raise SpecError(f"{penalty!r} is not a penalty; expected one such as L1(1e-4).")


def named_axes(rank: int, dtype: str, axes: Any, mean_over: Any, numerics: str) -> Axes:
    """Name the axes of a tensor of `rank`, and check all that is known without looking at it."""
    if dtype.startswith("complex"):
        raise UnsupportedError(f"x is {dtype}; penalties of complex tensors are not defined. Penalize abs(x), say.")
    if dtype not in FLOAT_DTYPES:
        raise SpecError(f"x is {dtype}; expected one of {', '.join(FLOAT_DTYPES)}. Convert it, for example to float32.")
    resolved = resolve_axes(rank, axes, mean_over)
    return replace(resolved, dtype=dtype, numerics=parse_numerics(numerics))


def expand_mask(mask: Array | None, x: Array, *, xp: Namespace) -> Array | None:
    """Give a boolean mask over the leading axes of `x` the rank of `x`."""
    if mask is None:
        return None
    if xp.dtype_name(mask) != "bool":
        raise SpecError(f"mask has dtype {xp.dtype_name(mask)}; expected bool, true where x is valid.")
    given, shape = tuple(mask.shape), tuple(x.shape)
    fits = (None in (m, n) or m in (1, n) for m, n in zip(given, shape, strict=False))
    if len(given) > len(shape) or not all(fits):
        raise SpecError(f"mask has shape {given}; expected the leading axes of x, whose shape is {shape}.")
    return xp.reshape(mask, xp.shape(mask) + (1,) * (len(shape) - len(given)))


def attach_mask(axes: Axes, mask: Array | None) -> Axes:
    """Return `axes` that carry a mask of the rank of x."""
    return axes if mask is None else replace(axes, mask=mask)


def with_mask(axes: Axes, mask: Array | None, x: Array, xp: Namespace) -> Axes:
    """Expand a mask to the rank of `x` and attach it to the axes."""
    return attach_mask(axes, expand_mask(mask, x, xp=xp))


def value_dtype(x: Array, xp: Namespace) -> str:
    """Return "float64" for a float64 tensor and "float32" for every narrower one."""
    return "float64" if xp.dtype_name(x) == "float64" else "float32"


def value(penalty: Any, x: Array, *, xp: Namespace, axes: Axes) -> Array:
    """Return the penalty of `x` as a 0-d array: float64 for float64, else float32."""
    xp = chosen(xp, axes)
    parts = components(penalty)
    quick = _certified.value(parts, x, xp, axes)
    if quick is not None:
        return xp.constant(np.asarray(quick), x)
    total = None
    for component in parts:
        part = _component_value(component, x, xp, axes)
        total = part if total is None else total + part
    total = xp.zeros(xp.cast(x, xp.wide), ()) if total is None else total
    return xp.lower(total, value_dtype(x, xp))


def gradient(penalty: Any, x: Array, cotangent: Array | None = None, *, xp: Namespace, axes: Axes) -> Array:
    """Return cotangent · d value / d x, with the shape and dtype of `x`."""
    xp = chosen(xp, axes)
    upstream = None if cotangent is None else xp.cast(cotangent, xp.wide)
    parts = components(penalty)
    if xp.mutable_arrays:
        exact = _is_exact(parts, x, axes, xp)
        if exact or _works_in_blocks(parts, x, axes, xp):
            return _blocked_gradient(parts, x, upstream, xp, axes, exact=exact)
        blocks = blocks_of(parts, x, axes, xp)
        if blocks is not None:
            return _gradient_by_blocks(parts, x, upstream, xp, axes, blocks)
    return xp.lower(_wide_gradient(parts, x, upstream, xp, axes), xp.dtype_name(x))


def wide_gradient(penalty: Any, x: Array, cotangent: Array | None = None, *, xp: Namespace, axes: Axes) -> Array:
    """Return the gradient in float64, before rounding: what second derivatives differentiate."""
    xp = chosen(xp, axes)
    return _wide_gradient(components(penalty), x, None if cotangent is None else xp.cast(cotangent, xp.wide), xp, axes)


def _wide_gradient(parts: Parts, x: Array, upstream: Array | None, xp: Namespace, axes: Axes) -> Array:
    if 0 in x.shape:
        return xp.zeros(xp.cast(x, xp.wide), tuple(x.shape))
    x = _blank(xp.lift(x), axes, xp)
    total = None
    for component in parts:
        weight = _term_weight(component, x, xp, axes)
        weight = weight if upstream is None else xp.multiply(upstream, weight)
        part = component.penalty.terms_gradient(x, weight, xp=xp, axes=axes)
        total = part if total is None else total + part
    total = xp.where(x == x, 0.0, 0.0) if total is None else total
    total = xp.broadcast_to(total, xp.shape(x))
    total = total if axes.mask is None else xp.where(axes.mask, total, 0.0)
    return xp.guard(total) if axes.dtype == "float64" else total


def weighted_terms(component: Component, x: Array, xp: Namespace, axes: Axes) -> Array:
    """Return coefficient / n · terms(x) of a float64 x without a mask: what a value is the sum of, but for rounding."""
    terms = _terms(component.penalty, x, xp, axes)
    return xp.multiply(terms, xp.share(component.coefficient, mean_count(xp.shape(terms), axes)))


def _component_value(component: Component, x: Array, xp: Namespace, axes: Axes) -> Array:
    penalty = component.penalty
    if 0 in x.shape:
        return xp.zeros(xp.cast(x, xp.wide), ())
    if _works_in_blocks((component,), x, axes, xp):
        summed = _blocked_sum(penalty, xp.reshape(x, (-1,)), xp, axes)
        return xp.multiply(summed, xp.share(component.coefficient, mean_count(xp.shape(x), axes)))
    blocks = blocks_of((component,), x, axes, xp)
    pieces = (x,) if blocks is None else blocks.of(x)
    found = [_terms(penalty, _blank(xp.lift(piece), axes, xp), xp, axes) for piece in pieces]
    terms = found[0] if blocks is None else xp.concat(found, blocks.axis)
    if axes.mask is None:
        return xp.multiply(xp.sum(terms), xp.share(component.coefficient, mean_count(xp.shape(terms), axes)))
    valid = penalty.terms_mask(axes.mask, xp=xp, axes=axes)
    weighted = xp.multiply(terms, mean_weight(valid, xp.shape(terms), xp, axes))
    return xp.multiply(xp.sum(xp.where(valid, weighted, 0.0)), component.coefficient)


def _terms(penalty: Any, x: Array, xp: Namespace, axes: Axes) -> Array:
    terms = penalty.terms(x, xp=xp, axes=axes)
    check_terms(penalty, terms, x, axes)
    return terms


def _term_weight(component: Component, x: Array, xp: Namespace, axes: Axes) -> Array | float:
    """Return coefficient / n: a number, or with a mask an array that fits the terms."""
    shape = component.penalty.terms_shape(xp.shape(x), axes=axes)
    if axes.mask is None:
        return xp.share(component.coefficient, mean_count(shape, axes))
    valid = component.penalty.terms_mask(axes.mask, xp=xp, axes=axes)
    weight = xp.multiply(mean_weight(valid, shape, xp, axes), component.coefficient)
    return xp.where(valid, weight, 0.0)


def _blank(x: Array, axes: Axes, xp: Namespace) -> Array:
    return x if axes.mask is None else xp.where(axes.mask, x, 0.0)


# Blocks: in eager frameworks an elementwise penalty works on pieces that stay in cache.
# The tree over rows below adds in the order of `Namespace.halve`, so the bits are the same.


def _works_in_blocks(parts: Parts, x: Array, axes: Axes, xp: Namespace) -> bool:
    block = xp.block_size(x)
    return (
        block is not None
        and axes.mask is None
        and _size(x) > block
        and len(parts) > 0
        and all(component.penalty.elementwise for component in parts)
    )


def _blocked_sum(penalty: Any, flat: Array, xp: Namespace, axes: Axes) -> Array:
    block = power_of_two_below(int(xp.block_size(flat) or 1) + 1)
    rows = -(-_size(flat) // block)

    def tree(first: int, step: int) -> Array:
        if first + step >= rows:
            row = xp.lift(cut(flat, 0, first * block, min((first + 1) * block, _size(flat))))
            return _terms(penalty, row, xp, axes)
        low, high = tree(first, 2 * step), tree(first + step, 2 * step)
        size, is_sum = high.shape[0], first + 2 * step < rows
        if is_sum and xp.mutable_arrays:
            low[:size] += high  # a sum is ours to change, the terms of a penalty are not
            return low
        return low + high if size == low.shape[0] else xp.concat([low[:size] + high, low[size:]], 0)

    return xp.sum(tree(0, 1))


def _blocked_gradient(
    parts: Parts, x: Array, upstream: Array | None, xp: Namespace, axes: Axes, *, exact: bool
) -> Array:
    flat, dtype, lift = xp.reshape(x, (-1,)), xp.dtype_name(x), xp.lift
    weights = [(c.penalty, xp.share(c.coefficient, mean_count(x.shape, axes))) for c in parts]
    if upstream is not None:
        weights = [(p, xp.multiply(upstream, w)) for p, w in weights]
    if exact and _is_normal(weight := np.float32(float(weights[0][1]))):
        lift, weights = xp.narrow, [(weights[0][0], float(weight))]

    def of(row: Array) -> Array:
        row = lift(row)
        summands = [p.terms_gradient(row, weight, xp=xp, axes=axes) for p, weight in weights]
        return xp.lower(sum(summands[1:], start=summands[0]), dtype)

    size = _size(x)
    block = int(xp.block_size(x) or size)
    if size <= block:
        return xp.reshape(of(flat), tuple(x.shape))
    out = xp.empty(flat, tuple(flat.shape))
    for start in range(0, size, block):
        out[start : start + block] = of(cut(flat, 0, start, start + block))
    return xp.reshape(out, tuple(x.shape))


def _gradient_by_blocks(
    parts: Parts, x: Array, upstream: Array | None, xp: Namespace, axes: Axes, blocks: Blocks
) -> Array:
    weights = [_term_weight(component, x, xp, axes) for component in parts]
    if upstream is not None:
        weights = [xp.multiply(upstream, weight) for weight in weights]
    out, dtype = xp.empty(x, tuple(x.shape)), xp.dtype_name(x)
    for start, stop in blocks:
        row = xp.lift(cut(x, blocks.axis, start, stop))
        found = [
            part.penalty.terms_gradient(row, weight, xp=xp, axes=axes)
            for part, weight in zip(parts, weights, strict=True)
        ]
        cut(out, blocks.axis, start, stop)[...] = xp.lower(sum(found[1:], start=found[0]), dtype)
    return out


def _is_exact(parts: Parts, x: Array, axes: Axes, xp: Namespace) -> bool:
    """Return whether the product with the weight is all that rounds, so that float32 serves as well as float64."""
    return (
        len(parts) == 1
        and parts[0].penalty.exact
        and axes.dtype != "float64"
        and axes.mask is None
        and xp.unordered_block(x) is not None
        and 0 not in x.shape
    )


def _is_normal(weight: np.float32) -> bool:
    return bool(weight == 0 or 2.0**-126 <= abs(weight) < math.inf)


def _size(x: Array) -> int:
    size = 1
    for n in x.shape:
        size *= int(n)
    return size
