"""Recurrent: what SimpleRNN, LSTM and GRU share: the walk over time, masks, the direction.

Every sequence stands in the order of time, index t belonging to input[:, t], whichever
way the layer walks. Walking in reverse, hidden_state[:, t] has seen the inputs t, t + 1, ...
(Keras' `go_backwards=True` returns its outputs in the order of processing: flip them.)

hidden_state[:, t] is the state after step t; the initial state is not part of it.

A step whose mask is false does not happen. The state is carried over it, and that is what
hidden_state and cell_state hold there; gates and pre_activation hold 0; the input has no
influence and no gradient. A penalty that is given the mask counts none of it.

A packed sequence (torch) is the mask `mask_of_lengths`: its steps end where the mask ends,
its final state is the carried one, and a reverse walk starts at its last valid step,
because the initial state is carried over the padding.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from arspec._errors import SpecError
from arspec.layers._functions import require_function
from arspec.layers._layer import Array, Record, ReferenceLayer, leading_mask, require_shape

State = tuple[Array, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One step: what it started from, its named tensors, and what its gradient needs."""

    x: Array
    before: State
    after: State
    tensors: dict[str, Array]
    saved: tuple[Array, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Recurrent(ReferenceLayer):
    """The walk of a cell over time.

    Parameters
    ----------
    kernel : (input, gates · units).
    recurrent_kernel : (units, gates · units).
    bias : (gates · units,), or None.
    activation : name of the function of the new content.
    return_sequences : whether output is the hidden state of every step, (batch, time,
        units), or the last one that is computed, (batch, units): that of the last step,
        of the first in reverse.
    reverse : whether it walks from the last step to the first.
    zero_output_for_mask : whether output holds 0 instead of the carried state on padded
        steps, as torch's padded packed sequences do.

    Notes
    -----
    `forward` takes `initial_state`, one array (batch, units) per state, 0 by default, and
    `backward` returns its gradient as "initial_hidden_state" and "initial_cell_state".

    Without return_sequences the output of an example whose steps are all padded is its
    initial state, and counts; drop it by a mask over the batch.
    """

    parameter_axes: ClassVar = {"kernel": "input output", "recurrent_kernel": "input output", "bias": "output"}
    state_names: ClassVar[tuple[str, ...]] = ("hidden_state",)
    step_names: ClassVar[tuple[str, ...]] = ()
    gates: ClassVar[int] = 1

    kernel: Array
    recurrent_kernel: Array
    bias: Array | None = None
    activation: str = "tanh"
    return_sequences: bool = True
    reverse: bool = False
    zero_output_for_mask: bool = False

    def __post_init__(self) -> None:
        who = type(self).__name__
        self._lift({"kernel": 2, "recurrent_kernel": 2, "bias": (1, 2)})
        require_shape(who, "recurrent_kernel", self.recurrent_kernel, (self.units, self.gates * self.units))
        require_shape(who, "kernel", self.kernel, (len(self.kernel), self.gates * self.units))
        require_shape(who, "bias", self.bias, self._bias_shape())
        require_function(who, "activation", self.activation, elementwise=True)

    @property
    def units(self) -> int:
        """How many entries a state has."""
        return len(self.recurrent_kernel)

    def _bias_shape(self) -> tuple[int, ...]:
        return (self.gates * self.units,)

    @abstractmethod
    def _step(self, x: Array, state: State) -> Step:
        """Compute one step of shape (batch, ...)."""

    @abstractmethod
    def _step_backward(
        self, step: Step, at_state: State, at: dict[str, Array]
    ) -> tuple[Array, State, dict[str, Array]]:
        """Return the gradients of x, of the state before and of the parameters.

        They are given those of the state after (`at_state`) and of the named tensors (`at`).
        """

    def forward(self, x: Any, /, *, mask: Any = None, initial_state: Any = None) -> Record:
        x = self._input(x, len(self.kernel), 3)
        valid = leading_mask(mask, x)
        happens = _every_step(valid, x)
        state = self._initial(initial_state, len(x))
        names = (*self.state_names, *self.step_names)
        sequences = {name: np.zeros((*x.shape[:2], self.units)) for name in names}
        steps: list[Step] = []
        for t in self._order(x):
            step = self._step(np.where(happens[:, t], x[:, t], 0.0), state)
            steps.append(step)
            state = tuple(np.where(happens[:, t], new, old) for new, old in zip(step.after, state, strict=True))
            for name, tensor in step.tensors.items():
                sequences[name][:, t] = np.where(happens[:, t], tensor, 0.0)
            for name, tensor in zip(self.state_names, state, strict=True):
                sequences[name][:, t] = tensor
        output = self._output(sequences["hidden_state"], state[0], happens)
        tensors = {"input": x, **sequences, "output": output}
        masks = {**dict.fromkeys(tensors, valid), "output": self._output_mask(valid)}
        return Record({**tensors, **self.parameters()}, masks, {"steps": steps, "happens": happens})

    def _backward(self, record: Record, upstream: dict[str, Array]) -> dict[str, Array]:
        x, happens = record["input"], record.saved["happens"]
        at_x = np.zeros(x.shape)
        at_state, at_hidden = self._output_backward(upstream, happens)
        at_states = {**upstream, "hidden_state": upstream["hidden_state"] + at_hidden}
        found = {name: np.zeros(parameter.shape) for name, parameter in self.parameters().items()}
        for t, step in reversed(list(zip(self._order(x), record.saved["steps"], strict=True))):
            at_state = tuple(a + at_states[name][:, t] for a, name in zip(at_state, self.state_names, strict=True))
            live = tuple(np.where(happens[:, t], a, 0.0) for a in at_state)
            at = {name: np.where(happens[:, t], upstream[name][:, t], 0.0) for name in self.step_names}
            at_x[:, t], at_before, parameters = self._step_backward(step, live, at)
            at_state = tuple(b + np.where(happens[:, t], 0.0, a) for b, a in zip(at_before, at_state, strict=True))
            for name in found:
                found[name] += parameters[name]
        initial = {f"initial_{name}": a for name, a in zip(self.state_names, at_state, strict=True)}
        return {"input": at_x, **found, **initial}

    def _order(self, x: Array) -> Sequence[int]:
        steps = range(x.shape[1])
        return steps[::-1] if self.reverse else steps

    def _initial(self, given: Any, batch: int) -> State:
        if given is None:
            return tuple(np.zeros((batch, self.units)) for _ in self.state_names)
        listed = given if isinstance(given, list | tuple) else (given,)
        state = tuple(np.asarray(array, np.float64) for array in listed)
        if [s.shape for s in state] != [(batch, self.units)] * len(self.state_names):
            shapes = ", ".join(str(s.shape) for s in state)
            wanted = f"{len(self.state_names)} of shape {(batch, self.units)}"
            raise SpecError(f"{type(self).__name__}: initial_state has the shapes {shapes}; expected {wanted}.")
        return state

    def _output(self, hidden: Array, last: Array, happens: Array) -> Array:
        if not self.return_sequences:
            return last
        return np.where(happens, hidden, 0.0) if self.zero_output_for_mask else hidden.copy()

    def _output_backward(self, upstream: dict[str, Array], happens: Array) -> tuple[State, Array | float]:
        """Return the gradients of the last state and of every hidden state, from that of output."""
        at_state = tuple(np.zeros((len(happens), self.units)) for _ in self.state_names)
        if not self.return_sequences:
            return (upstream["output"], *at_state[1:]), 0.0
        at_output = upstream["output"]
        return at_state, np.where(happens, at_output, 0.0) if self.zero_output_for_mask else at_output

    def _output_mask(self, valid: Array | None) -> Array | None:
        return valid if self.return_sequences or valid is None or valid.ndim == 1 else None


def mask_of_lengths(lengths: Any, time: int) -> Array:
    """Return the mask (batch, time) of sequences that are padded behind their lengths.

    Example
    -------
    >>> mask_of_lengths([1, 3], 3)
    array([[ True, False, False],
           [ True,  True,  True]])
    """
    return np.arange(time) < np.asarray(lengths)[:, None]


def _every_step(valid: Array | None, x: Array) -> Array:
    """Return the mask of every step, (batch, time, 1)."""
    if valid is None:
        return np.ones((*x.shape[:2], 1), bool)
    return np.broadcast_to(valid if valid.ndim == 2 else valid[:, None], x.shape[:2])[..., None]
