"""Embedding: a row of a table per token."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from arspec._errors import SpecError
from arspec.layers._layer import Array, Record, ReferenceLayer, leading_mask


@dataclass(frozen=True, slots=True, eq=False)
class Embedding(ReferenceLayer):
    """output = embeddings[input].

    Parameters
    ----------
    embeddings : (tokens, features), to a penalty "input output": the kernel of a dense
        layer whose input is one-hot. A penalty on it sees every row, also those of tokens
        that do not occur, and row 0 with mask_zero: it is a parameter like any other.
    mask_zero : whether token 0 is padding: the output's mask is input ≠ 0, and whatever
        mask is given.

    Notes
    -----
    The input is integers, (batch, ...): no penalty applies to it and it has no gradient. A
    penalty on the output counts a row once per occurrence of its token.
    """

    parameter_axes: ClassVar = {"embeddings": "input output"}
    embeddings: Array
    mask_zero: bool = False

    def __post_init__(self) -> None:
        self._lift({"embeddings": 2})

    def forward(self, x: Any, /, *, mask: Any = None) -> Record:
        tokens = np.asarray(x)
        if tokens.dtype.kind not in "iu" or tokens.ndim < 1:
            raise SpecError(f"Embedding: x has dtype {tokens.dtype}, shape {tokens.shape}; expected integer tokens.")
        if tokens.size and (tokens.min() < 0 or tokens.max() >= len(self.embeddings)):
            raise SpecError(
                f"Embedding: tokens {tokens.min()} to {tokens.max()}; expected 0 to {len(self.embeddings) - 1}."
            )
        valid = leading_mask(mask, tokens[..., None])
        if self.mask_zero:
            given = True if valid is None else valid.reshape(valid.shape + (1,) * (tokens.ndim - valid.ndim))
            valid = (tokens != 0) & given
        tensors = {"input": tokens, "output": self.embeddings[tokens]}
        return Record({**tensors, **self.parameters()}, {"input": valid, "output": valid})

    def _backward(self, record: Record, upstream: dict[str, Array]) -> dict[str, Array]:
        gradient = np.zeros(self.embeddings.shape)
        np.add.at(gradient, record["input"], upstream["output"])
        return {"embeddings": gradient}
