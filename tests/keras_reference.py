"""Keras models beside the NumPy reference network that defines what their penalties are.

Bound: both compute the same sums and products; Keras in float32, the reference in float64.
A chain of n rounded operations is off by at most n·u·S, with u = 2⁻²⁴ and S the sum of the
magnitudes that enter, which `SCALE` times the largest entry covers for these networks of
small random numbers. In the longest chain, back through an LSTM, each of 7 steps adds at
most 5 + 8 products and 12 operations per gate, forward and back.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

import arspec as ar
import keras
from arspec.layers import Network, ReferenceLayer
from arspec_keras import attach, losses
from keras_models import nothing, number

LAYERS = keras.layers
STEPS = 2 * 7 * (5 + 8 + 4 * 12)
SCALE = 2.0
TOLERANCE = SCALE * STEPS * 2.0**-24


def weights_of(layer: ReferenceLayer) -> list[np.ndarray]:
    """Return the parameters in the order of Keras: those of the layer, then of its parts."""
    parts = [parameter for held in layer.parts().values() for parameter in held.parameters().values()]
    return [*layer.parameters().values(), *parts]


def names_of(name: str, layer: ReferenceLayer) -> list[str]:
    inner = [f"{name}/{part}/{key}" for part, held in layer.parts().items() for key in held.parameters()]
    return [f"{name}/{key}" for key in layer.parameters()] + inner


def close(found: Any, expected: Any, what: str) -> None:
    """Assert equality within the bound of rounding."""
    largest = float(np.max(np.abs(expected), initial=0.0))
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=TOLERANCE * max(largest, 1e-3), err_msg=what)


def around(layer: keras.layers.Layer, shape: Sequence[Any], mask: bool, dtype: str = "float32") -> keras.Model:
    """Return a functional model of one layer, which takes a mask as its second input."""
    x = keras.Input(shape, dtype=dtype)
    if not mask:
        return keras.Model(x, layer(x))
    valid = keras.Input(shape[:1], dtype="bool")
    return keras.Model([x, valid], layer(x, mask=valid))


def assert_same(
    theirs: keras.layers.Layer,
    ours: ReferenceLayer,
    rules: Sequence[ar.Rule],
    x: np.ndarray,
    mask: Any = None,
    *,
    traced: bool = False,
) -> None:
    """Compare every value and the gradient of every weight with the reference, in one step of SGD.

    `traced` runs the step as `fit` does by default; otherwise it runs eagerly, which starts sooner.
    """
    model = around(theirs, x.shape[1:], mask is not None, "int32" if x.dtype.kind == "i" else "float32")
    theirs.set_weights([np.asarray(w, np.float32) for w in weights_of(ours)])
    assert_model_same(model, Network({theirs.name: ours}), rules, x, mask, traced=traced)


def assert_model_same(
    model: keras.Model,
    network: Network,
    rules: Sequence[ar.Rule],
    x: np.ndarray,
    mask: Any = None,
    *,
    traced: bool = False,
    told: bool = True,
) -> None:
    """As `assert_same`, for a model whose weights stand in the order of the network's parameters.

    `told` says whether the model takes the mask as an input; otherwise it finds it itself.
    """
    spec = ar.Spec(rules)
    narrow = x if x.dtype.kind == "i" else np.asarray(x, np.float32)
    expected = network.penalties(spec, narrow, mask=mask)
    attach(model, spec)
    given = narrow if mask is None or not told else [narrow, mask]
    model(given)
    found = {key: number(loss) for key, loss in losses(model).items()}
    assert list(found) == list(expected.values)
    for key, value in expected.values.items():
        close(found[key], value, key)
    before = [number(v) for v in model.trainable_variables]
    model.compile(keras.optimizers.SGD(1.0), nothing, run_eagerly=not traced, jit_compile="auto" if traced else False)
    total = model.train_on_batch(given, np.zeros((len(x), 1), np.float32))
    close(total, expected.total, "total")
    names = [name for path, layer in network.layers.items() for name in names_of(path, layer)]
    after = [number(v) for v in model.trainable_variables]
    assert len(names) == len(after)
    for name, old, new in zip(names, before, after, strict=True):
        gradient = expected.gradients[name]
        assert np.any(gradient != 0), name
        # SGD with rate 1 takes the gradient off a weight, which rounds once more.
        room = TOLERANCE * max(float(np.max(np.abs(gradient))), float(np.max(np.abs(old))))
        np.testing.assert_allclose(old - new, gradient, rtol=0.0, atol=room, err_msg=name)
