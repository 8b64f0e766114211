"""Ten steps of training in Keras, and in NNX and Equinox from the same bundle and batches: the same two curves.

Both sides compute in float32, each with its own order of sums; 2e-5 of a loss is what ten
steps make of that. Keras runs on TensorFlow, where its evidence is measured.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import arspec as ar
import arspec_jax
import keras
from arspec.port import read_target, write_target
from arspec.port._files import attribute_of
from arspec_jax.port import load_nnx, write_equinox, write_nnx
from arspec_keras.port import export

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras trains on TensorFlow here")
L = keras.layers
RATE, STEPS, BATCH = 0.05, 10, 8
TOLERANCE = 2e-5
Curves = tuple[list[float], list[float]]  # the data loss and the penalty of every step


def convolutional() -> keras.Model:
    x = inputs = keras.Input((7, 5, 3), name="image")
    x = L.Conv2D(4, 3, strides=2, padding="same", kernel_regularizer=keras.regularizers.L2(1e-2), name="conv")(x)
    x = L.BatchNormalization(momentum=0.9, name="norm")(x)
    x = L.ReLU(name="relu", activity_regularizer=keras.regularizers.L1(1e-2))(x)
    x = L.Dense(5, activation="gelu", kernel_regularizer=keras.regularizers.L1(1e-2), name="hidden")(L.Flatten()(x))
    return keras.Model(inputs, L.Dense(3, activation="log_softmax", name="out")(x), name="convolutional")


def recurrent() -> keras.Model:
    x = inputs = keras.Input((7, 3), name="sequence")
    x = L.LSTM(5, return_sequences=True, recurrent_regularizer=keras.regularizers.L2(1e-2), name="lstm")(x)
    x = L.GRU(4, activity_regularizer=keras.regularizers.L1(1e-2), name="gru")(x)
    return keras.Model(inputs, L.Dense(3, activation="log_softmax", name="out")(x), name="recurrent")


def batches(model: keras.Model) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(0)
    shape = (STEPS, BATCH, *model.inputs[0].shape[1:])
    x = generator.standard_normal(shape).astype(np.float32)
    return list(zip(x, generator.integers(0, 3, (STEPS, BATCH)), strict=True))


def in_keras(model: keras.Model) -> Curves:
    import tensorflow as tf

    optimizer = keras.optimizers.SGD(RATE)
    data, penalties = [], []
    for x, label in batches(model):
        with tf.GradientTape() as tape:
            output: Any = model(x, training=True)
            loss = -tf.reduce_mean(tf.gather(output, label, axis=1, batch_dims=1))
            penalty = tf.add_n(model.losses)
            total = loss + penalty
        optimizer.apply(tape.gradient(total, model.trainable_variables), model.trainable_variables)
        data.append(float(loss))
        penalties.append(float(penalty))
    return data, penalties


def in_nnx(source: keras.Model, folder: Path) -> Curves:
    file, spec = written(source, write_nnx, folder)
    target, weights = read_target(file)
    model = load_nnx(file, target.class_name, weights)
    model.train()
    forward = arspec_jax.attach(model, spec)

    @nnx.jit
    def step(model: nnx.Module, x: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        def loss(model: nnx.Module) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            return summed(*forward(model, x), label)

        gradients, found = nnx.grad(loss, has_aux=True)(model)
        old = nnx.state(model, nnx.Param)
        nnx.update(model, jax.tree.map(lambda weight, slope: weight - RATE * slope, old, gradients))
        return found

    return curves([step(model, jnp.asarray(x), jnp.asarray(label)) for x, label in batches(source)])


def in_equinox(source: keras.Model, folder: Path) -> Curves:
    file, spec = written(source, write_equinox, folder)
    loaded = attribute_of(file, "load")()
    model, *state = loaded if isinstance(loaded, tuple) else (loaded,)
    forward = arspec_jax.attach(model, spec)

    @eqx.filter_jit
    def step(model: eqx.Module, state: Any, x: jax.Array, label: jax.Array) -> Any:
        def loss(model: eqx.Module) -> Any:
            output, penalties = forward(model, x, *state)
            output, *after = output if state else (output,)
            total, found = summed(output, penalties, label)
            return total, (found, after)

        gradients, (found, after) = eqx.filter_grad(loss, has_aux=True)(model)
        return eqx.apply_updates(model, jax.tree.map(lambda slope: -RATE * slope, gradients)), after, found

    found = []
    for x, label in batches(source):
        held = x.transpose(0, 3, 1, 2) if x.ndim == 4 else x
        model, state, losses = step(model, state, jnp.asarray(held), jnp.asarray(label))
        found.append(losses)
    return curves(found)


def written(source: keras.Model, write: Callable[..., Any], folder: Path) -> tuple[Path, ar.Spec]:
    bundle = export(source)
    file = folder / "target.py"
    write_target(bundle, write(bundle), file)
    return file, ar.load(file.with_suffix(".spec.json"))


def summed(output: Any, penalties: Any, label: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    data = -jnp.mean(jnp.take_along_axis(output, label[:, None], axis=1))
    return data + penalties.total(), (data, penalties.total())


def curves(found: list[tuple[jax.Array, jax.Array]]) -> Curves:
    return [float(data) for data, _ in found], [float(penalty) for _, penalty in found]


@pytest.mark.parametrize(
    ("make", "train"),
    [(convolutional, in_nnx), (recurrent, in_nnx), (convolutional, in_equinox), (recurrent, in_equinox)],
    ids=["convolutional-nnx", "recurrent-nnx", "convolutional-equinox", "recurrent-equinox"],
)
def test_ten_steps_of_training_give_the_same_curves(
    make: Callable[[], keras.Model], train: Callable[[keras.Model, Path], Curves], tmp_path: Path
) -> None:
    keras.utils.set_random_seed(0)
    model = make()
    ours = train(model, tmp_path)
    theirs = in_keras(model)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=TOLERANCE)
        assert len(set(other)) == STEPS  # something moved at every step
