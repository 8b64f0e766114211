"""Recurrent layers in JAX: modules of their own, with the gates, biases, masks and states of Keras.

No library has a cell with both biases of a GRU, and no mask but a length, so the layers are
written out: every option of Keras is exact. What an `Idiom` says is what NNX and Equinox
write differently; the classes of NNX stand here too, those of Equinox beside its helpers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from arspec.port import _kinds as kinds
from arspec.port._graph import Node
from arspec.port._kinds import Function, Kind
from arspec.port._source import Place, Value
from arspec_jax.port._functions import called

GATES: dict[type[Kind], int] = {kinds.SimpleRNN: 1, kinds.LSTM: 4, kinds.GRU: 3}
Weights = Callable[[Any, Any, Node, str, str, str, int], None]


@dataclass(frozen=True, slots=True)
class Idiom:
    """What libraries write differently.

    Attributes
    ----------
    last : picks the last step of a sequence.
    axis : of time.
    random : the last argument of a constructor.
    functions : the module of activation functions.
    weights : says where the weights of a cell go.
    """

    last: str
    axis: int
    random: str
    functions: str
    weights: Weights


def recurrent(w: Any, kind: Kind, node: Node, path: str, arguments: list[Value], *, idiom: Idiom) -> tuple[Value, ...]:
    """Write a recurrent layer or two directions of one, and return its output and, if asked for, its states."""
    if isinstance(kind, kinds.Bidirectional):
        return _both(w, kind, node, path, arguments, idiom)
    cell: Any = kind
    sequence, states = _walk(w, cell, node, path, w.name_layer(node), arguments, "", idiom, reverse=cell.reverse)
    w.layers.setdefault(path, Place(w.path_of(w.name_layer(node))))
    output = sequence if cell.return_sequences else f"{sequence}{idiom.last}"
    return _values(node, [output, *states] if cell.return_state else [output])


def _both(
    w: Any, kind: kinds.Bidirectional, node: Node, path: str, arguments: list[Value], idiom: Idiom
) -> tuple[Value, ...]:
    cell: Any = kind.layer
    outputs, found = [], []
    for side in ("forward", "backward"):
        name = w.extra(node, side)
        reverse = side == "backward"
        sequence, states = _walk(w, cell, node, path, name, arguments, side, idiom, reverse=reverse)
        turned = f"jnp.flip({sequence}, axis={idiom.axis})" if reverse else sequence
        outputs.append(turned if cell.return_sequences else f"{sequence}{idiom.last}")
        found += states
    first, second = outputs
    merged = {
        "concat": f"jnp.concatenate([{first}, {second}], axis=-1)",
        "sum": f"{first} + {second}",
        "mul": f"{first} * {second}",
        "ave": f"({first} + {second}) / 2",
    }[kind.merge]
    w.layers.setdefault(path, Place(w.path_of(w.extra(node, "forward"))))
    return _values(node, [merged, *found] if cell.return_state else [merged])


def _values(node: Node, texts: list[str]) -> tuple[Value, ...]:
    return tuple(Value(text, shape) for text, shape in zip(texts, node.shapes, strict=True))


def _walk(
    w: Any,
    cell: Any,
    node: Node,
    path: str,
    attribute: str,
    arguments: list[Value],
    side: str,
    idiom: Idiom,
    *,
    reverse: bool,
) -> tuple[str, list[str]]:
    """Write one direction; return the name of its sequence, in the order of the walk, and of its states."""
    x, rest = arguments[0], arguments[1:]
    w.helper("walked")
    w.helper(_helper(cell))
    w.attribute(attribute, _constructor(w, cell, int(x.shape[-1] or 0), reverse, idiom))
    if node.call == 0:
        idiom.weights(w, cell, node, path, attribute, side, int(x.shape[-1] or 0))
    count = 2 if isinstance(cell, kinds.LSTM) else 1
    given = f"({', '.join(value.text for value in rest[:count])},)" if cell.initial_state else ""
    mask = rest[-1].text if cell.masked else ""
    extra = "".join(f", {name}={text}" for name, text in (("states", given), ("mask", mask)) if text)
    sequence = w.identifier(f"{attribute}_sequence")
    states = [w.identifier(f"{attribute}_{name}") for name in ("state", "cell")[:count]]
    left = ", ".join(states) + ("," if count == 1 else "")
    w.scope.calls.append(f"{sequence}, ({left}) = self.{attribute}({x.text}{extra})")
    return sequence, states


def _helper(cell: Any) -> str:
    if isinstance(cell, kinds.GRU):
        return "GRU" if cell.reset_after else "ResetBeforeGRU"
    return type(cell).__name__


def _constructor(w: Any, cell: Any, features: int, reverse: bool, idiom: Idiom) -> str:
    given = {"activation": ("tanh", cell.activation), "gate": ("sigmoid", getattr(cell, "recurrent_activation", None))}
    text = f"{_helper(cell)}({features}, {cell.units}"
    for name, (default, function) in given.items():
        if function is not None and function.name != default:
            text += f", {name}={_callable(w, function, idiom)}"
    flags = {"use_bias": not cell.use_bias, "reverse": reverse, "zero_masked": cell.zero_masked}
    text += "".join(f", {name}={name != 'use_bias'}" for name, differs in flags.items() if differs)
    return f"{text}, {idiom.random})"


def _callable(w: Any, function: Function, idiom: Idiom) -> str:
    """Return an activation function as an object."""
    text = called(function, "x", w.helper, idiom.functions)
    return text.removesuffix("(x)") if text.endswith("(x)") and text.count("(") == 1 else f"lambda x: {text}"


def _weights(w: Any, cell: Any, node: Node, path: str, attribute: str, side: str, features: int) -> None:
    wide, target = GATES[type(cell)] * cell.units, w.path_of(attribute)
    shapes: dict[str, tuple[int, ...]] = {"kernel": (features, wide), "recurrent_kernel": (cell.units, wide)}
    if cell.use_bias:
        shapes["bias"] = (2, wide) if isinstance(cell, kinds.GRU) and cell.reset_after else (wide,)
    for role, shape in shapes.items():
        w.weight_of(node, path, f"{side}/{role}" if side else role, attribute, role, shape)
        w.place(f"{path}/{side}" if side else path, role, target, role)
    w.place(path, "input", target, "input")


NNX = Idiom(last="[:, -1]", axis=1, random="rngs=rngs", functions="nnx", weights=_weights)

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
    valid = jnp.ones(x.shape[:2], bool) if mask is None else mask

    def body(carry: tuple[tuple[jax.Array, ...], jax.Array], given: tuple[jax.Array, jax.Array]):
        states, before = carry
        x, counts = given
        found = step(states, x)
        output = jnp.where(counts, found[0], 0.0 if zero_masked else before)
        return (tuple(jnp.where(counts, new, old) for new, old in zip(found, states)), output), output

    start = (states, jnp.zeros_like(states[0]))
    given = (x.swapaxes(0, 1), valid.swapaxes(0, 1)[..., None])
    (states, _), outputs = jax.lax.scan(body, start, given, reverse=reverse)
    return (jnp.flip(outputs, 0) if reverse else outputs).swapaxes(0, 1), states'''

_CLASS = '''class {name}(nnx.Module):
    """{text}"""

    def __init__(
        self,
        features: int,
        units: int,
        *,
        activation: Callable[[jax.Array], jax.Array] = nnx.tanh,{gate_argument}
        use_bias: bool = True,
        reverse: bool = False,
        zero_masked: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        initial = nnx.initializers.glorot_uniform()
        self.kernel = nnx.Param(initial(rngs.params(), (features, {gates}units)))
        self.recurrent_kernel = nnx.Param(initial(rngs.params(), (units, {gates}units)))
        self.bias = nnx.Param(jnp.zeros({bias})) if use_bias else None
        self.activation{gate_target} = activation{gate_value}
        self.units, self.reverse, self.zero_masked = units, reverse, zero_masked

    def __call__(
        self,
        x: jax.Array,
        states: tuple[jax.Array, ...] | None = None,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        if states is None:
            states = (jnp.zeros((x.shape[0], self.units), x.dtype),) * {count}
        return walked(self.step, states, x, mask, self.reverse, self.zero_masked)

    def step(self, states: tuple[jax.Array, ...], x: jax.Array) -> tuple[jax.Array, ...]:
{step}'''

_ADDED = """        z = x @ self.kernel[...] + states[0] @ self.recurrent_kernel[...]
        z = z if self.bias is None else z + self.bias[...]
"""


def _class(name: str, text: str, gates: int, step: str, *, states: int = 1, bias: str = "") -> str:
    times = f"{gates} * " if gates > 1 else ""
    return _CLASS.format(
        name=name,
        text=text,
        gates=times,
        bias=bias or f"{times}units",
        count=states,
        step=step.rstrip("\n"),
        gate_argument="\n        gate: Callable[[jax.Array], jax.Array] = nnx.sigmoid," if gates > 1 else "",
        gate_target=", self.gate" if gates > 1 else "",
        gate_value=", gate" if gates > 1 else "",
    )


HELPERS = {
    "walked": _WALKED,
    "SimpleRNN": _class(
        "SimpleRNN",
        "h = activation(x·kernel + h·recurrent_kernel + bias).",
        1,
        _ADDED + "        return (self.activation(z),)",
    ),
    "LSTM": _class(
        "LSTM",
        "A long short-term memory: gates input, forget, cell, output in one kernel, and one bias.",
        4,
        _ADDED
        + """        i, f, g, o = jnp.split(z, 4, axis=-1)
        c = self.gate(f) * states[1] + self.gate(i) * self.activation(g)
        return self.gate(o) * self.activation(c), c""",
        states=2,
    ),
    "GRU": _class(
        "GRU",
        "A gated recurrent unit: gates update, reset, hidden, which is reset after its product; two biases.",
        3,
        """        before, after = (0.0, 0.0) if self.bias is None else self.bias[...]
        x_update, x_reset, x_hidden = jnp.split(x @ self.kernel[...] + before, 3, axis=-1)
        h = states[0] @ self.recurrent_kernel[...] + after
        h_update, h_reset, h_hidden = jnp.split(h, 3, axis=-1)
        update = self.gate(x_update + h_update)
        hidden = self.activation(x_hidden + self.gate(x_reset + h_reset) * h_hidden)
        return (update * states[0] + (1.0 - update) * hidden,)""",
        bias="(2, 3 * units)",
    ),
    "ResetBeforeGRU": _class(
        "ResetBeforeGRU",
        "A gated recurrent unit: gates update, reset, hidden, where the state is reset before its product; one bias.",
        3,
        """        z = x @ self.kernel[...]
        z = z if self.bias is None else z + self.bias[...]
        x_update, x_reset, x_hidden = jnp.split(z, 3, axis=-1)
        h_update, h_reset, kernel = jnp.split(self.recurrent_kernel[...], 3, axis=-1)
        update = self.gate(x_update + states[0] @ h_update)
        reset = self.gate(x_reset + states[0] @ h_reset)
        hidden = self.activation(x_hidden + (reset * states[0]) @ kernel)
        return (update * states[0] + (1.0 - update) * hidden,)""",
    ),
}
