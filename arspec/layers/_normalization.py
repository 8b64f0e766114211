"""BatchNormalization and LayerNormalization: output = (input − mean) / deviation · scale + shift."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from arspec.layers._layer import Array, Record, ReferenceLayer, leading_mask, over_leading, require_shape


@dataclass(frozen=True, slots=True, eq=False)
class BatchNormalization(ReferenceLayer):
    """output = (input − mean) / √(variance + epsilon) · scale + shift, per feature.

    In inference mean and variance are moving_mean and moving_variance; in training they are
    those of the batch, over every axis but the last, the variance divided by n.

    Parameters
    ----------
    moving_mean, moving_variance : (feature,); no penalty applies to them.
    scale, shift : (feature,), or None; Keras' gamma and beta, torch's weight and bias.
    epsilon : Keras' default is 1e-3, that of torch, Flax and Equinox 1e-5.

    Notes
    -----
    `forward` takes `training`. With a mask the batch's mean and variance are those of the
    valid positions; every position is normalized. How the moving statistics are updated
    differs between frameworks and touches no tensor of this pass.
    """

    parameter_axes: ClassVar = {"scale": "output", "shift": "output"}
    moving_mean: Array
    moving_variance: Array
    scale: Array | None = None
    shift: Array | None = None
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        names = ("moving_mean", "moving_variance", "scale", "shift")
        self._lift(dict.fromkeys(names, 1))
        for name in names:
            require_shape("BatchNormalization", name, getattr(self, name), self.moving_mean.shape)

    def forward(self, x: Any, /, *, mask: Any = None, training: bool = False) -> Record:
        x = self._input(x, len(self.moving_mean))
        valid = leading_mask(mask, x)
        share, mean, variance = None, self.moving_mean, self.moving_variance
        if training:
            share = _shares(valid, x)
            mean = np.sum(share * x, over_leading(x))
            variance = np.sum(share * np.square(x - mean), over_leading(x))
        inverse = 1 / np.sqrt(variance + self.epsilon)
        normalized = (x - mean) * inverse
        tensors = {"input": x, "output": _scaled(self, normalized)}
        saved = {"share": share, "inverse": inverse, "normalized": normalized}
        return Record({**tensors, **self.parameters()}, dict.fromkeys(tensors, valid), saved)

    def _backward(self, record: Record, upstream: dict[str, Array]) -> dict[str, Array]:
        share, inverse, normalized = (record.saved[name] for name in ("share", "inverse", "normalized"))
        at_normalized, found = _scaled_backward(self, normalized, upstream["output"])
        if share is not None:
            axes = over_leading(normalized)
            through_mean = at_normalized.sum(axes)
            through_variance = normalized * np.sum(at_normalized * normalized, axes)
            at_normalized = at_normalized - share * (through_mean + through_variance)
        return {"input": at_normalized * inverse, **found}


@dataclass(frozen=True, slots=True, eq=False)
class LayerNormalization(ReferenceLayer):
    """output = (input − mean) / √(variance + epsilon) · scale + shift, per position.

    Mean and variance (divided by n) are those of the last axis.

    Parameters
    ----------
    scale, shift : (feature,), or None; Keras' gamma and beta, torch's weight and bias.
    epsilon : Keras' default is 1e-3, that of torch and Equinox 1e-5, of Flax 1e-6.
    """

    parameter_axes: ClassVar = {"scale": "output", "shift": "output"}
    scale: Array | None = None
    shift: Array | None = None
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        self._lift({"scale": 1, "shift": 1})

    def forward(self, x: Any, /, *, mask: Any = None) -> Record:
        x = self._input(x)
        for name, parameter in self.parameters().items():
            require_shape("LayerNormalization", name, parameter, x.shape[-1:])
        mean = np.mean(x, -1, keepdims=True)
        inverse = 1 / np.sqrt(np.mean(np.square(x - mean), -1, keepdims=True) + self.epsilon)
        normalized = (x - mean) * inverse
        tensors = {"input": x, "output": _scaled(self, normalized)}
        masks = dict.fromkeys(tensors, leading_mask(mask, x))
        return Record({**tensors, **self.parameters()}, masks, {"inverse": inverse, "normalized": normalized})

    def _backward(self, record: Record, upstream: dict[str, Array]) -> dict[str, Array]:
        normalized = record.saved["normalized"]
        at_normalized, found = _scaled_backward(self, normalized, upstream["output"])
        through_mean = np.mean(at_normalized, -1, keepdims=True)
        through_variance = normalized * np.mean(at_normalized * normalized, -1, keepdims=True)
        return {"input": (at_normalized - through_mean - through_variance) * record.saved["inverse"], **found}


_Normalization = BatchNormalization | LayerNormalization


def _scaled(layer: _Normalization, normalized: Array) -> Array:
    scaled = normalized if layer.scale is None else normalized * layer.scale
    return scaled if layer.shift is None else scaled + layer.shift


def _scaled_backward(layer: _Normalization, normalized: Array, gradient: Array) -> tuple[Array, dict[str, Array]]:
    """Return the gradients of the normalized input and of scale and shift, given that of output."""
    axes = over_leading(gradient)
    slopes = {"scale": np.sum(gradient * normalized, axes), "shift": gradient.sum(axes)}
    found = {name: slopes[name] for name in layer.parameters()}
    return gradient if layer.scale is None else gradient * layer.scale, found


def _shares(valid: Array | None, x: Array) -> Array:
    """Return 1 / n at every position that counts, else 0, with the rank of x."""
    counted = np.ones(x.shape[:-1], bool) if valid is None else valid
    counted = np.broadcast_to(counted.reshape(counted.shape + (1,) * (x.ndim - counted.ndim)), (*x.shape[:-1], 1))
    return counted / max(np.count_nonzero(counted), 1)
