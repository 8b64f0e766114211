"""DepthwiseConvolution and SeparableConvolution: channels apart, then mixed."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from arspec._axes import SPATIAL_AXES
from arspec._errors import SpecError
from arspec.layers._dense import outer
from arspec.layers._functions import activate, activation_gradient, require_function
from arspec.layers._layer import Array, Record, ReferenceLayer, leading_mask, over_leading, require_shape
from arspec.layers._windows import Padding, Windows


@dataclass(frozen=True, slots=True, eq=False)
class DepthwiseConvolution(ReferenceLayer):
    """pre_activation[p, c·M + m] = Σ_o input[stride · p + dilation · o, c] · kernel[o, c, m] + bias.

    Parameters
    ----------
    kernel : (*spatial, input, M): its axis "output" counts the M results per channel.
        torch: groups = input, weight (input · M, 1, *spatial), the channel outermost.
    bias : (input · M,), or None.
    strides, padding, dilation, activation : as for `Convolution`, masks too.
    """

    parameter_axes: ClassVar = {"kernel": "input output", "bias": "output"}
    kernel: Array
    bias: Array | None = None
    strides: int | tuple[int, ...] = 1
    padding: Padding = "valid"
    dilation: int | tuple[int, ...] = 1
    activation: str = "linear"

    def __post_init__(self) -> None:
        self._lift({"kernel": (3, 4, 5), "bias": 1})
        require_shape("DepthwiseConvolution", "bias", self.bias, (self.kernel.shape[-2] * self.kernel.shape[-1],))
        require_function("DepthwiseConvolution", "activation", self.activation)
        _ = self.windows

    @property
    def windows(self) -> Windows:
        """Where each tap of the kernel looks."""
        return Windows.of("DepthwiseConvolution", self.kernel.shape[:-2], self.strides, self.padding, self.dilation)

    def axes(self, placement: str) -> str | None:
        spatial = SPATIAL_AXES[self.kernel.ndim - 2]
        return f"{spatial} input output" if placement == "kernel" else self.parameter_axes.get(placement)

    def forward(self, x: Any, /, *, mask: Any = None) -> Record:
        x = self._input(x, self.kernel.shape[-2], self.kernel.ndim)
        valid = leading_mask(mask, x)
        z = depthwise(x, self.kernel, self.windows) + (0.0 if self.bias is None else self.bias)
        tensors = {"input": x, "pre_activation": z, "output": activate(self.activation, z)}
        masks = {**dict.fromkeys(tensors, self.windows.moved(valid, "DepthwiseConvolution")), "input": valid}
        return Record({**tensors, **self.parameters()}, masks)

    def _backward(self, record: Record, upstream: dict[str, Array]) -> dict[str, Array]:
        z, y = record["pre_activation"], record["output"]
        slope = upstream["pre_activation"] + activation_gradient(self.activation, z, y, upstream["output"])
        x, kernel = depthwise_gradients(record["input"], self.kernel, slope, self.windows)
        found = {"input": x, "kernel": kernel}
        return found if self.bias is None else {**found, "bias": slope.sum(over_leading(slope))}


@dataclass(frozen=True, slots=True, eq=False)
class SeparableConvolution(ReferenceLayer):
    """A depthwise convolution, then pre_activation = its result · pointwise_kernel + bias.

    Parameters
    ----------
    depthwise_kernel : (*spatial, input, M), as the kernel of `DepthwiseConvolution`.
    pointwise_kernel : (1, ..., 1, input · M, output), with as many ones as spatial axes.
    bias : (output,), or None; there is none between the two.
    strides, padding, dilation : of the depthwise part, as for `Convolution`, masks too.
    activation : name of the activation function, "linear" for none.

    Notes
    -----
    It has two kernels and no placement "kernel": a placement names one tensor.
    """

    parameter_axes: ClassVar = {
        "depthwise_kernel": "input output",
        "pointwise_kernel": "input output",
        "bias": "output",
    }
    depthwise_kernel: Array
    pointwise_kernel: Array
    bias: Array | None = None
    strides: int | tuple[int, ...] = 1
    padding: Padding = "valid"
    dilation: int | tuple[int, ...] = 1
    activation: str = "linear"

    def __post_init__(self) -> None:
        who = "SeparableConvolution"
        self._lift({"depthwise_kernel": (3, 4, 5), "pointwise_kernel": (3, 4, 5), "bias": 1})
        *spatial, features, multiplier = self.depthwise_kernel.shape
        if self.pointwise_kernel.shape[:-1] != (*(1 for _ in spatial), features * multiplier):
            shapes = f"depthwise_kernel {self.depthwise_kernel.shape}, pointwise_kernel {self.pointwise_kernel.shape}"
            raise SpecError(f"{who}: {shapes}; expected pointwise_kernel (1, ..., {features * multiplier}, output).")
        require_shape(who, "bias", self.bias, self.pointwise_kernel.shape[-1:])
        require_function(who, "activation", self.activation)
        _ = self.windows

    @property
    def windows(self) -> Windows:
        """Where each tap of the depthwise kernel looks."""
        size = self.depthwise_kernel.shape[:-2]
        return Windows.of("SeparableConvolution", size, self.strides, self.padding, self.dilation)

    def axes(self, placement: str) -> str | None:
        spatial = SPATIAL_AXES[self.depthwise_kernel.ndim - 2]
        return f"{spatial} input output" if placement.endswith("_kernel") else self.parameter_axes.get(placement)

    def forward(self, x: Any, /, *, mask: Any = None) -> Record:
        x = self._input(x, self.depthwise_kernel.shape[-2], self.depthwise_kernel.ndim)
        valid = leading_mask(mask, x)
        apart = depthwise(x, self.depthwise_kernel, self.windows)
        z = apart @ self._mixing() + (0.0 if self.bias is None else self.bias)
        tensors = {"input": x, "pre_activation": z, "output": activate(self.activation, z)}
        masks = {**dict.fromkeys(tensors, self.windows.moved(valid, "SeparableConvolution")), "input": valid}
        return Record({**tensors, **self.parameters()}, masks, {"apart": apart})

    def _backward(self, record: Record, upstream: dict[str, Array]) -> dict[str, Array]:
        z, y = record["pre_activation"], record["output"]
        slope = upstream["pre_activation"] + activation_gradient(self.activation, z, y, upstream["output"])
        at_apart = slope @ self._mixing().T
        x, kernel = depthwise_gradients(record["input"], self.depthwise_kernel, at_apart, self.windows)
        pointwise = outer(record.saved["apart"], slope).reshape(self.pointwise_kernel.shape)
        found = {"input": x, "depthwise_kernel": kernel, "pointwise_kernel": pointwise}
        return found if self.bias is None else {**found, "bias": slope.sum(over_leading(slope))}

    def _mixing(self) -> Array:
        return self.pointwise_kernel.reshape(self.pointwise_kernel.shape[-2:])


def depthwise(x: Array, kernel: Array, windows: Windows) -> Array:
    """Return Σ_o x[stride · p + dilation · o, c] · kernel[o, c, m] with (c, m) as one axis."""
    padded = windows.pad(x)
    total = np.zeros((len(x), *windows.positions(padded), *kernel.shape[-2:]))
    for tap, where in windows.taps(padded):
        total += padded[where][..., None] * kernel[tap]
    return total.reshape(*total.shape[:-2], -1)


def depthwise_gradients(x: Array, kernel: Array, slope: Array, windows: Windows) -> tuple[Array, Array]:
    """Return the gradients of `depthwise` with respect to x and kernel, given that of its result."""
    padded = windows.pad(x)
    at_input, at_kernel = np.zeros(padded.shape), np.zeros(kernel.shape)
    parts = slope.reshape(*slope.shape[:-1], *kernel.shape[-2:])
    for tap, where in windows.taps(padded):
        at_input[where] += np.sum(parts * kernel[tap], -1)
        at_kernel[tap] = np.sum(padded[where][..., None] * parts, over_leading(padded))
    return windows.crop(at_input, x), at_kernel
