"""What all reference layers share: the record of a forward pass, parameters, the backward pass."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from arspec._errors import SpecError, unknown

Array = np.ndarray
Gradients = Mapping[str, Array]


@dataclass(frozen=True, slots=True, eq=False)
class Record(Mapping[str, Array]):
    """The named tensors of one forward pass, activations and parameters alike.

    Attributes
    ----------
    tensors : by placement, in float64.
    masks : by placement, the boolean mask of a tensor whose leading axes have one.
    saved : what the backward pass needs besides.
    """

    tensors: Mapping[str, Array]
    masks: Mapping[str, Array | None] = field(default_factory=dict)
    saved: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def mask(self) -> Array | None:
        """The mask of the output, which the next layer is given."""
        return self.masks.get("output")


class ReferenceLayer(ABC):
    """A layer that defines its placements. Parameters have the layout of Keras, in float64.

    `forward` computes every named tensor, `backward` the gradients. Nothing here is made
    for training: it is what adapters are compared with.
    """

    parameter_axes: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def forward(self, x: Any, /, *, mask: Any = None) -> Record:
        """Return every named tensor for the input x.

        Parameters
        ----------
        x : array whose first axis is the batch and whose last axis the features.
        mask : boolean array over the leading axes of x, true where x is valid.
        """

    @abstractmethod
    def _backward(self, record: Record, upstream: dict[str, Array]) -> dict[str, Array]:
        """Return the gradients of input and parameters, given those of every activation."""

    def backward(self, record: Record, gradients: Gradients, /) -> dict[str, Array]:
        """Return the gradients of a scalar with respect to input and parameters.

        Parameters
        ----------
        record : what `forward` returned.
        gradients : for any named tensors of the record, the partial derivatives of the
            scalar with respect to them, each as if the scalar were a function of all the
            named tensors. What is missing counts as 0.

        Returns
        -------
        Arrays by name: "input" (except where it is made of integers), every parameter, and
        "initial_hidden_state", "initial_cell_state" for recurrent layers.

        Raises
        ------
        SpecError: a name is not in the record, or a gradient has another shape.
        """
        upstream = {name: np.zeros(np.shape(tensor)) for name, tensor in record.items()}
        for name, gradient in gradients.items():
            if name not in record:
                raise unknown("tensor", name, record)
            upstream[name] = _fitting(name, gradient, record[name])
        found = self._backward(record, upstream)
        return {name: gradient + upstream[name] if name in upstream else gradient for name, gradient in found.items()}

    def parameters(self) -> dict[str, Array]:
        """Return the parameters that the layer has, by placement."""
        found = {name: getattr(self, name) for name in self.parameter_axes}
        return {name: parameter for name, parameter in found.items() if parameter is not None}

    def axes(self, placement: str) -> str | None:
        """Return the names of the axes that a penalty sees, or None for the default ones."""
        return self.parameter_axes.get(placement)

    def penalized(self, placement: str, tensor: Array) -> Array:
        """Return the tensor as a penalty sees it: a reshape, or the tensor itself."""
        return tensor

    def parts(self) -> dict[str, "ReferenceLayer"]:
        """Return the layers inside, by the name that stands before "/" in a record's names."""
        return {}

    def _lift(self, ranks: Mapping[str, int | tuple[int, ...]]) -> None:
        """Turn the parameters into float64 arrays and check their ranks."""
        for name, rank in ranks.items():
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, _array(f"{type(self).__name__}.{name}", given, rank))

    def _input(self, x: Any, features: int | None = None, rank: int | None = None) -> Array:
        """Return x as a float64 array and check its rank and its features."""
        who = f"{type(self).__name__}: x"
        array = _array(who, x, rank)
        if array.ndim < 2 or (features is not None and array.shape[-1] != features):
            last = "features" if features is None else f"{features} features"
            raise SpecError(f"{who} has shape {array.shape}; expected (batch, ..., {last}).")
        return array


def _array(who: str, given: Any, rank: int | tuple[int, ...] | None) -> Array:
    array = np.asarray(given)
    if array.dtype.kind not in "fiu":
        raise SpecError(f"{who} has dtype {array.dtype}; expected numbers.")
    allowed = rank if isinstance(rank, tuple | None) else (rank,)
    if allowed is not None and array.ndim not in allowed:
        raise SpecError(f"{who} has shape {array.shape}; expected {' or '.join(map(str, allowed))} axes.")
    return np.asarray(array, np.float64)


def _fitting(name: str, gradient: Any, tensor: Array) -> Array:
    array = np.asarray(gradient, np.float64)
    if array.shape != tensor.shape:
        raise SpecError(f"the gradient of {name!r} has shape {array.shape}; the tensor has {tensor.shape}.")
    return array


def require_shape(who: str, name: str, array: Array | None, shape: tuple[int, ...]) -> None:
    """Raise unless a parameter, if there is one, has the shape that others imply."""
    if array is not None and array.shape != shape:
        raise SpecError(f"{who}.{name} has shape {array.shape}; expected {shape}.")


def leading_mask(mask: Any, x: Array) -> Array | None:
    """Return a mask as a boolean array, checked against the leading axes of x."""
    if mask is None:
        return None
    array = np.asarray(mask)
    if array.dtype != bool or array.shape != x.shape[: array.ndim] or array.ndim >= x.ndim:
        got = f"mask has dtype {array.dtype} and shape {array.shape}"
        raise SpecError(f"{got}; expected bool over leading axes of x, whose shape is {x.shape}, without the last.")
    return array


def over_leading(array: Array) -> tuple[int, ...]:
    """Return the positions of all axes but the last."""
    return tuple(range(array.ndim - 1))
