"""The models of keras.applications, regularized: L2 on every kernel, L1 on two activations.

`arspec port export benchmarks/ports/applications.py:ResNet50 -o BUNDLE` asks for one by its
name. Weights are random, images as small as the model allows.
"""

from collections.abc import Callable

import numpy as np

import arspec as ar
import arspec_keras
import keras

SIZES = (32, 75, 331)  # the smallest that some model allows
NAMES = tuple(
    name for name in dir(keras.applications) if name[0].isupper() and callable(getattr(keras.applications, name))
)


def __getattr__(name: str) -> Callable[[], keras.Model]:
    """Return a function that makes the model of this name."""
    if name not in NAMES:
        raise AttributeError(name)
    return lambda: regularized(name)


def regularized(name: str) -> keras.Model:
    """Return a model with random weights and its rules attached."""
    keras.utils.set_random_seed(0)
    model = _smallest(getattr(keras.applications, name))
    active = _activations(model)
    chosen = dict.fromkeys((active[0], active[len(active) // 2]))
    rules = [ar.Rule(ar.L2(1e-4), layer="**", placement="kernel")]
    rules += [ar.Rule(ar.L1(1e-5), layer=layer, placement="output") for layer in chosen]
    model = arspec_keras.attach(model, ar.Spec(rules))
    model(np.zeros((1, *model.inputs[0].shape[1:]), np.float32))
    return model


def _smallest(build: Callable[..., keras.Model]) -> keras.Model:
    for size in SIZES:
        try:
            return build(weights=None, input_shape=(size, size, 3))
        except ValueError as error:
            refusal = error
    raise refusal


def _activations(model: keras.Model) -> list[str]:
    """Return the names of the layers that are activation functions or, if there are none, have one inside."""
    of_their_own = [
        layer.name
        for layer in model.layers
        if isinstance(layer, keras.layers.ReLU)
        or (isinstance(layer, keras.layers.Activation) and layer.activation is not keras.activations.linear)
    ]
    if of_their_own:
        return of_their_own
    return [layer.name for layer in model.layers if getattr(layer, "activation", None) is keras.activations.relu]
