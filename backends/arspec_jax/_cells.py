"""One step of a recurrent cell: its gates, computed again from what goes in.

A cell of Flax or Equinox returns its state alone. Its gates are functions of the input of the
step, the state before it and the weights, so they are computed a second time, beside the
cell, and named; what no rule asks for is never evaluated. `arspec.layers` defines the gates.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from arspec_jax._site import mark

Array = Any

LSTM, GRU, SIMPLE = "lstm", "gru", "simple"
STATES = {LSTM: ("hidden_state", "cell_state"), GRU: ("hidden_state",), SIMPLE: ("hidden_state",)}
GATES = {
    LSTM: ("input_gate", "forget_gate", "cell_gate", "output_gate"),
    GRU: ("update_gate", "reset_gate", "cell_gate"),
    SIMPLE: ("pre_activation",),
}
ALL = (*STATES[LSTM], *GATES[LSTM], "update_gate", "reset_gate", "pre_activation")


@dataclass(frozen=True)
class Cell:
    """What a step needs: weights as `arspec.layers` orders them, and functions.

    Attributes
    ----------
    kind : "lstm", "gru" or "simple".
    weights : "kernel" (input, gates · units), "recurrent_kernel" (units, gates · units) and
        "bias", if there is one; that of a GRU ends with the bias of its recurrent map of n.
    gate, activation : functions of the gates and of the new content.
    dtype : in which the cell computes, or None for that of its operands.
    """

    kind: str
    weights: Mapping[str, Array]
    gate: Callable[[Array], Array] = jax.nn.sigmoid
    activation: Callable[[Array], Array] = jnp.tanh
    dtype: Any = None

    def gates(self, x: Array, hidden: Array) -> dict[str, Array]:
        """Return the gates of a step by placement; for a simple cell, its pre_activation."""
        operands = [x, hidden, self.weights["kernel"], self.weights["recurrent_kernel"]]
        dtype = self.dtype or jnp.result_type(*operands)
        x, hidden, kernel, recurrent = (jnp.asarray(operand, dtype) for operand in operands)
        bias = jnp.asarray(self.weights.get("bias", 0.0), dtype)
        if self.kind == GRU:
            return self._gru(x @ kernel, hidden @ recurrent, bias)
        sums = x @ kernel + hidden @ recurrent + bias
        if self.kind == SIMPLE:
            return {"pre_activation": sums}
        functions = (self.gate, self.gate, self.activation, self.gate)
        parts = zip(GATES[LSTM], functions, jnp.split(sums, 4, -1), strict=True)
        return {name: function(part) for name, function, part in parts}

    def _gru(self, of_input: Array, of_state: Array, bias: Array) -> dict[str, Array]:
        units = of_state.shape[-1] // 3
        of_new = bias[3 * units :] if bias.shape[-1:] == (4 * units,) else 0.0
        at_input = of_input + (bias[: 3 * units] if bias.ndim else bias)
        update, reset, new = zip(jnp.split(at_input, 3, -1), jnp.split(of_state, 3, -1), strict=True)
        opened = self.gate(reset[0] + reset[1])
        return {
            "update_gate": self.gate(update[0] + update[1]),
            "reset_gate": opened,
            "cell_gate": self.activation(new[0] + opened * (new[1] + of_new)),
        }


@dataclass(frozen=True)
class Walk:
    """The recurrent layer that a cell belongs to: its path, its direction, the mask of its steps.

    `is_cell` says that there is none but the cell itself, whose loop is a person's own.
    """

    path: str
    reverse: bool = False
    mask: Array | None = None
    is_cell: bool = False

    @property
    def label(self) -> str:
        return "reversed" if self.reverse else "step"


def mark_step(walk: Walk, cell: Cell, x: Array, before: Array, after: tuple[Array, ...]) -> tuple[Array, ...]:
    """Name everything about one step; return the state after it.

    `before` is the hidden state it started from, `after` the states in the order of `STATES`.
    """
    named = {"input": x, "output": after[0]} if walk.is_cell else {}
    for placement, tensor in {**named, **cell.gates(x, before)}.items():
        mark(tensor, walk.path, placement, walk=walk.label, mask=walk.mask)
    states = zip(STATES[cell.kind], after, strict=True)
    return tuple(
        mark(state, walk.path, placement, walk=walk.label, mask=walk.mask, before=before) for placement, state in states
    )
