"""What a layer of Flax names when it runs: its input, its result, the steps of its walk."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from arspec_jax import _cells
from arspec_jax._flax_kinds import (
    cell_kind,
    cell_of,
    class_of,
    has_class,
    is_affine,
    is_bidirectional,
    is_cell,
    is_rnn,
    roles_of,
)
from arspec_jax._roles import Role
from arspec_jax._sequences import flipped
from arspec_jax._site import mark

Array = Any
_SEVERAL = "its arrays hold those of several layers, and which axis counts them is not known. Use a layer of Flax."
Fetch = Callable[[Any, str], Any]


@dataclass
class Ran:
    """A layer that ran: the module and where it lives, and the cell of an RNN."""

    module: Any
    path: str
    cell: Any = None
    cell_path: str | None = None


class Watch:
    """One forward pass: which layers ran, which recurrent layers are running, and how to read the arrays of a layer.

    Parameters
    ----------
    fetch : gives an array of a module by its path inside it, or None.
    stacked : by layer, the parameters that must be read where it runs.
    reshaped : whether the arrays of a layer have other ranks where it runs.
    """

    def __init__(
        self,
        fetch: Fetch,
        stacked: Callable[[str, Any, Mapping[str, Role]], Mapping[str, Role]],
        reshaped: Callable[[str, Any], bool],
    ) -> None:
        self.ran: dict[str, Ran] = {}
        self.without_weights: dict[str, str] = {}
        self._makers: list[str] = []
        self._reshaped = reshaped
        self._fetch = fetch
        self._stacked = stacked
        self._bidirectional: list[str] = []
        self._walks: list[_cells.Walk | None] = []

    def call(self, module: Any, path: str, run: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """Run a layer and name its tensors; return what it returns."""
        if is_rnn(module):
            return self._walk(module, path, run, args, kwargs)
        if is_cell(module):
            return self._step(module, path, run, args, kwargs)
        self.ran[path] = Ran(module, _home(module, path))
        if is_bidirectional(module):
            return self._both(module, path, run, args, kwargs)
        if self._makers:
            self.without_weights[path] = f"a {self._makers[-1]} makes the weight of this layer of another array."
        if not self._name_weights(module, path) and self._reshaped(path, module):
            self.without_weights[path] = _SEVERAL
        if args:
            mark(args[0], path, "input")
        if has_class(module, ("RNN",)):  # a person's own, which may do anything with its cell
            return mark(self._within(None, run, args, kwargs), path, "output")
        if has_class(module, ("WeightNorm", "SpectralNorm")):
            self._makers.append(class_of(module).__name__)
            try:
                return mark(run(*args, **kwargs), path, "output")
            finally:
                self._makers.pop()
        return mark(run(*args, **kwargs), path, "pre_activation" if is_affine(module) else "output")

    def _both(self, module: Any, path: str, run: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """Run both directions; the layer around them has an input and an output."""
        time_major = _is_time_major(module, kwargs)
        x = _inputs(args, kwargs)
        valid = _mask(x, kwargs, time_major)
        self._bidirectional.append(path)
        try:
            result = run(*args, **kwargs)
        finally:
            self._bidirectional.pop()
        ends = {"input": x, "output": result[1] if isinstance(result, tuple) else result}
        for placement, tensor in ends.items():
            mark(_batch_first(tensor, time_major), path, placement, mask=valid)
        return result

    def path_of_rnn(self, path: str, reverse: bool) -> str:
        """Return the path of a recurrent layer: that of a direction inside of a Bidirectional."""
        if not self._bidirectional:
            return path
        return f"{self._bidirectional[-1]}/{'backward' if reverse else 'forward'}"

    def _walk(self, rnn: Any, path: str, run: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        reverse, keep_order = _option(rnn, kwargs, "reverse"), _option(rnn, kwargs, "keep_order")
        time_major = _is_time_major(rnn, kwargs)
        x = _inputs(args, kwargs)
        walk = _cells.Walk(self.path_of_rnn(path, reverse), reverse, _mask(x, kwargs, time_major))
        self.ran[walk.path] = Ran(rnn, _home(rnn, path))
        self._name_weights(rnn.cell, walk.path)
        mark(_batch_first(x, time_major), walk.path, "input", mask=walk.mask)
        result = self._within(walk, run, args, kwargs)
        output = _batch_first(result[1] if isinstance(result, tuple) else result, time_major)
        if reverse and not keep_order and isinstance(output, jax.Array):
            output = flipped(output, walk.mask, axis=-2)
        mark(output, walk.path, "output", mask=walk.mask)
        return result

    def _within(self, walk: _cells.Walk | None, run: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """Run an RNN, whose cell then belongs to `walk`; None for a walk of which nothing is known."""
        bidirectional, self._bidirectional = self._bidirectional, []
        self._walks.append(walk)
        try:
            return run(*args, **kwargs)
        finally:
            self._walks.pop()
            self._bidirectional = bidirectional

    def _step(self, cell: Any, path: str, run: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        result = run(*args, **kwargs)
        walk = self._walks[-1] if self._walks else _cells.Walk(path, is_cell=True)
        if walk is None:
            self.ran[path] = Ran(cell, _home(cell, path))
            return result
        ran = self.ran.setdefault(walk.path, Ran(cell, _home(cell, path)))
        if self._walks:
            ran.cell, ran.cell_path = cell, _home(cell, path)
        kind = cell_kind(cell)
        if kind is None or len(args) != 2:
            return result
        (carry, x), (after, output) = args, result
        before = carry[1] if kind == _cells.LSTM else carry
        states = (after[1], after[0]) if kind == _cells.LSTM else (after,)
        marked = _cells.mark_step(walk, cell_of(cell, self._weights(cell)), x, before, states)
        after = (marked[1], marked[0]) if kind == _cells.LSTM else marked[0]
        return after, output

    def _weights(self, module: Any) -> dict[str, Array]:
        roles = roles_of(module, lambda leaf: self._fetch(module, leaf) is not None)
        return {name: self._read(module, role) for name, role in roles.items()}

    def _name_weights(self, module: Any, path: str) -> bool:
        """Name the weights of a layer inside a scan over layers; return whether its weights are known.

        There they are those of one layer. The weights of a bare cell would be those of a step.
        """
        roles = roles_of(module, lambda leaf: self._fetch(module, leaf) is not None)
        for name, role in self._stacked(path, module, roles).items():
            mark(self._read(module, role), path, name)
        return bool(roles)

    def _read(self, module: Any, role: Role) -> Array:
        return role.form([jnp.asarray(self._fetch(module, leaf)) for leaf in role.leaves])


def _home(module: Any, path: str) -> str:
    """Return where the arrays of a module live: in Linen that is the module's own path."""
    return "/".join(module.path) if isinstance(getattr(module, "path", None), tuple) else path


def _option(module: Any, kwargs: Mapping[str, Any], name: str) -> bool:
    given = kwargs.get(name)
    return bool(getattr(module, name) if given is None else given)


def _is_time_major(module: Any, kwargs: Mapping[str, Any]) -> bool:
    return _option(module, kwargs, "time_major")


def _inputs(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return args[0] if args else kwargs.get("inputs")


def _mask(x: Any, kwargs: Mapping[str, Any], time_major: bool) -> Array | None:
    """Return the mask (batch, time) that the lengths of the sequences make, or None."""
    lengths = kwargs.get("seq_lengths")
    if lengths is None:
        return None
    time = _batch_first(x, time_major).shape[-2]
    return jnp.arange(time) < jnp.asarray(lengths)[..., None]


def _batch_first(x: Any, time_major: bool) -> Any:
    """Put the axis of time behind those of the batch."""
    return jnp.moveaxis(x, 0, -2) if time_major and isinstance(x, jax.Array) else x
