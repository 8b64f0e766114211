"""Dense and Activation: layers that act on the last axis."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from arspec.layers._functions import activate, activation_gradient, require_function
from arspec.layers._layer import Array, Record, ReferenceLayer, leading_mask, over_leading, require_shape


@dataclass(frozen=True, slots=True, eq=False)
class Dense(ReferenceLayer):
    """pre_activation = input · kernel + bias; output = activation(pre_activation).

    Parameters
    ----------
    kernel : (input, output). torch's Linear.weight is its transpose.
    bias : (output,), or None.
    activation : name of the activation function, "linear" for none.

    Notes
    -----
    It acts on the last axis of an input of any rank. With activation "linear",
    pre_activation and output are equal, and both are there.

    Example
    -------
    >>> import numpy as np
    >>> layer = Dense(np.array([[1.0, -1.0]]), activation="relu")
    >>> record = layer.forward(np.array([[2.0]]))
    >>> record["pre_activation"], record["output"]
    (array([[ 2., -2.]]), array([[2., 0.]]))
    >>> layer.backward(record, {"pre_activation": np.ones((1, 2))})["kernel"]
    array([[2., 2.]])
    """

    parameter_axes: ClassVar = {"kernel": "input output", "bias": "output"}
    kernel: Array
    bias: Array | None = None
    activation: str = "linear"

    def __post_init__(self) -> None:
        self._lift({"kernel": 2, "bias": 1})
        require_shape("Dense", "bias", self.bias, self.kernel.shape[1:])
        require_function("Dense", "activation", self.activation)

    def forward(self, x: Any, /, *, mask: Any = None) -> Record:
        x = self._input(x, self.kernel.shape[0])
        valid = leading_mask(mask, x)
        z = x @ self.kernel + (0.0 if self.bias is None else self.bias)
        tensors = {"input": x, "pre_activation": z, "output": activate(self.activation, z)}
        return Record({**tensors, **self.parameters()}, dict.fromkeys(tensors, valid))

    def _backward(self, record: Record, upstream: dict[str, Array]) -> dict[str, Array]:
        z, y = record["pre_activation"], record["output"]
        slope = upstream["pre_activation"] + activation_gradient(self.activation, z, y, upstream["output"])
        found = {"input": slope @ self.kernel.T, "kernel": outer(record["input"], slope)}
        return found if self.bias is None else {**found, "bias": slope.sum(over_leading(slope))}


def outer(x: Array, slope: Array) -> Array:
    """Return Σ xᵀ · slope over all axes but the last, the gradient of a kernel."""
    return np.tensordot(x, slope, (over_leading(x), over_leading(slope)))


@dataclass(frozen=True, slots=True, eq=False)
class Activation(ReferenceLayer):
    """output = activation(pre_activation), pre_activation = input.

    It has no parameters, so that a glob does not meet it: name it by its full path.
    """

    activation: str

    def __post_init__(self) -> None:
        require_function("Activation", "activation", self.activation)

    def forward(self, x: Any, /, *, mask: Any = None) -> Record:
        x = self._input(x)
        tensors = {"input": x, "pre_activation": x, "output": activate(self.activation, x)}
        return Record(tensors, dict.fromkeys(tensors, leading_mask(mask, x)))

    def _backward(self, record: Record, upstream: dict[str, Array]) -> dict[str, Array]:
        through = activation_gradient(self.activation, record["input"], record["output"], upstream["output"])
        return {"input": upstream["pre_activation"] + through}


@dataclass(frozen=True, slots=True, eq=False)
class Flatten(ReferenceLayer):
    """output = all axes but the batch as one, in the order (height, width, feature).

    torch flattens (feature, height, width): a kernel after it has its rows permuted.
    A mask over more than the batch ends here.
    """

    def forward(self, x: Any, /, *, mask: Any = None) -> Record:
        x = self._input(x)
        valid = leading_mask(mask, x)
        tensors = {"input": x, "output": x.reshape(len(x), -1)}
        return Record(tensors, {"input": valid, "output": valid if valid is not None and valid.ndim == 1 else None})

    def _backward(self, record: Record, upstream: dict[str, Array]) -> dict[str, Array]:
        return {"input": upstream["output"].reshape(record["input"].shape)}
