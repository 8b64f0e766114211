"""Bidirectional: one recurrent layer forward in time, one in reverse."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from arspec._errors import SpecError, unknown
from arspec.layers._layer import Array, Record, ReferenceLayer
from arspec.layers._recurrent import Recurrent

_MERGES = ("concat", "sum", "ave", "mul")


@dataclass(frozen=True, slots=True, eq=False)
class Bidirectional(ReferenceLayer):
    """output = merge(output of the forward layer, output of the backward layer), in the order of time.

    Parameters
    ----------
    forward_layer : a recurrent layer.
    backward_layer : another, with reverse=True and the same return_sequences.
    merge : "concat" (forward first), "sum", "ave" or "mul".

    Notes
    -----
    The placements of a direction belong to the layers inside, whose paths end in
    "/forward" and "/backward": "encoder/backward" with placement "hidden_state". The layer
    itself has input and output. Without return_sequences the output joins the last state
    of the forward walk and that of the reverse one, which belongs to the first step; the
    last step of the sequences is something else.

    `forward` takes `initial_state`, a pair for the two directions.
    """

    forward_layer: Recurrent
    backward_layer: Recurrent
    merge: str = "concat"

    def __post_init__(self) -> None:
        if self.merge not in _MERGES:
            raise unknown("merge of Bidirectional", self.merge, _MERGES)
        if self.forward_layer.reverse or not self.backward_layer.reverse:
            directions = (self.forward_layer.reverse, self.backward_layer.reverse)
            raise SpecError(f"Bidirectional: reverse is {directions} in its layers; expected (False, True).")
        if self.forward_layer.return_sequences != self.backward_layer.return_sequences:
            raise SpecError("Bidirectional: return_sequences differs in its layers; expected the same in both.")

    def parts(self) -> dict[str, ReferenceLayer]:
        return {"forward": self.forward_layer, "backward": self.backward_layer}

    def forward(self, x: Any, /, *, mask: Any = None, initial_state: Any = None) -> Record:
        first, second = (None, None) if initial_state is None else initial_state
        records: dict[str, Record] = {
            "forward": self.forward_layer.forward(x, mask=mask, initial_state=first),
            "backward": self.backward_layer.forward(x, mask=mask, initial_state=second),
        }
        one, other = records.values()
        tensors = {"input": one["input"], "output": self._merged(one["output"], other["output"])}
        masks = {name: one.masks[name] for name in tensors}
        for part, record in records.items():
            tensors |= {f"{part}/{name}": tensor for name, tensor in record.items()}
            masks |= {f"{part}/{name}": valid for name, valid in record.masks.items()}
        return Record(tensors, masks, records)

    def _backward(self, record: Record, upstream: dict[str, Array]) -> dict[str, Array]:
        found: dict[str, Array] = {}
        at_input = np.zeros(record["input"].shape)
        one, other = self._merged_backward(record, upstream["output"])
        at_outputs: dict[str, Array] = {"forward": one, "backward": other}
        for part, layer in self.parts().items():
            inner = record.saved[part]
            # The gradient of a parameter itself is added by `backward`, once.
            given = {name: upstream[f"{part}/{name}"] for name in inner if name not in layer.parameters()}
            given["output"] = given["output"] + at_outputs[part]
            gradients = layer.backward(inner, given)
            at_input += gradients.pop("input")
            found |= {f"{part}/{name}": gradient for name, gradient in gradients.items()}
        return {"input": at_input, **found}

    def _merged(self, one: Array, other: Array) -> Array:
        if self.merge == "concat":
            return np.concatenate([one, other], -1)
        if self.merge == "mul":
            return one * other
        return (one + other) * (0.5 if self.merge == "ave" else 1.0)

    def _merged_backward(self, record: Record, gradient: Array) -> tuple[Array, Array]:
        if self.merge == "concat":
            one, other = np.split(gradient, [self.forward_layer.units], -1)
            return one, other
        if self.merge == "mul":
            return gradient * record["backward/output"], gradient * record["forward/output"]
        half = gradient * (0.5 if self.merge == "ave" else 1.0)
        return half, half
