"""The twin: a copy of a Keras model in float64, without dropout, where everything is measured."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

import keras
from arspec import Spec, UnsupportedError
from arspec.port._graph import Graph, Node
from arspec_keras._attach import attach, losses, sites
from arspec_keras.port._layers import Constant
from arspec_keras.port._read import Reading, read_model

Arrays = dict[str, np.ndarray]


class Twin:
    """A `Subject` for `arspec.port.measure`: the model in float64 at the perturbed weights."""

    def __init__(self, model: keras.Model, spec: Spec, weights: Mapping[str, np.ndarray]) -> None:
        self._tf = _tensorflow()
        self.model = _clone(model)
        self._reading: Reading = self._read(self.model)
        for layer in self.model._flatten_layers():
            _make_exact(layer)
        self._load(weights)
        seen = self._outputs_of_layers()
        self._traced = list(seen)
        self._tracer = keras.Model(self.model.inputs, list(seen.values()))
        self._has_rules = bool(spec.rules)
        self._passes: dict[tuple[int, bool], tuple[list[np.ndarray], dict[str, float]]] = {}
        self._slopes: dict[int, tuple[Arrays, Arrays, Arrays]] = {}
        if self._has_rules:
            attach(self.model, spec)
            self.model(self._batch([np.zeros((2, *_fixed(t.shape[1:])), _dtype(t)) for t in self.model.inputs]))

    def _read(self, model: keras.Model) -> Reading:
        """Return the graph, and the variable of each canonical weight, of the copy."""
        return read_model(model)

    def _outputs_of_layers(self) -> dict[str, Any]:
        """Return what can be traced: the symbolic result of a layer by its path in the graph."""
        return {name: self.model.get_layer(name).output for name in _traced(self._reading.graph)}

    @property
    def sites(self) -> Any:
        """The sites of the rules in the model."""
        return sites(self.model) if self._has_rules else ()

    def outputs(self, inputs: Sequence[np.ndarray], *, training: bool) -> list[np.ndarray]:
        """Return the outputs."""
        return self._passed(inputs, training)[0]

    def trace(self, inputs: Sequence[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Return the result of every layer, in evaluation."""
        found = self._tracer(self._batch(inputs), training=False)
        flat = keras.tree.flatten(found)
        return ((name, _numpy(each)) for name, each in zip(self._traced, flat, strict=True))

    def penalties(self, inputs: Sequence[np.ndarray], *, training: bool) -> dict[str, float]:
        """Return every penalty by key."""
        return self._passed(inputs, training)[1]

    def gradients(self, inputs: Sequence[np.ndarray], cotangents: Sequence[np.ndarray] | None) -> Arrays:
        """Return the gradients of the data loss or, with None, of the penalties."""
        if cotangents is None:
            return self._sloped(inputs, ())[1]
        return self._sloped(inputs, cotangents)[0]

    def step(self, inputs: Sequence[np.ndarray], cotangents: Sequence[np.ndarray], rate: float) -> Arrays:
        """Return every weight after one step."""
        data, penalty, after = self._sloped(inputs, cotangents)
        return {
            name: weight - rate * (data[name] + penalty[name]) if name in data else weight
            for name, weight in after.items()
        }

    def _passed(self, inputs: Sequence[np.ndarray], training: bool) -> tuple[list[np.ndarray], dict[str, float]]:
        """Run a batch once; weights never change, so neither do its results."""
        key = id(inputs), training
        if key not in self._passes:
            with self._unchanged():
                outputs = [_numpy(each) for each in self._run(inputs, training)]
                found = losses(self.model) if self._has_rules else {}
                self._passes[key] = outputs, {name: float(_numpy(loss)) for name, loss in found.items()}
        return self._passes[key]

    def _sloped(self, inputs: Sequence[np.ndarray], cotangents: Any) -> tuple[Arrays, Arrays, Arrays]:
        """Return both gradients, and every weight after the pass, of a batch; once for each batch."""
        if id(inputs) not in self._slopes:
            trainable, tf = self._trainable(), self._tf
            with self._unchanged():
                with tf.GradientTape(persistent=True) as tape:
                    outputs = self._run(inputs, training=True)
                    pairs = zip(outputs, cotangents, strict=True)
                    data = sum(tf.reduce_sum(y * tf.constant(c)) / len(inputs[0]) for y, c in pairs)
                    found = losses(self.model).values() if self._has_rules else ()
                    penalty = sum((tf.cast(loss, "float64") for loss in found), start=tf.zeros((), "float64"))
                after = {name: _read(variable) for name, variable in self._reading.variables.items()}
            both = (_gradients(tf, tape, total, trainable) for total in (data, penalty))
            self._slopes[id(inputs)] = (*both, after)
        return self._slopes[id(inputs)]

    def _trainable(self) -> dict[str, Any]:
        return {n: v for n, v in self._reading.variables.items() if not isinstance(v, Constant) and v.trainable}

    def _run(self, inputs: Sequence[np.ndarray], training: bool) -> list[Any]:
        return keras.tree.flatten(self.model(self._batch(inputs), training=training))

    def _batch(self, inputs: Sequence[np.ndarray]) -> Any:
        tensors = [keras.ops.convert_to_tensor(x, _dtype(t)) for x, t in zip(inputs, self.model.inputs, strict=True)]
        return tensors[0] if len(tensors) == 1 else tensors

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Put the moving statistics back that a pass in training mode updates."""
        held = {name: v for name, v in self._reading.variables.items() if not isinstance(v, Constant)}
        before = {name: v.numpy() for name, v in held.items() if not v.trainable}
        try:
            yield
        finally:
            for name, array in before.items():
                held[name].assign(array)

    def _load(self, weights: Mapping[str, np.ndarray]) -> None:
        for name, variable in self._reading.variables.items():
            if not isinstance(variable, Constant):
                variable.assign(weights[name])
        for layer in self.model._flatten_layers(include_self=False):
            if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
                layer.finalize_state()


def _gradients(tf: Any, tape: Any, total: Any, variables: Mapping[str, Any]) -> Arrays:
    found = tape.gradient(total, [variable.value for variable in variables.values()])
    return {
        name: np.zeros(variable.shape) if gradient is None else tf.convert_to_tensor(gradient).numpy()
        for (name, variable), gradient in zip(variables.items(), found, strict=True)
    }


def _clone(model: keras.Model) -> keras.Model:
    """Copy a model in float64, without regularizers and without dropout."""
    classes = {type(layer).__name__: type(layer) for layer in model._flatten_layers()}

    def copied(layer: Any) -> Any:
        config = _in_float64(layer.get_config())
        for name in list(config):
            if name.endswith("_regularizer"):
                config[name] = None
        for name in ("rate", "drop_path_rate"):
            if name in config and "Dropout" in type(layer).__name__ + "Dropout" * (name == "drop_path_rate"):
                config[name] = 0.0
        with keras.saving.custom_object_scope(classes):
            return type(layer).from_config(config)

    with keras.saving.custom_object_scope(classes):
        twin = keras.models.clone_model(model, clone_function=copied, recursive=True)
    for original, layer in zip(model._flatten_layers(), twin._flatten_layers(), strict=True):
        if isinstance(layer, keras.layers.Bidirectional | keras.layers.RNN):
            continue
        layer.trainable = original.trainable
    return twin


def _make_exact(layer: Any) -> None:
    """Replace what Keras on TensorFlow computes with float32 constants even in float64."""
    activation = getattr(layer, "activation", None)
    exact = {
        keras.activations.gelu: _gelu,
        keras.activations.leaky_relu: partial(_leaky_relu, 0.2),
        keras.activations.hard_sigmoid: _hard_sigmoid,
        keras.activations.hard_silu: _hard_silu,
    }
    if activation in exact:
        layer.activation = exact[activation]
    elif isinstance(layer, keras.layers.Normalization) and layer.input_mean is not None:
        for name in ("mean", "variance"):  # the numbers of the model, which are rounded to float32
            rounded = np.asarray(getattr(layer, f"input_{name}"), np.float32)
            held = np.broadcast_to(rounded, getattr(layer, name).shape).astype(np.float64)
            setattr(layer, name, keras.ops.convert_to_tensor(held))
    elif isinstance(layer, keras.layers.UpSampling2D) and layer.interpolation == "bilinear":
        layer.call = partial(_bilinear, tuple(layer.size))
    elif isinstance(layer, keras.layers.AveragePooling3D):
        layer.call = partial(_average_pool_3d, layer)
    elif isinstance(layer, keras.layers.InputLayer) and keras.backend.is_float_dtype(layer.dtype):
        layer._dtype = "float64"  # to which a Sequential inside casts what it is given
    elif isinstance(layer, keras.layers.Rescaling):  # Python numbers would pass through float32
        layer.scale, layer.offset = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
    elif isinstance(layer, keras.Model):  # a model inside casts what it is given
        layer.dtype_policy = "float64"
        for given in layer.inputs:
            if keras.backend.is_float_dtype(given.dtype):
                given._dtype = "float64"
    elif isinstance(layer, keras.layers.MultiHeadAttention):
        # A Python number becomes a tensor of float32 before it is cast.
        layer._inverse_sqrt_key_dim = keras.ops.convert_to_tensor(layer._inverse_sqrt_key_dim, "float64")
    elif isinstance(layer, keras.layers.LeakyReLU | keras.layers.ReLU) and layer.negative_slope:
        layer.call = partial(_leaky_relu, float(layer.negative_slope))


def _gelu(x: Any) -> Any:
    """x·Φ(x); TensorFlow's has √2 rounded to float32."""
    return 0.5 * x * keras.ops.erfc(-x * keras.ops.cast(0.5, x.dtype) ** 0.5)


def _hard_sigmoid(x: Any) -> Any:
    """clip(x/6 + 1/2, 0, 1); Keras' divides by multiplication with 1/6 in float32."""
    return keras.ops.clip(x / keras.ops.convert_to_tensor(6.0, x.dtype) + 0.5, 0.0, 1.0)


def _bilinear(factors: tuple[int, ...], x: Any) -> Any:
    """Interpolate between the centres of pixels; TensorFlow's does so in float32."""
    rows, columns = (_interpolation(size, factor) for size, factor in zip(x.shape[1:3], factors, strict=True))
    return keras.ops.einsum("rh,bhwc,sw->brsc", rows, x, columns)


def _interpolation(size: int, factor: int) -> np.ndarray:
    """Return the matrix (size · factor, size) that interpolates along one axis, constant beyond the ends."""
    at = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    low = np.minimum(at.astype(int), max(size - 2, 0))
    matrix = np.zeros((size * factor, size))
    matrix[np.arange(len(at)), low] = 1 - (at - low)
    matrix[np.arange(len(at)), np.minimum(low + 1, size - 1)] += at - low
    return matrix


def _average_pool_3d(layer: Any, x: Any) -> Any:
    """TensorFlow has no kernel in float64: average over height and width, then over depth."""
    (depth, *size), (step, *strides) = layer.pool_size, layer.strides
    ops, sizes = keras.ops, tuple(x.shape)
    flat = ops.average_pool(ops.reshape(x, (-1, *sizes[2:])), tuple(size), tuple(strides), layer.padding)
    wide = ops.reshape(flat, (-1, sizes[1], flat.shape[1] * flat.shape[2], sizes[-1]))
    found = ops.average_pool(wide, (depth, 1), (step, 1), layer.padding)
    return ops.reshape(found, (-1, found.shape[1], *flat.shape[1:]))


def _hard_silu(x: Any) -> Any:
    return x * _hard_sigmoid(x)


def _leaky_relu(slope: float, x: Any) -> Any:
    """TensorFlow's keeps the slope in float32."""
    return keras.ops.where(x > 0, x, x * keras.ops.convert_to_tensor(slope, x.dtype))


def _in_float64(config: Any) -> Any:
    """Return a configuration with every dtype policy in float64, and no regularizer inside."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {**config["config"], "name": "float64"}}
        return {
            key: None
            if key.endswith("_regularizer")
            else "float64"
            if key == "dtype" and value == "float32"
            else _in_float64(value)
            for key, value in config.items()
        }
    return [_in_float64(each) for each in config] if isinstance(config, list) else config


def _traced(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        if node.call == 0 and len(node.shapes) == 1 and _is_layer(node):
            yield node.name


def _is_layer(node: Node) -> bool:
    return not isinstance(node.layer, Graph) and getattr(node.layer, "names_layer", True)


def _fixed(shape: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(8 if size is None else size for size in shape)


def _dtype(tensor: Any) -> str:
    return keras.backend.standardize_dtype(tensor.dtype)


def _read(variable: Any) -> np.ndarray:
    return variable.array if isinstance(variable, Constant) else variable.numpy()


def _numpy(tensor: Any) -> np.ndarray:
    return np.asarray(tensor)


def _tensorflow() -> Any:
    if keras.backend.backend() != "tensorflow":
        raise UnsupportedError(
            f"the evidence of a certificate is measured in float64, and Keras on {keras.backend.backend()} computes "
            "parts of it in float32. Save the model, and run `arspec port export MODEL.keras -o BUNDLE`, which runs "
            "Keras on TensorFlow, or set KERAS_BACKEND=tensorflow before keras is imported."
        )
    import tensorflow

    return tensorflow
