"""SimpleRNN: one affine map and one activation function per step."""

from dataclasses import dataclass
from typing import ClassVar

from arspec.layers._functions import activate, activation_gradient
from arspec.layers._layer import Array
from arspec.layers._recurrent import Recurrent, State, Step


@dataclass(frozen=True, slots=True, eq=False)
class SimpleRNN(Recurrent):
    """pre_activation_t = input_t · kernel + hidden_state_{t−1} · recurrent_kernel + bias;
    hidden_state_t = activation(pre_activation_t).

    Parameters as for `Recurrent`, with gates = 1. torch's nn.RNN has two biases, of which
    bias is the sum.

    Example
    -------
    >>> import numpy as np
    >>> layer = SimpleRNN(np.array([[1.0]]), np.array([[1.0]]), activation="linear")
    >>> record = layer.forward(np.array([[[1.0], [2.0], [4.0]]]), mask=np.array([[True, False, True]]))
    >>> record["hidden_state"][0, :, 0], record["pre_activation"][0, :, 0]
    (array([1., 1., 5.]), array([1., 0., 5.]))
    """

    step_names: ClassVar = ("pre_activation",)

    def _step(self, x: Array, state: State) -> Step:
        z = x @ self.kernel + state[0] @ self.recurrent_kernel + (0.0 if self.bias is None else self.bias)
        return Step(x, state, (activate(self.activation, z),), {"pre_activation": z})

    def _step_backward(
        self, step: Step, at_state: State, at: dict[str, Array]
    ) -> tuple[Array, State, dict[str, Array]]:
        z = step.tensors["pre_activation"]
        slope = at["pre_activation"] + activation_gradient(self.activation, z, step.after[0], at_state[0])
        return affine_backward(self, step, slope)


def affine_backward(layer: Recurrent, step: Step, slope: Array) -> tuple[Array, State, dict[str, Array]]:
    """Return the gradients of x · kernel + h · recurrent_kernel + bias, given that of its result."""
    parameters = {"kernel": step.x.T @ slope, "recurrent_kernel": step.before[0].T @ slope, "bias": slope.sum(0)}
    return slope @ layer.kernel.T, (slope @ layer.recurrent_kernel.T,), parameters
