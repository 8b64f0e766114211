"""Recurrent layers in Equinox: modules of one example, whose two affine maps are eqx.nn.Linear.

The layers are those of `_recurrent.py`. Being held in eqx.nn.Linear, kernel, recurrent kernel
and bias can be named in rules.
"""

from typing import Any

from arspec.port import _kinds as kinds
from arspec.port._graph import Node
from arspec_jax.port._recurrent import GATES, Idiom


def _weights(w: Any, cell: Any, node: Node, path: str, attribute: str, side: str, features: int) -> None:
    wide, target = GATES[type(cell)] * cell.units, w.path_of(attribute)
    place, prefix = (f"{path}/{side}", f"{side}/") if side else (path, "")
    maps = {"kernel": ("of_input", features), "recurrent_kernel": ("of_state", cell.units)}
    for role, (name, size) in maps.items():
        w.weight(path, prefix + role, f"{target}.{name}.weight", (wide, size), ("transpose", (1, 0)))
        w.place(place, role, f"{target}.{name}", "kernel")
    if cell.use_bias and _has_two_biases(cell):
        for row, (name, _) in enumerate(maps.values()):
            cut = ((0, row, row + 1),)
            w.weight(path, f"{prefix}bias", f"{target}.{name}.bias", (wide,), ("reshape", (wide,)), take=cut)
    elif cell.use_bias:
        w.weight(path, f"{prefix}bias", f"{target}.of_input.bias", (wide,))
        w.place(place, "bias", f"{target}.of_input", "bias")
    w.place(path, "input", target, "input")


def _has_two_biases(cell: Any) -> bool:
    return isinstance(cell, kinds.GRU) and cell.reset_after


EQUINOX = Idiom(last="[-1]", axis=0, random="key=next(keys)", functions="jax.nn", weights=_weights)

_WALKED = '''def walked(
    step: Callable[..., tuple[jax.Array, ...]],
    states: tuple[jax.Array, ...],
    x: jax.Array,
    mask: jax.Array | None,
    reverse: bool,
    zero_masked: bool,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Run a step over time; return the outputs, in the order of the walk, and the last states.

    Where the mask is false the states stay, and the output is that of the step before, or 0.
    """
    valid = jnp.ones(len(x), bool) if mask is None else mask

    def body(carry: tuple[tuple[jax.Array, ...], jax.Array], given: tuple[jax.Array, jax.Array]):
        states, before = carry
        x, counts = given
        found = step(states, x)
        output = jnp.where(counts, found[0], 0.0 if zero_masked else before)
        return (tuple(jnp.where(counts, new, old) for new, old in zip(found, states)), output), output

    start = (states, jnp.zeros_like(states[0]))
    (states, _), outputs = jax.lax.scan(body, start, (x, valid), reverse=reverse)
    return jnp.flip(outputs, 0) if reverse else outputs, states'''

_CLASS = '''class {name}(eqx.Module):
    """{text}"""

    of_input: eqx.nn.Linear
    of_state: eqx.nn.Linear
    activation: Callable[[jax.Array], jax.Array] = eqx.field(static=True){gate_field}
    units: int = eqx.field(static=True)
    reverse: bool = eqx.field(static=True)
    zero_masked: bool = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        units: int,
        *,
        activation: Callable[[jax.Array], jax.Array] = jax.nn.tanh,{gate_argument}
        use_bias: bool = True,
        reverse: bool = False,
        zero_masked: bool = False,
        key: jax.Array,
    ) -> None:
        first, second = jax.random.split(key)
        self.of_input = eqx.nn.Linear(features, {gates}units, use_bias=use_bias, key=first)
        self.of_state = eqx.nn.Linear(units, {gates}units, use_bias={second_bias}, key=second)
        self.activation{gate_target} = activation{gate_value}
        self.units, self.reverse, self.zero_masked = units, reverse, zero_masked

    def __call__(
        self,
        x: jax.Array,
        states: tuple[jax.Array, ...] | None = None,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        if states is None:
            states = (jnp.zeros(self.units, x.dtype),) * {count}
        return walked(self.step, states, x, mask, self.reverse, self.zero_masked)

    def step(self, states: tuple[jax.Array, ...], x: jax.Array) -> tuple[jax.Array, ...]:
{step}'''


def _class(name: str, text: str, gates: int, step: str, *, states: int = 1, two_biases: bool = False) -> str:
    return _CLASS.format(
        name=name,
        text=text,
        gates=f"{gates} * " if gates > 1 else "",
        second_bias="use_bias" if two_biases else "False",
        count=states,
        step=step,
        gate_field="\n    gate: Callable[[jax.Array], jax.Array] = eqx.field(static=True)" if gates > 1 else "",
        gate_argument="\n        gate: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid," if gates > 1 else "",
        gate_target=", self.gate" if gates > 1 else "",
        gate_value=", gate" if gates > 1 else "",
    )


HELPERS = {
    "walked": _WALKED,
    "SimpleRNN": _class(
        "SimpleRNN",
        "h = activation(of_input(x) + of_state(h)).",
        1,
        "        return (self.activation(self.of_input(x) + self.of_state(states[0])),)",
    ),
    "LSTM": _class(
        "LSTM",
        "A long short-term memory: gates input, forget, cell, output, and one bias.",
        4,
        """        i, f, g, o = jnp.split(self.of_input(x) + self.of_state(states[0]), 4)
        c = self.gate(f) * states[1] + self.gate(i) * self.activation(g)
        return self.gate(o) * self.activation(c), c""",
        states=2,
    ),
    "GRU": _class(
        "GRU",
        "A gated recurrent unit: gates update, reset, hidden, which is reset after its product; two biases.",
        3,
        """        x_update, x_reset, x_hidden = jnp.split(self.of_input(x), 3)
        h_update, h_reset, h_hidden = jnp.split(self.of_state(states[0]), 3)
        update = self.gate(x_update + h_update)
        hidden = self.activation(x_hidden + self.gate(x_reset + h_reset) * h_hidden)
        return (update * states[0] + (1.0 - update) * hidden,)""",
        two_biases=True,
    ),
    "ResetBeforeGRU": _class(
        "ResetBeforeGRU",
        "A gated recurrent unit: gates update, reset, hidden, where the state is reset before its product; one bias.",
        3,
        """        x_update, x_reset, x_hidden = jnp.split(self.of_input(x), 3)
        h_update, h_reset, weight = jnp.split(self.of_state.weight, 3)
        update = self.gate(x_update + h_update @ states[0])
        reset = self.gate(x_reset + h_reset @ states[0])
        hidden = self.activation(x_hidden + weight @ (reset * states[0]))
        return (update * states[0] + (1.0 - update) * hidden,)""",
    ),
}
