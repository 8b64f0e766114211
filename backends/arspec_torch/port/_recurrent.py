"""Writing recurrent layers as nn.LSTM, nn.GRU and nn.RNN, with masks and states as Keras has them.

torch has two biases where an LSTM and a simple RNN of Keras have one: the second stays at
zero and does not train, so that a penalty on the sum of both is one on the bias. A mask
packs the steps where it is true, wherever they are, and puts the results back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from arspec.port import _kinds as kinds
from arspec.port._graph import Node
from arspec.port._kinds import Kind
from arspec.port._mapping import Step
from arspec.port._source import LAST, Place, Value

_NAMES: dict[type[Kind], str] = {kinds.SimpleRNN: "RNN", kinds.LSTM: "LSTM", kinds.GRU: "GRU"}
_GATES: dict[type[Kind], int] = {kinds.SimpleRNN: 1, kinds.LSTM: 4, kinds.GRU: 3}
_STATES: dict[type[Kind], tuple[str, ...]] = {
    kinds.SimpleRNN: ("hidden_state", "pre_activation"),
    kinds.LSTM: ("hidden_state", "cell_state", "input_gate", "forget_gate", "cell_gate", "output_gate"),
    kinds.GRU: ("hidden_state", "reset_gate", "update_gate", "cell_gate"),
}
_ORDER = ("order", (1, 0, 2))  # update, reset, new -> reset, update, new
FINAL = "final"  # layout of a trace: the last states of a recurrent module, not its sequence
_SUFFIXES = {"": "", "forward": "", "backward": "_reverse"}


@dataclass(frozen=True, slots=True)
class _Layer:
    """What the pieces of one layer need: the writer, the node, its kind and that of one direction."""

    w: Any
    node: Node
    path: str
    kind: Kind
    cell: kinds.Recurrent

    @property
    def attribute(self) -> str:
        return self.w.name_layer(self.node)

    @property
    def both(self) -> bool:
        return isinstance(self.kind, kinds.Bidirectional)

    @property
    def merge(self) -> str:
        return self.kind.merge if isinstance(self.kind, kinds.Bidirectional) else "concat"

    @property
    def states(self) -> int:
        return 2 if isinstance(self.cell, kinds.LSTM) else 1


def recurrent(w: Any, kind: Kind, node: Node, path: str, arguments: list[Value]) -> tuple[Value, ...]:
    """Write a recurrent layer or two directions of one, and return its output and, if asked for, its states."""
    cell: Any = kind.layer if isinstance(kind, kinds.Bidirectional) else kind
    layer = _Layer(w, node, path, kind, cell)
    _require_exact(layer)
    x = w.convert(arguments[0], LAST)
    _constructor(layer, int(x.shape[-1]))
    if node.call == 0:
        w.layers[path] = Place(w.path_of(layer.attribute))
        for side in ("forward", "backward") if layer.both else ("",):
            _weights(layer, side, int(x.shape[-1]))
            _states(layer, side)
        _ends(layer)
    return _results(layer, x, arguments[1:])


def _require_exact(layer: _Layer) -> None:
    """Refuse what torch's fused layers cannot say."""
    cell = layer.cell
    found, gate = cell.activation.name, getattr(cell, "recurrent_activation", None)
    name = type(cell).__name__
    allowed = ("tanh", "relu") if isinstance(cell, kinds.SimpleRNN) else ("tanh",)
    if found not in allowed:
        raise layer.w.refuse(layer.path, f"{name} with activation={found!r}", f"torch has {' and '.join(allowed)}.")
    if gate is not None and gate.name != "sigmoid":
        cure = "torch has sigmoid."
        raise layer.w.refuse(layer.path, f"{name} with recurrent_activation={gate.name!r}", cure)
    if isinstance(cell, kinds.GRU) and not cell.reset_after:
        cure = "torch resets after the product: train with reset_after=True."
        raise layer.w.refuse(layer.path, "GRU with reset_after=False", cure)
    if cell.masked and not cell.return_sequences and cell.zero_masked:
        what = (
            "the last output of a masked layer with zero_output_for_mask, which is 0 wherever the last step is masked"
        )
        raise layer.w.refuse(layer.path, what, "Leave zero_output_for_mask out.")
    if cell.masked and cell.return_sequences and layer.both and not cell.zero_masked:
        raise layer.w.refuse(layer.path, "a masked Bidirectional without zeros", "Keras sets zero_output_for_mask.")


def _constructor(layer: _Layer, features: int) -> None:
    cell = layer.cell
    text = f"nn.{_NAMES[type(cell)]}({features}, {cell.units}, batch_first=True"
    text += "" if cell.activation.name == "tanh" else f', nonlinearity="{cell.activation.name}"'
    text += ("" if cell.use_bias else ", bias=False") + (", bidirectional=True" if layer.both else "") + ")"
    if cell.use_bias and not isinstance(cell, kinds.GRU):
        layer.w.helper("single_bias")
        text = f"single_bias({text})"
    layer.w.attribute(layer.attribute, text)


def _weights(layer: _Layer, side: str, features: int) -> None:
    """Say where the weights of one direction go: K.T, R.T, and the gates in the order of torch."""
    w, cell, units = layer.w, layer.cell, layer.cell.units
    wide = _GATES[type(cell)] * units
    order: tuple[Step, ...] = (_ORDER,) if isinstance(cell, kinds.GRU) else ()
    place = _place_of(layer, side)
    for role, name, size in (("kernel", "weight_ih", features), ("recurrent_kernel", "weight_hh", units)):
        _weight(layer, side, role, name, (wide, size), *order, ("transpose", (1, 0)))
    if not cell.use_bias:
        return
    if isinstance(cell, kinds.GRU):
        for row, name in enumerate(("bias_ih", "bias_hh")):
            flat: Step = ("reshape", (wide,))
            _weight(layer, side, "bias", name, (wide,), flat, *order, take=((0, row, row + 1),))
    else:
        _weight(layer, side, "bias", "bias_ih", (wide,))
        frozen = _target(layer, side, "bias_hh")
        w.target_shapes[frozen], w.derived[frozen] = (wide,), 0.0
    w.place(_source_of(layer, side), "bias", place, "bias")


def _weight(
    layer: _Layer, side: str, role: str, name: str, shape: tuple[int, ...], *steps: Step, take: Any = ()
) -> None:
    w, full = layer.w, f"{side}/{role}" if side else role
    w.weight(layer.path, full, _target(layer, side, name), shape, *steps, take=take)
    w.place(_source_of(layer, side), role, _place_of(layer, side), role)
    if full in layer.node.frozen:
        w.attribute_line(f"self.{layer.attribute}.{name}_l0{_SUFFIXES[side]}.requires_grad_(False)")


def _target(layer: _Layer, side: str, name: str) -> str:
    return f"{layer.w.path_of(layer.attribute)}.{name}_l0{_SUFFIXES[side]}"


def _source_of(layer: _Layer, side: str) -> str:
    return f"{layer.path}/{side}" if side else layer.path


def _place_of(layer: _Layer, side: str) -> str:
    target = layer.w.path_of(layer.attribute)
    return f"{target}/{side}" if side else target


def _states(layer: _Layer, side: str) -> None:
    """Let rules see the states and gates of one direction."""
    source, target = _source_of(layer, side), _place_of(layer, side)
    for placement in _STATES[type(layer.cell)]:
        layer.w.place(source, placement, target, placement)
    if side:
        layer.w.place(source, "input", target, "input")
    if side == "forward" and layer.cell.return_sequences and not layer.cell.return_state:
        layer.w.place(source, "output", target, "output")


def _ends(layer: _Layer) -> None:
    """Let rules see input and output where torch's layer has the same ones; else the output gets a module."""
    w, cell = layer.w, layer.cell
    target = w.path_of(layer.attribute)
    w.place(layer.path, "input", target, "input")
    same = cell.return_sequences and not cell.return_state and layer.merge == "concat"
    if same and not (cell.masked and cell.reverse):
        w.place(layer.path, "output", target, "output")
    if same and not cell.masked:
        w.traced[layer.path] = Place(target)
    elif layer.merge == "concat" and not cell.return_sequences and not cell.return_state:
        w.traced[layer.path] = Place(target, FINAL)


def _results(layer: _Layer, x: Value, given: list[Value]) -> tuple[Value, ...]:
    w, cell, shapes = layer.w, layer.cell, layer.node.shapes
    text, mask = x.text, ""
    if cell.reverse:
        text = f"{text}.flip(1)"
    if cell.masked:
        mask = given[-1].text + (".flip(1)" if cell.reverse else "")
        w.helper("pack_steps")
        text = f"pack_steps({text}, {mask})"
    if cell.initial_state:
        states = [f"{value.text}.unsqueeze(0)" for value in given[: layer.states]]
        text += f", {states[0]}" if len(states) == 1 else f", ({', '.join(states)})"
    call = f"self.{layer.attribute}({text})"
    if cell.return_sequences and not (cell.masked or cell.return_state) and layer.merge == "concat":
        return (Value(f"{call}[0]", shapes[0]),)
    names = _statement(layer, call)
    found = [_sequence(layer, names["y"], mask) if cell.return_sequences else _last(layer, names["h"])]
    if cell.return_state:
        parts = ("h", "c")[: layer.states]
        found += [f"{names[part]}[{side}]" for side in range(1 + layer.both) for part in parts]
    return tuple(Value(each, shape) for each, shape in zip(found, shapes, strict=True))


def _statement(layer: _Layer, call: str) -> dict[str, str]:
    """Write the call as a line of its own, and return the names of what is needed of it."""
    cell = layer.cell
    needed = {"y": cell.return_sequences, "h": cell.return_state or not cell.return_sequences, "c": cell.return_state}
    titles = {"y": "steps", "h": "hidden", "c": "cell"}
    names = {part: layer.w.identifier(f"{layer.attribute}_{titles[part]}") if needed[part] else "_" for part in needed}
    states = f"({names['h']}, {names['c']})" if layer.states == 2 else names["h"]
    states = "_" if states == "(_, _)" else states
    layer.w.scope.calls.append(f"{names['y']}, {states} = {call}")
    return names


def _sequence(layer: _Layer, y: str, mask: str) -> str:
    if layer.cell.masked:
        layer.w.helper("unpack_steps")
        y = f"unpack_steps({y}, {mask}{', zeros=True' if layer.cell.zero_masked else ''})"
    if layer.merge == "concat":
        return y
    names = [layer.w.identifier(f"{layer.attribute}_{side}") for side in ("forward", "backward")]
    layer.w.scope.calls.append(f"{', '.join(names)} = {y}.chunk(2, dim=-1)")
    return _MERGES[layer.merge](*names)


def _last(layer: _Layer, h: str) -> str:
    """Return the states in which the walks end; the last step of the output is not where backward ends."""
    return _MERGES[layer.merge](f"{h}[0]", f"{h}[1]") if layer.both else f"{h}[0]"


_MERGES: dict[str, Callable[[str, str], str]] = {
    "concat": "torch.cat([{}, {}], dim=-1)".format,
    "sum": "({} + {})".format,
    "mul": "({} * {})".format,
    "ave": "(({} + {}) / 2)".format,
}


def padding_mask(w: Any, kind: kinds.PaddingMask, node: Node, path: str, arguments: list[Value]) -> Value:
    """Write a mask, true where a step is not padding; rules about padded sequences need it too."""
    layers = sorted({site.layer for site in w.bundle.sites if site.mask == path})
    if layers:
        w.notes.append(
            f"Rules at {', '.join(layers)} leave padded steps out where the forward pass stands in "
            f"`with penalties.masks({{layer: mask}})`; the mask is {path} of the forward pass."
        )
    text = f"{arguments[0].text} != {int(kind.value) if kind.value.is_integer() else kind.value!r}"
    return Value(f"({text}).any(-1)" if kind.feature else text, node.shapes[0])


def masking(w: Any, kind: kinds.Masking, node: Node, path: str, arguments: list[Value]) -> Value:
    """Write what Masking does to its input: zeros where every feature is the value."""
    x, mask = arguments
    return Value(f"torch.where({mask.text}.unsqueeze(-1), {x.text}, 0.0)", x.shape, x.layout)


EMITTERS: dict[type[Kind], Callable[..., Any]] = {
    **dict.fromkeys((kinds.SimpleRNN, kinds.LSTM, kinds.GRU, kinds.Bidirectional), recurrent),
    kinds.PaddingMask: padding_mask,
    kinds.Masking: masking,
}

HELPERS = {
    "single_bias": '''def single_bias(rnn: nn.RNNBase) -> nn.RNNBase:
    """Keep the second of torch's two biases at zero: one is enough, and penalties see their sum."""
    for name, parameter in rnn.named_parameters():
        if name.startswith("bias_hh"):
            nn.init.zeros_(parameter).requires_grad_(False)
    return rnn''',
    "pack_steps": '''@torch.fx.wrap
def pack_steps(x: Tensor, mask: Tensor) -> PackedSequence:
    """Pack the steps where the mask is true; every sequence needs one at least."""
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
    steps = x.gather(1, order.unsqueeze(-1).expand_as(x))
    return pack_padded_sequence(steps, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)''',
    "unpack_steps": '''@torch.fx.wrap
def unpack_steps(packed: PackedSequence, mask: Tensor, zeros: bool = False) -> Tensor:
    """Put every step back where it was; a masked one gets what stood before it, or zeros."""
    steps, _ = pad_packed_sequence(packed, batch_first=True, total_length=mask.shape[1])
    last = mask.cumsum(1) - 1
    x = steps.gather(1, last.clamp(min=0).unsqueeze(-1).expand(*last.shape, steps.shape[-1]))
    return torch.where((mask if zeros else last >= 0).unsqueeze(-1), x, 0.0)''',
}
