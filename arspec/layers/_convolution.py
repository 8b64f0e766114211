"""Convolution: over one, two or three spatial axes, with groups."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from arspec._axes import SPATIAL_AXES
from arspec._errors import SpecError
from arspec.layers._functions import activate, activation_gradient, require_function
from arspec.layers._layer import Array, Record, ReferenceLayer, leading_mask, over_leading, require_shape
from arspec.layers._windows import Padding, Windows


@dataclass(frozen=True, slots=True, eq=False)
class Convolution(ReferenceLayer):
    """pre_activation[p] = Σ_o input[stride · p + dilation · o] · kernel[o] + bias; output = activation(it).

    Parameters
    ----------
    kernel : (*spatial, input / groups, output), of 1 to 3 spatial axes. torch's weight is
        (output, input / groups, *spatial).
    bias : (output,), or None.
    strides, dilation : a whole number, or one per spatial axis.
    padding : "valid", "same", "causal" or pairs (before, after) per spatial axis; see
        `arspec.layers._windows` for what each one means.
    groups : into how many parts the features are cut, those of the input and those of the
        output alike; part g of the one meets part g of the other.
    activation : name of the activation function, "linear" for none.

    Notes
    -----
    It is a cross-correlation: no kernel is flipped. Axes of input and output: (batch,
    *spatial, feature); the one spatial axis of a 1-D convolution is "time". A mask says
    what counts, not what is computed: padded positions enter as they are.

    Raises
    ------
    SpecError: a shape or an argument does not fit.
    UnsupportedError: in `forward`, a mask over an axis along which positions move.

    Example
    -------
    >>> import numpy as np
    >>> layer = Convolution(np.array([[[1.0]], [[10.0]]]), padding="causal")
    >>> layer.forward(np.array([[[1.0], [2.0], [3.0]]]))["output"][0, :, 0]
    array([10., 21., 32.])
    """

    parameter_axes: ClassVar = {"kernel": "input output", "bias": "output"}
    kernel: Array
    bias: Array | None = None
    strides: int | tuple[int, ...] = 1
    padding: Padding = "valid"
    dilation: int | tuple[int, ...] = 1
    groups: int = 1
    activation: str = "linear"

    def __post_init__(self) -> None:
        self._lift({"kernel": (3, 4, 5), "bias": 1})
        if self.groups < 1 or self.kernel.shape[-1] % self.groups:
            raise SpecError(f"Convolution: groups={self.groups} does not divide {self.kernel.shape[-1]} features.")
        require_shape("Convolution", "bias", self.bias, self.kernel.shape[-1:])
        require_function("Convolution", "activation", self.activation)
        _ = self.windows

    @property
    def windows(self) -> Windows:
        """Where each tap of the kernel looks."""
        return Windows.of("Convolution", self.kernel.shape[:-2], self.strides, self.padding, self.dilation)

    def axes(self, placement: str) -> str | None:
        spatial = SPATIAL_AXES[self.kernel.ndim - 2]
        return f"{spatial} input output" if placement == "kernel" else self.parameter_axes.get(placement)

    def forward(self, x: Any, /, *, mask: Any = None) -> Record:
        x = self._input(x, self.kernel.shape[-2] * self.groups, self.kernel.ndim)
        valid = leading_mask(mask, x)
        z = convolve(x, self.kernel, self.windows, self.groups) + (0.0 if self.bias is None else self.bias)
        tensors = {"input": x, "pre_activation": z, "output": activate(self.activation, z)}
        masks = {**dict.fromkeys(tensors, self.windows.moved(valid, "Convolution")), "input": valid}
        return Record({**tensors, **self.parameters()}, masks)

    def _backward(self, record: Record, upstream: dict[str, Array]) -> dict[str, Array]:
        z, y = record["pre_activation"], record["output"]
        slope = upstream["pre_activation"] + activation_gradient(self.activation, z, y, upstream["output"])
        x, kernel = convolve_gradients(record["input"], self.kernel, slope, self.windows, self.groups)
        found = {"input": x, "kernel": kernel}
        return found if self.bias is None else {**found, "bias": slope.sum(over_leading(slope))}


def convolve(x: Array, kernel: Array, windows: Windows, groups: int = 1) -> Array:
    """Return Σ_o x[stride · p + dilation · o] · kernel[o], group by group."""
    padded = windows.pad(x)
    total = np.zeros((len(x), *windows.positions(padded), kernel.shape[-1]))
    for tap, where in windows.taps(padded):
        total += _merged(np.einsum("...gi,igo->...go", _split(padded[where], groups), _split(kernel[tap], groups)))
    return total


def convolve_gradients(x: Array, kernel: Array, slope: Array, windows: Windows, groups: int = 1) -> tuple[Array, Array]:
    """Return the gradients of `convolve` with respect to x and kernel, given that of its result."""
    padded = windows.pad(x)
    at_input, at_kernel, parts = np.zeros(padded.shape), np.zeros(kernel.shape), _split(slope, groups)
    for tap, where in windows.taps(padded):
        at_input[where] += _merged(np.einsum("...go,igo->...gi", parts, _split(kernel[tap], groups)))
        seen = _split(padded[where], groups)
        at_kernel[tap] = _merged(np.einsum("ngi,ngo->igo", _positions(seen), _positions(parts)))
    return windows.crop(at_input, x), at_kernel


def _split(x: Array, groups: int) -> Array:
    return x.reshape(*x.shape[:-1], groups, -1)


def _positions(x: Array) -> Array:
    return x.reshape(-1, *x.shape[-2:])


def _merged(x: Array) -> Array:
    return x.reshape(*x.shape[:-2], -1)
