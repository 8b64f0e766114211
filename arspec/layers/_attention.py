"""MultiHeadAttention: scaled dot products of queries and keys weigh the values."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from arspec._errors import SpecError
from arspec.layers._functions import softmax_gradient
from arspec.layers._layer import Array, Record, ReferenceLayer, leading_mask, require_shape

_PROJECTIONS = ("query", "key", "value")


@dataclass(frozen=True, slots=True, eq=False)
class MultiHeadAttention(ReferenceLayer):
    """output = Σ_heads softmax(q · kᵀ / √size) · v · output_kernel + output_bias.

    q = input · query_kernel + query_bias, and so for k and v, per head.

    Parameters
    ----------
    query_kernel, key_kernel : (input, heads, size).
    value_kernel : (input, heads, value size).
    output_kernel : (heads, value size, output).
    query_bias, key_bias, value_bias : (heads, size) or, the last, (heads, value size); or None.
    output_bias : (output,), or None.
    causal : whether position t attends to positions ≤ t only.

    Notes
    -----
    A penalty sees the heads side by side: a kernel as (input, heads · size), the output
    kernel as (heads · size, output), both "input output", a bias as one axis "output".
    These are the thirds of torch's in_proj_weight, transposed.

    `output` is what the layer gives, after output_kernel and output_bias. There is no
    activation function, so no pre_activation. The record also holds the projections
    "query", "key" and "value", (batch, time, heads, size), and "attention_weights",
    (batch, heads, query time, key time); they are tensors, but not placements.

    `forward` takes `value` (and `key`, by default the same) for attention to another
    sequence, with `value_mask`, and `attention_mask`, bool, (query time, key time) or
    (batch, query time, key time), true where a query attends, as in Keras; torch's boolean
    masks are the opposite. Nobody attends to a position that the mask calls padded. A
    padded query is computed, and does not count. A valid query must have a key to attend
    to; a padded one without any gets 0 from the values.

    References
    ----------
    A. Vaswani et al., Attention is all you need, NeurIPS 2017, section 3.2.
    """

    parameter_axes: ClassVar = {
        **{f"{name}_kernel": "input output" for name in (*_PROJECTIONS, "output")},
        **{f"{name}_bias": "output" for name in (*_PROJECTIONS, "output")},
    }
    query_kernel: Array
    key_kernel: Array
    value_kernel: Array
    output_kernel: Array
    query_bias: Array | None = None
    key_bias: Array | None = None
    value_bias: Array | None = None
    output_bias: Array | None = None
    causal: bool = False

    def __post_init__(self) -> None:
        who = "MultiHeadAttention"
        kernels = dict.fromkeys((f"{name}_kernel" for name in (*_PROJECTIONS, "output")), 3)
        self._lift({**kernels, **dict.fromkeys((f"{name}_bias" for name in _PROJECTIONS), 2), "output_bias": 1})
        require_shape(who, "key_kernel", self.key_kernel, (len(self.key_kernel), *self.query_kernel.shape[1:]))
        heads = (self.query_kernel.shape[1], self.value_kernel.shape[2])
        require_shape(who, "value_kernel", self.value_kernel, (len(self.value_kernel), *heads))
        require_shape(who, "output_kernel", self.output_kernel, (*heads, self.output_kernel.shape[2]))
        for name in _PROJECTIONS:
            require_shape(who, f"{name}_bias", self._bias(name), self._kernel(name).shape[1:])
        require_shape(who, "output_bias", self.output_bias, self.output_kernel.shape[2:])

    def penalized(self, placement: str, tensor: Array) -> Array:
        if placement in ("output_kernel", "output_bias"):
            return tensor.reshape(-1, tensor.shape[-1]) if tensor.ndim == 3 else tensor
        if placement not in self.parameter_axes:
            return tensor
        return tensor.reshape(len(tensor), -1) if tensor.ndim == 3 else tensor.reshape(-1)

    def forward(
        self,
        x: Any,
        /,
        *,
        mask: Any = None,
        value: Any = None,
        key: Any = None,
        value_mask: Any = None,
        attention_mask: Any = None,
    ) -> Record:
        if value is None and (key is not None or value_mask is not None):
            raise SpecError("MultiHeadAttention: key and value_mask need value, the other sequence.")
        x = self._input(x, len(self.query_kernel), 3)
        valid = leading_mask(mask, x)
        inputs = {"input": x}
        if value is not None:
            inputs["value_input"] = self._input(value, len(self.value_kernel), 3)
        if key is not None:
            inputs["key_input"] = self._input(key, len(self.key_kernel), 3)
        sources = {"query": "input", "value": "value_input" if "value_input" in inputs else "input"}
        sources["key"] = "key_input" if "key_input" in inputs else sources["value"]
        projections = {name: self._project(name, inputs[sources[name]]) for name in _PROJECTIONS}
        keys_valid = valid if value is None else leading_mask(value_mask, inputs["value_input"])
        shape = (len(x), x.shape[1], projections["key"].shape[1])
        allowed = self._allowed(shape, valid, keys_valid, attention_mask)
        tensors = {**inputs, **projections, **self._attend(projections, allowed)}
        masks = {**dict.fromkeys(("input", "query", "output"), valid), "key": keys_valid, "value": keys_valid}
        return Record({**tensors, **self.parameters()}, masks, {"sources": sources})

    def _project(self, name: str, x: Array) -> Array:
        bias = self._bias(name)
        return np.einsum("bti,ihs->bths", x, self._kernel(name)) + (0.0 if bias is None else bias)

    def _allowed(self, shape: tuple[int, int, int], valid: Array | None, keys_valid: Array | None, given: Any) -> Array:
        """Return who attends to whom, (batch, query time, key time)."""
        allowed = np.ones(shape, bool)
        if keys_valid is not None:
            allowed &= keys_valid[:, None, :] if keys_valid.ndim == 2 else keys_valid[:, None, None]
        if given is not None:
            allowed &= np.asarray(given, bool)
        if self.causal:
            allowed &= np.tri(*shape[1:], dtype=bool)
        counts = np.ones(shape[:2], bool) if valid is None else valid if valid.ndim == 2 else valid[:, None]
        if np.any(counts & ~allowed.any(-1)):
            raise SpecError("MultiHeadAttention: a valid query has no key to attend to; mask the query too.")
        return allowed

    def _attend(self, projections: dict[str, Array], allowed: Array) -> dict[str, Array]:
        scores = np.einsum("bths,buhs->bhtu", projections["query"], projections["key"]) * self._factor()
        weights = _masked_softmax(scores, allowed[:, None])
        attended = np.einsum("bhtu,buhs->bths", weights, projections["value"])
        output = np.einsum("bths,hso->bto", attended, self.output_kernel)
        return {
            "attention_weights": weights,
            "output": output + (0.0 if self.output_bias is None else self.output_bias),
        }

    def _backward(self, record: Record, upstream: dict[str, Array]) -> dict[str, Array]:
        weights, at_output = record["attention_weights"], upstream["output"]
        attended = np.einsum("bhtu,buhs->bths", weights, record["value"])
        at_attended = np.einsum("bto,hso->bths", at_output, self.output_kernel)
        at_weights = np.einsum("bths,buhs->bhtu", at_attended, record["value"]) + upstream["attention_weights"]
        at_scores = softmax_gradient(weights, at_weights) * self._factor()
        slopes = {
            "query": np.einsum("bhtu,buhs->bths", at_scores, record["key"]) + upstream["query"],
            "key": np.einsum("bhtu,bths->buhs", at_scores, record["query"]) + upstream["key"],
            "value": np.einsum("bhtu,bths->buhs", weights, at_attended) + upstream["value"],
        }
        found = {name: np.zeros(record[name].shape) for name in ("input", "value_input", "key_input") if name in record}
        for name, slope in slopes.items():
            source = record.saved["sources"][name]
            found[source] += np.einsum("bths,ihs->bti", slope, self._kernel(name))
            found[f"{name}_kernel"] = np.einsum("bti,bths->ihs", record[source], slope)
            found[f"{name}_bias"] = slope.sum((0, 1))
        found["output_kernel"] = np.einsum("bths,bto->hso", attended, at_output)
        found["output_bias"] = at_output.sum((0, 1))
        return {name: gradient for name, gradient in found.items() if name in record}

    def _factor(self) -> float:
        return float(1 / np.sqrt(self.query_kernel.shape[-1]))

    def _kernel(self, name: str) -> Array:
        return getattr(self, f"{name}_kernel")

    def _bias(self, name: str) -> Array | None:
        return getattr(self, f"{name}_bias")


def _masked_softmax(scores: Array, allowed: Array) -> Array:
    """Return the softmax over the allowed keys; where none is allowed, 0."""
    kept = np.where(allowed, scores, -np.inf)
    highest = np.max(kept, -1, keepdims=True)
    shares = np.exp(kept - np.where(np.isfinite(highest), highest, 0.0))
    total = np.sum(shares, -1, keepdims=True)
    return shares / np.where(total == 0, 1.0, total)
