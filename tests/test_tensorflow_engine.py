"""The TensorFlow engine beyond identity: unknown sizes, second derivatives, variables, errors."""

import numpy as np
import pytest
import tensorflow as tf

import arspec as ar
from arspec_tensorflow import value
from bits import assert_same_bits
from cases import random_array

ELASTIC = ar.L1(0.1) + 0.5 * ar.L2(0.7)


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("mean_over", ["sum", "batchmean", "mean"])
def test_one_trace_serves_every_batch_size(xla: bool, mean_over: str) -> None:
    @tf.function(input_signature=[tf.TensorSpec((None, 5), tf.float32)], jit_compile=xla)
    def run(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = value(ELASTIC, x, mean_over=mean_over)
        return loss, tape.gradient(loss, x)

    for batch in (0, 1, 2, 3, 7, 8, 9, 103):
        x = random_array((batch, 5), "float32", seed=batch)
        found, gradient = run(tf.constant(x))
        assert_same_bits(found, ar.value(ELASTIC, x, mean_over=mean_over), f"value, batch {batch}")
        assert_same_bits(gradient, ar.gradient(ELASTIC, x, mean_over=mean_over), f"gradient, batch {batch}")
    assert run.experimental_get_tracing_count() == 1


def test_sum_over_one_unknown_axis_follows_the_tree() -> None:
    from arspec._numpy import NumpyNamespace
    from arspec_tensorflow._engine import XP

    sums = tf.function(lambda x: XP.sum(x, (1,)), input_signature=[tf.TensorSpec((None, None, 3), tf.float64)])
    for size in (0, 1, 6, 33):
        x = random_array((2, size, 3), "float64")
        assert_same_bits(sums(tf.constant(x)), NumpyNamespace().sum(x, (1,)), f"size {size}")


@pytest.mark.parametrize("how", ["eager", "function", "xla"])
def test_second_derivative(how: str) -> None:
    x = np.array([[1.5, -2.0, 0.0], [-0.25, 4.0, 3.0]], np.float32)

    def hessian(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = value(ELASTIC, x, mean_over="batchmean") * tf.reduce_sum(x)
            gradient = tf.reshape(inner.gradient(loss, x), (6,))
        return tf.reshape(outer.jacobian(gradient, x), (6, 6))

    run = hessian if how == "eager" else tf.function(hessian, jit_compile=how == "xla")
    first = ar.gradient(ELASTIC, x.astype(np.float64), mean_over="batchmean").ravel()
    curvature = np.diag(np.full(6, 2 * 0.35 / 2))
    expected = first[:, None] + first[None, :] + curvature * float(x.astype(np.float64).sum())
    np.testing.assert_allclose(run(tf.constant(x)), expected, rtol=2e-6)


def test_l1_has_no_curvature_at_the_kink() -> None:
    x = tf.Variable([0.0, -0.0, 1.0])
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            loss = value(ar.L1(1.0), x)
        gradient = inner.gradient(loss, x)
    assert gradient.numpy().tolist() == [0.0, 0.0, 1.0]
    np.testing.assert_array_equal(outer.jacobian(gradient, x), np.zeros((3, 3)))


def test_variables_arrays_and_lists_are_tensors() -> None:
    x = np.array([1.0, -2.0], np.float32)
    for given in (x, tf.Variable(x), tf.constant(x), [1.0, -2.0]):
        assert float(value(ar.L1(0.5), given)) == 1.5


def test_masked_nan_gives_no_gradient() -> None:
    x, mask = tf.constant([[1.0, np.nan], [2.0, 3.0]]), tf.constant([[True, False], [True, True]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = value(ar.L2(1.0), x, mask=mask)
    assert float(loss) == 14.0
    assert tape.gradient(loss, x).numpy().tolist() == [[2.0, 0.0], [4.0, 6.0]]


def test_mask_of_unknown_size() -> None:
    @tf.function(input_signature=[tf.TensorSpec((None, None, 2)), tf.TensorSpec((None, None), tf.bool)])
    def run(x: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        return value(ar.L2(0.3), x, mean_over=("batch", "time"), mask=mask)

    x, mask = random_array((3, 4, 2), "float32"), np.arange(12).reshape(3, 4) % 3 > 0
    assert_same_bits(run(x, mask), ar.value(ar.L2(0.3), x, mean_over=("batch", "time"), mask=mask), "value")


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (tf.constant([1, 2]), ar.SpecError, r"x is int32; expected one of float16, .*Convert it"),
        (tf.constant([True]), ar.SpecError, r"x is bool; expected one of"),
        (tf.constant([1j]), ar.UnsupportedError, r"x is complex128; penalties of complex tensors are not defined"),
        (tf.sparse.from_dense([1.0]), ar.UnsupportedError, r"x is a SparseTensor; expected a dense tensor"),
        (tf.ragged.constant([[1.0], []]), ar.UnsupportedError, r"x is a RaggedTensor; expected a dense tensor"),
        (object(), ar.SpecError, r"x is a object, which is no tensor"),
    ],
)
def test_what_is_no_dense_float_tensor_is_an_error(given: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        value(ar.L1(1.0), given)


def test_wrong_arguments_are_errors() -> None:
    x = tf.ones((2, 3))
    with pytest.raises(ar.SpecError, match=r"mask has shape \(3,\); expected the leading axes of x"):
        value(ar.L1(1.0), x, mask=tf.constant([True, True, False]))
    with pytest.raises(ar.SpecError, match=r"mask has dtype float32; expected bool"):
        value(ar.L1(1.0), x, mask=tf.ones((2, 3)))
    with pytest.raises(ar.SpecError, match=r"unknown axis 'bach'.*Did you mean 'batch'\?"):
        value(ar.L1(1.0), x, mean_over=("bach",))
    with pytest.raises(ar.SpecError, match=r"is not a penalty; expected one such as L1"):
        value("l1", x)


def test_unknown_rank_is_an_error() -> None:
    run = tf.function(lambda x: value(ar.L1(1.0), x), input_signature=[tf.TensorSpec(None)], autograph=False)
    with pytest.raises(ar.UnsupportedError, match=r"x has an unknown rank; say it with tf\.ensure_shape"):
        run(tf.ones((2,)))
