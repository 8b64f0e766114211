"""GRU: two gates, and two conventions for the one that resets."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from arspec.layers._functions import activate, activation_gradient, require_function
from arspec.layers._layer import Array
from arspec.layers._recurrent import Recurrent, State, Step

_GATES = ("update_gate", "reset_gate", "cell_gate")


@dataclass(frozen=True, slots=True, eq=False)
class GRU(Recurrent):
    """z, r, n from a = input_t · kernel + b and the state h = hidden_state_{t−1}:

    z = σ(a_z + h · R_z + b'_z),  r = σ(a_r + h · R_r + b'_r)
    n = activation(a_n + r · (h · R_n + b'_n))     with reset_after
    n = activation(a_n + (r · h) · R_n)            without
    hidden_state_t = z · h + (1 − z) · n

    Parameters
    ----------
    kernel, recurrent_kernel, ... : as for `Recurrent`, with gates = 3 in the order z, r, n
        of Keras; torch's order is r, z, n.
    bias : with reset_after (2, 3 · units): b, then b'; a penalty sees both as one axis
        "output". Without, (3 · units,): b alone. Or None.
    recurrent_activation : name of the function σ of the two gates.
    reset_after : whether the state is reset after its matrix product (Keras' default,
        torch, JAX) or before it.

    Notes
    -----
    update_gate = z is the share of the old state that is kept, in every framework read;
    some papers call 1 − z so. reset_gate = r; cell_gate = n, the new content. There is no
    pre_activation: with reset_after, n has two affine maps.

    References
    ----------
    K. Cho et al., Learning phrase representations using RNN encoder-decoder, 2014,
    equations (5) to (8), version 1 (reset after) and version 3 (reset before).
    """

    step_names: ClassVar = _GATES
    gates: ClassVar = 3
    recurrent_activation: str = "sigmoid"
    reset_after: bool = True

    def __post_init__(self) -> None:
        Recurrent.__post_init__(self)
        require_function("GRU", "recurrent_activation", self.recurrent_activation, elementwise=True)

    def _bias_shape(self) -> tuple[int, ...]:
        return (2, 3 * self.units) if self.reset_after else (3 * self.units,)

    def penalized(self, placement: str, tensor: Array) -> Array:
        return tensor.reshape(-1) if placement == "bias" else tensor

    def _biases(self) -> tuple[Array | float, Array | float]:
        if self.bias is None:
            return 0.0, 0.0
        return (self.bias[0], self.bias[1]) if self.reset_after else (self.bias, 0.0)

    def _step(self, x: Array, state: State) -> Step:
        hidden, units = state[0], self.units
        of_input, of_state = self._biases()
        a = x @ self.kernel + of_input
        b = hidden @ self.recurrent_kernel + of_state
        at_gates = (a + b)[:, : 2 * units]
        update, reset = np.split(activate(self.recurrent_activation, at_gates), 2, -1)
        inner = b[:, 2 * units :]
        if self.reset_after:
            at_new = a[:, 2 * units :] + reset * inner
        else:
            at_new = a[:, 2 * units :] + (reset * hidden) @ self.recurrent_kernel[:, 2 * units :]
        new = activate(self.activation, at_new)
        tensors = {"update_gate": update, "reset_gate": reset, "cell_gate": new}
        return Step(x, state, (update * hidden + (1 - update) * new,), tensors, (at_gates, at_new, inner))

    def _step_backward(
        self, step: Step, at_state: State, at: dict[str, Array]
    ) -> tuple[Array, State, dict[str, Array]]:
        (at_gates, at_new, inner), hidden, (at_hidden,) = step.saved, step.before[0], at_state
        update, reset, new = (step.tensors[name] for name in _GATES)
        new_slope = activation_gradient(self.activation, at_new, new, at_hidden * (1 - update) + at["cell_gate"])
        recurrent = self.recurrent_kernel[:, 2 * self.units :]
        at_mixed = new_slope @ recurrent.T  # of what R_n multiplies, without reset_after
        at_reset = new_slope * inner if self.reset_after else at_mixed * hidden
        gradient = np.concatenate([at_hidden * (hidden - new) + at["update_gate"], at_reset + at["reset_gate"]], -1)
        gates = np.concatenate([update, reset], -1)
        slope = activation_gradient(self.recurrent_activation, at_gates, gates, gradient)
        of_input = np.concatenate([slope, new_slope], -1)
        before, parameters = self._state_backward(step, slope, new_slope, at_mixed)
        parameters |= {"kernel": step.x.T @ of_input, "bias": self._bias_gradient(of_input, slope, new_slope * reset)}
        return of_input @ self.kernel.T, (before + at_hidden * update,), parameters

    def _state_backward(
        self, step: Step, slope: Array, new_slope: Array, at_mixed: Array
    ) -> tuple[Array, dict[str, Array]]:
        """Return the gradients of h and of recurrent_kernel through the products with it."""
        hidden, reset, cut = step.before[0], step.tensors["reset_gate"], 2 * self.units
        before = slope @ self.recurrent_kernel[:, :cut].T
        if self.reset_after:
            inner_slope = new_slope * reset
            before = before + inner_slope @ self.recurrent_kernel[:, cut:].T
            last = hidden.T @ inner_slope
        else:
            before = before + at_mixed * reset
            last = (reset * hidden).T @ new_slope
        return before, {"recurrent_kernel": np.concatenate([hidden.T @ slope, last], -1)}

    def _bias_gradient(self, of_input: Array, slope: Array, inner_slope: Array) -> Array:
        if not self.reset_after:
            return of_input.sum(0)
        return np.stack([of_input.sum(0), np.concatenate([slope, inner_slope], -1).sum(0)])
