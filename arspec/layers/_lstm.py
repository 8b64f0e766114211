"""LSTM: four gates and a cell."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from arspec.layers._functions import activate, activation_gradient, require_function
from arspec.layers._layer import Array
from arspec.layers._recurrent import Recurrent, State, Step
from arspec.layers._simple_rnn import affine_backward

_GATES = ("input_gate", "forget_gate", "cell_gate", "output_gate")


@dataclass(frozen=True, slots=True, eq=False)
class LSTM(Recurrent):
    """i, f, g, o = the four parts of input_t · kernel + hidden_state_{t−1} · recurrent_kernel + bias;

    cell_state_t   = σ(f) · cell_state_{t−1} + σ(i) · activation(g)
    hidden_state_t = σ(o) · activation(cell_state_t)

    Parameters
    ----------
    kernel, recurrent_kernel, bias, ... : as for `Recurrent`, with gates = 4 in the order
        i, f, g, o of Keras and torch. torch has two biases, of which bias is the sum.
    recurrent_activation : name of the function σ of the three gates.

    Notes
    -----
    Every gate is named after its function: input_gate = σ(i), forget_gate = σ(f),
    output_gate = σ(o), cell_gate = activation(g). cell_state is c, before the activation
    that leads to h. There is no pre_activation: four of them would be one tensor.

    The bias is the parameter itself: what some frameworks add to the forget gate outside
    of it is not part of it.

    References
    ----------
    S. Hochreiter, J. Schmidhuber, Long short-term memory, Neural Computation 9, 1997; with
    the forget gate of F. Gers et al., Learning to forget, 2000.
    """

    state_names: ClassVar = ("hidden_state", "cell_state")
    step_names: ClassVar = _GATES
    gates: ClassVar = 4
    recurrent_activation: str = "sigmoid"

    def __post_init__(self) -> None:
        Recurrent.__post_init__(self)
        require_function("LSTM", "recurrent_activation", self.recurrent_activation, elementwise=True)

    def _functions(self) -> tuple[str, ...]:
        gate = self.recurrent_activation
        return gate, gate, self.activation, gate

    def _step(self, x: Array, state: State) -> Step:
        hidden, cell = state
        z = x @ self.kernel + hidden @ self.recurrent_kernel + (0.0 if self.bias is None else self.bias)
        i, f, g, o = (activate(n, part) for n, part in zip(self._functions(), np.split(z, 4, -1), strict=True))
        new_cell = f * cell + i * g
        shown = activate(self.activation, new_cell)
        return Step(x, state, (o * shown, new_cell), dict(zip(_GATES, (i, f, g, o), strict=True)), (z, shown))

    def _step_backward(
        self, step: Step, at_state: State, at: dict[str, Array]
    ) -> tuple[Array, State, dict[str, Array]]:
        (z, shown), (at_hidden, at_cell) = step.saved, at_state
        i, f, g, o = (step.tensors[name] for name in _GATES)
        at_cell = at_cell + activation_gradient(self.activation, step.after[1], shown, at_hidden * o)
        at_gates = (at_cell * g, at_cell * step.before[1], at_cell * i, at_hidden * shown)
        slopes = [
            activation_gradient(function, part, gate, gradient + at[name])
            for function, part, gate, gradient, name in zip(
                self._functions(), np.split(z, 4, -1), (i, f, g, o), at_gates, _GATES, strict=True
            )
        ]
        at_x, (at_before,), parameters = affine_backward(self, step, np.concatenate(slopes, -1))
        return at_x, (at_before, at_cell * f), parameters
