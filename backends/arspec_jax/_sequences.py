"""From the tensors of a trace to those that a penalty sees: calls apart, steps along "time", masks beside."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import jax.numpy as jnp

from arspec import UnsupportedError
from arspec._placements import ACTIVATIONS
from arspec_jax._scope import Place, hoisted

Array = Any
Request = tuple[Any, Any]  # a scope and a variable in it


@dataclass(frozen=True)
class Seen:
    """A tensor that a penalty sees.

    Attributes
    ----------
    array : with `calls` axes in front, over which the penalty is summed, not applied.
    calls : how many.
    axes : names of the others, or None for the default names.
    mask : boolean, over the leading ones of the others, or None.
    mask_calls : how many axes for calls the mask has.
    """

    array: Array
    calls: int = 0
    axes: str | None = None
    mask: Array | None = None
    mask_calls: int = 0


@dataclass(frozen=True)
class Spot:
    """Where one tensor of a site stands: its place, the variable to read, its mask.

    `source` differs from the place where an activation function follows a layer. It may lie
    outside of loops that the place is inside of; it then has their axes already.
    """

    place: Place
    source: Request

    @property
    def requests(self) -> list[Request]:
        return [self.source, *self._mask]

    @property
    def _mask(self) -> list[Request]:
        mask = self.place.beside.get("mask")
        return [] if mask is None else [hoisted(self.place.scope, mask)]

    def seen(self, arrays: Sequence[Array]) -> Seen:
        """Return the tensor, given what `requests` asks for."""
        depth = self.place.scope.depth
        if self.place.label.placement not in ACTIVATIONS:
            return Seen(arrays[0], self.source[0].depth + self.place.label.mapped)
        mask, calls = (arrays[1], self._mask[0][0].depth) if self._mask else (None, 0)
        found = Seen(arrays[0], depth, None, mask, calls)
        if depth == 0 or not self.place.label.walk:
            return found
        return _along_time(found, depth, reverse=self.place.label.walk == "reversed")


def looped(spots: Sequence[Spot], arrays: Sequence[Sequence[Array]]) -> Seen:
    """Join the steps of a Python loop to one sequence; their masks are that of the sequence."""
    first = spots[0].seen(arrays[0])
    steps = jnp.stack([one[0] for one in arrays])
    return _along_time(replace(first, array=steps), 1, reverse=spots[0].place.label.walk == "reversed")


def is_loose_step(place: Place) -> bool:
    """Return whether a place is one step of a cell outside of any scan."""
    return place.label.walk in ("step", "reversed") and place.scope.depth == 0


def check_steps(key: str, states: Sequence[Place]) -> None:
    """Raise unless the calls of a cell make sequences.

    Outside of scans every call must start from the state that the one before it returned; in
    the body of a scan none may.
    """
    loose = [place for place in states if is_loose_step(place)]
    if not all(_continues(before, after) for before, after in pairwise(loose)):
        raise UnsupportedError(
            f"{key}: the cell is called {len(loose)} times, and its state does not go from call to call as it is, so "
            "that the steps are no one sequence. Use an RNN layer or a scan, or name the sequence by arspec_jax.site."
        )
    inside = [place for place in states if place.scope.depth > 0]
    if any(_continues(before, after) for before, after in pairwise(inside)):
        raise UnsupportedError(
            f"{key}: an iteration of a scan calls the cell more than once, so that its iterations are no steps. "
            "Let each make one step (the option unroll of scan is as quick)."
        )


def _continues(before: Place, after: Place) -> bool:
    return after.beside.get("before") is before.variable


def _along_time(found: Seen, depth: int, *, reverse: bool) -> Seen:
    """Move the axis of the innermost loop behind those of the batch, which become one."""
    calls, mask = depth - 1, found.mask
    array = jnp.moveaxis(found.array, calls, -2)
    if mask is not None and found.mask_calls == depth:  # a mask per step
        mask = jnp.moveaxis(mask, calls, -1)
    mask_calls = min(found.mask_calls, calls)
    batch = array.shape[calls:-2]
    if len(batch) > 1:
        array = array.reshape(*array.shape[:calls], -1, *array.shape[-2:])
        if mask is not None:
            mask = mask.reshape(*mask.shape[:mask_calls], -1, *mask.shape[mask_calls + len(batch) :])
    if reverse:
        array = flipped(array, mask, axis=-2)
    axes = "batch time feature" if batch else "time feature"
    return Seen(array, calls, axes, mask, mask_calls)


def flipped(array: Array, mask: Array | None, *, axis: int) -> Array:
    """Turn sequences around in time, each within its own length; padding stays behind.

    `mask` has the leading axes of `array` up to time, or is None; it must be that of lengths.
    """
    if mask is None:
        return jnp.flip(array, axis)
    time = array.shape[axis]
    lengths = jnp.sum(mask, -1, dtype=jnp.int32)[..., None]
    order = (lengths - 1 - jnp.arange(time)) % time
    order = order.reshape(order.shape + (1,) * (-1 - axis))
    return jnp.take_along_axis(array, jnp.broadcast_to(order, array.shape), axis)
