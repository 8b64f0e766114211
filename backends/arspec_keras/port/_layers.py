"""Which kind each layer of Keras is, with everything it leaves to defaults written out."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import keras
from arspec.port import _kinds as kinds
from arspec.port._graph import Reference
from arspec.port._kinds import Function, Kind, refuse
from arspec_keras.port import _sequences
from arspec_keras.port._settings import WITH_PARAMETER, Held, Shapes, function, weights

L = keras.layers

_MERGES = {
    **{L.Add: "add", L.Subtract: "subtract", L.Multiply: "multiply", L.Average: "average"},
    **{L.Maximum: "maximum", L.Minimum: "minimum"},
}
_OPERATIONS = {
    **{"Add": "add", "Subtract": "subtract", "Multiply": "multiply"},
    **{"Divide": "divide", "TrueDivide": "divide", "Maximum": "maximum", "Minimum": "minimum"},
}


def read_layer(layer: Any, path: str, shapes: Shapes) -> tuple[Kind, Held]:
    """Return the kind of a layer and, by role, its variables.

    Raises
    ------
    UnsupportedError: the layer, or one of its settings, has no exact counterpart.
    """
    _common(layer, path)
    for cls, reader in _READERS.items():
        if type(layer) is cls:
            return reader(layer, path, shapes)
    by_name = _BY_NAME.get(type(layer).__name__) if type(layer).__module__.startswith("keras.") else None
    if by_name is not None:
        return by_name(layer, path, shapes)
    what = f"{type(layer).__module__}.{type(layer).__name__}"
    raise refuse(path, f"a layer of the class {what}", "Write it with Keras' own layers.")


def read_operation(
    operation: Any, inputs: tuple[Reference, ...], options: Mapping[str, Any], path: str
) -> tuple[Kind, tuple[Reference, ...]]:
    """Return the kind of an operation between layers, such as x + y, and its inputs."""
    name = type(operation).__name__
    if name in _OPERATIONS and not options:
        return kinds.Merge(_OPERATIONS[name], names_layer=False), inputs
    if name.lower() in kinds.FUNCTIONS and name.lower() not in WITH_PARAMETER and not options:
        return kinds.Activation(Function(name.lower())), inputs
    raise refuse(path, f"the operation {name}", "Write it as a layer.")


def _common(layer: Any, path: str) -> None:
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise refuse(path, "data_format='channels_first'", "Build the model with channels_last.")
    if getattr(layer, "lora_enabled", False):
        raise refuse(path, "LoRA", "Merge it first: save and load the model.")
    if getattr(layer, "quantization_mode", None):
        raise refuse(path, "quantization", "Export the model before it is quantized.")
    for name in ("kernel_constraint", "bias_constraint", "recurrent_constraint", "embeddings_constraint"):
        if getattr(layer, name, None) is not None:
            raise refuse(path, name, "Take the constraint off, or apply it in the target after each step.")


def _affine(layer: Any) -> Held:
    return weights(layer, kernel="kernel", bias="bias")


def _dense(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    return kinds.Dense(layer.units, function(layer.activation, path), layer.use_bias), _affine(layer)


def _windows(layer: Any, path: str) -> dict[str, Any]:
    return {
        "kernel_size": tuple(layer.kernel_size),
        "strides": tuple(layer.strides),
        "padding": layer.padding,
        "dilation": tuple(layer.dilation_rate),
        "activation": function(layer.activation, path),
        "use_bias": layer.use_bias,
    }


def _convolution(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    return kinds.Convolution(layer.filters, groups=layer.groups, **_windows(layer, path)), _affine(layer)


def _depthwise(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    return kinds.DepthwiseConvolution(layer.depth_multiplier, **_windows(layer, path)), _affine(layer)


def _separable(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    kind = kinds.SeparableConvolution(layer.filters, layer.depth_multiplier, **_windows(layer, path))
    names = ("depthwise_kernel", "pointwise_kernel", "bias")
    return kind, weights(layer, **{name: name for name in names})


def _transposed(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    given = _windows(layer, path)
    if set(given.pop("dilation")) != {1} or layer.output_padding is not None:
        raise refuse(path, "a dilated transposed convolution, or output_padding", "Use padding and strides alone.")
    return kinds.TransposedConvolution(layer.filters, **given), _affine(layer)


def _last_axis(layer: Any, path: str, shapes: Shapes) -> None:
    axis = layer.axis[0] if isinstance(layer.axis, list | tuple) and len(layer.axis) == 1 else layer.axis
    if axis not in (-1, len(shapes[0])):
        raise refuse(path, f"axis={layer.axis}", "Normalize over the last axis.")


def _normalization(layer: Any) -> Held:
    return weights(layer, scale="gamma", shift="beta", moving_mean="moving_mean", moving_variance="moving_variance")


def _batch_normalization(layer: Any, path: str, shapes: Shapes) -> tuple[Kind, Held]:
    _last_axis(layer, path, shapes)
    if getattr(layer, "renorm", False) or getattr(layer, "synchronized", False):
        raise refuse(path, "renorm or synchronized", "Use a plain BatchNormalization.")
    kind = kinds.BatchNormalization(layer.epsilon, layer.momentum, layer.scale, layer.center)
    return kind, _normalization(layer)


def _layer_normalization(layer: Any, path: str, shapes: Shapes) -> tuple[Kind, Held]:
    _last_axis(layer, path, shapes)
    if getattr(layer, "rms_scaling", False):
        raise refuse(path, "rms_scaling", "Use RMSNormalization.")
    return kinds.LayerNormalization(layer.epsilon, layer.scale, layer.center), _normalization(layer)


def _group_normalization(layer: Any, path: str, shapes: Shapes) -> tuple[Kind, Held]:
    _last_axis(layer, path, shapes)
    return kinds.GroupNormalization(layer.groups, layer.epsilon, layer.scale, layer.center), _normalization(layer)


def _rms_normalization(layer: Any, path: str, shapes: Shapes) -> tuple[Kind, Held]:
    _last_axis(layer, path, shapes)
    return kinds.RMSNormalization(layer.epsilon), weights(layer, scale="scale")


def _standardize(layer: Any, path: str, shapes: Shapes) -> tuple[Kind, Held]:
    if layer.invert or (layer.axis not in (-1, (-1,), [-1]) and tuple(layer.axis) != (len(shapes[0]),)):
        raise refuse(path, "Normalization that is inverted or not over the last axis", "Use axis=-1.")
    kind = kinds.Standardize(keras.backend.epsilon())
    if layer.input_mean is None:
        return kind, {"mean": layer.adapt_mean, "variance": layer.adapt_variance}
    given = {"mean": layer.input_mean, "variance": layer.input_variance}
    return kind, {
        role: Constant(np.broadcast_to(np.asarray(n, np.float32), shapes[0][-1:])) for role, n in given.items()
    }


class Constant:
    """Numbers that a layer holds without a variable, as the layer rounds them to float32."""

    trainable = False

    def __init__(self, array: Any) -> None:
        self.array = np.ascontiguousarray(array)


def _rescaling(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    scale, offset = (_numbers(each) for each in (layer.scale, layer.offset))
    return kinds.Rescaling(scale, offset), {}


def _numbers(given: Any) -> tuple[float, ...]:
    return (
        tuple(float(number) for number in keras.ops.convert_to_numpy(given).reshape(-1))
        if hasattr(given, "__len__") or hasattr(given, "shape")
        else (float(given),)
    )


def _activation(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    return kinds.Activation(function(layer.activation, path)), {}


def _relu(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    slope, threshold = float(layer.negative_slope), float(layer.threshold)
    if threshold == 0.0 and layer.max_value is None:
        return kinds.Activation(Function("leaky_relu", slope) if slope else Function("relu")), {}
    if threshold == slope == 0.0 and float(layer.max_value) == 6.0:
        return kinds.Activation(Function("relu6")), {}
    raise refuse(path, "this ReLU", "Use max_value 6 or none, and threshold 0.")


def _leaky(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    return kinds.Activation(Function("leaky_relu", float(layer.negative_slope))), {}


def _elu(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    return kinds.Activation(Function("elu", float(layer.alpha))), {}


def _softmax(layer: Any, path: str, shapes: Shapes) -> tuple[Kind, Held]:
    if layer.axis not in (-1, len(shapes[0])):
        raise refuse(path, f"Softmax(axis={layer.axis})", "Use the last axis.")
    return kinds.Activation(Function("softmax")), {}


def _prelu(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    return kinds.PReLU(tuple(layer.alpha.shape)), weights(layer, slope="alpha")


def _pooling(mode: str) -> Callable[[Any, str, Shapes], tuple[Kind, Held]]:
    return lambda layer, path, _: (
        kinds.Pooling(mode, tuple(layer.pool_size), tuple(layer.strides), layer.padding),
        {},
    )


def _global_pooling(mode: str) -> Callable[[Any, str, Shapes], tuple[Kind, Held]]:
    return lambda layer, path, _: (kinds.GlobalPooling(mode, layer.keepdims), {})


def _pairs(given: Any) -> tuple[tuple[int, int], ...]:
    given = [given] if isinstance(given[0], int) else given
    return tuple((int(before), int(after)) for before, after in given)


def _zero_padding(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    return kinds.ZeroPadding(_pairs(layer.padding)), {}


def _cropping(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    return kinds.Cropping(_pairs(layer.cropping)), {}


def _upsampling(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    size = (layer.size,) if isinstance(layer.size, int) else tuple(layer.size)
    mode = getattr(layer, "interpolation", "nearest")
    if mode not in ("nearest", "bilinear"):
        raise refuse(path, f"interpolation={mode!r}", "Use 'nearest' or 'bilinear'.")
    return kinds.UpSampling(size, mode), {}


def _flatten(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    return kinds.Flatten(), {}


def _reshape(layer: Any, path: str, shapes: Shapes) -> tuple[Kind, Held]:
    shape = layer.compute_output_shape((None, *shapes[0]))[1:]
    if any(size is None for size in shape):
        raise refuse(path, f"Reshape to {shape}", "Fix the sizes of the input.")
    return kinds.Reshape(tuple(shape)), {}


def _permute(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    return kinds.Permute(tuple(layer.dims)), {}


def _repeat(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    return kinds.Repeat(layer.n), {}


def _concatenate(layer: Any, path: str, shapes: Shapes) -> tuple[Kind, Held]:
    axis = layer.axis if layer.axis >= 0 else layer.axis + len(shapes[0]) + 1
    return kinds.Concatenate(axis), {}


def _merge(operation: str) -> Callable[[Any, str, Shapes], tuple[Kind, Held]]:
    return lambda layer, path, _: (kinds.Merge(operation), {})


def _dropout(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    shape = layer.noise_shape
    if shape is None:
        return kinds.Dropout(float(layer.rate)), {}
    if tuple(shape)[1:] == (1,) * (len(shape) - 1):
        return kinds.Dropout(float(layer.rate), "examples"), {}
    raise refuse(path, f"noise_shape={shape}", "Use None, or (None, 1, ..., 1).")


def _spatial_dropout(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    return kinds.Dropout(float(layer.rate), "channels"), {}


def _stochastic_depth(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    return kinds.Dropout(float(layer.drop_path_rate), "examples"), {}


def _scale(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    return kinds.Scale(), weights(layer, scale="gamma")


def _scaled_add(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    return kinds.ScaledAdd(float(layer.scale)), {}


def _identity(layer: Any, path: str, _: Shapes) -> tuple[Kind, Held]:
    return kinds.Identity(), {}


_READERS: dict[Any, Callable[[Any, str, Shapes], tuple[Kind, Held]]] = {
    L.Dense: _dense,
    **dict.fromkeys((L.Conv1D, L.Conv2D, L.Conv3D), _convolution),
    **dict.fromkeys((L.DepthwiseConv1D, L.DepthwiseConv2D), _depthwise),
    **dict.fromkeys((L.SeparableConv1D, L.SeparableConv2D), _separable),
    **dict.fromkeys((L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose), _transposed),
    L.BatchNormalization: _batch_normalization,
    L.LayerNormalization: _layer_normalization,
    L.GroupNormalization: _group_normalization,
    L.Normalization: _standardize,
    L.Rescaling: _rescaling,
    L.Activation: _activation,
    L.ReLU: _relu,
    L.LeakyReLU: _leaky,
    L.ELU: _elu,
    L.Softmax: _softmax,
    L.PReLU: _prelu,
    **dict.fromkeys((L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D), _pooling("max")),
    **dict.fromkeys((L.AveragePooling1D, L.AveragePooling2D, L.AveragePooling3D), _pooling("average")),
    **dict.fromkeys((L.GlobalMaxPooling1D, L.GlobalMaxPooling2D, L.GlobalMaxPooling3D), _global_pooling("max")),
    **dict.fromkeys(
        (L.GlobalAveragePooling1D, L.GlobalAveragePooling2D, L.GlobalAveragePooling3D), _global_pooling("average")
    ),
    **dict.fromkeys((L.ZeroPadding1D, L.ZeroPadding2D, L.ZeroPadding3D), _zero_padding),
    **dict.fromkeys((L.Cropping1D, L.Cropping2D, L.Cropping3D), _cropping),
    **dict.fromkeys((L.UpSampling1D, L.UpSampling2D, L.UpSampling3D), _upsampling),
    L.Flatten: _flatten,
    L.Reshape: _reshape,
    L.Permute: _permute,
    L.RepeatVector: _repeat,
    L.Concatenate: _concatenate,
    **{cls: _merge(operation) for cls, operation in _MERGES.items()},
    L.Dropout: _dropout,
    **dict.fromkeys((L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D), _spatial_dropout),
    **dict.fromkeys((L.ActivityRegularization, L.Identity), _identity),
    **_sequences.READERS,
}

# Layers that Keras' own models bring along, or that younger versions have.
_BY_NAME: dict[str, Callable[[Any, str, Shapes], tuple[Kind, Held]]] = {
    "RMSNormalization": _rms_normalization,
    "LayerScale": _scale,
    "StochasticDepth": _stochastic_depth,
    "CustomScaleLayer": _scaled_add,
}
