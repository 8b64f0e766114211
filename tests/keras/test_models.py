"""A Spec attached to Keras models: the values and gradients of the reference, in every trainer."""

from typing import Any

import numpy as np
import pytest

import arspec as ar
import keras
from arspec_keras import attach, detach, losses, sites, total
from bits import assert_same_bits

# torch.compile itself looks at .grad where Keras' own calls break its graph.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")

LAYERS = keras.layers
RNG = np.random.default_rng(7)
X = RNG.standard_normal((7, 3)).astype(np.float32)
Y = np.zeros((7, 2), np.float32)
W1, B1 = RNG.standard_normal((3, 5)).astype(np.float32), RNG.standard_normal(5).astype(np.float32)
W2, B2 = RNG.standard_normal((5, 2)).astype(np.float32), np.array([0.0, -0.25], np.float32)

SPEC = ar.Spec(
    [
        ar.Rule(ar.L1(0.1), layer="hidden", placement="pre_activation", mean_over="sum"),
        ar.Rule(ar.L2(0.2), layer="hidden", placement="output"),
        ar.Rule(ar.L1(0.3) + 0.5 * ar.L2(0.4), layer="**", placement="kernel"),
        ar.Rule(ar.L1(0.5), layer="head", placement="bias"),
    ]
)
KEYS = ["hidden/pre_activation/l1", "hidden/output/l2", "hidden/kernel/sum", "head/kernel/sum", "head/bias/l1"]


def sequential() -> keras.Model:
    return keras.Sequential([LAYERS.Dense(5, activation="relu", name="hidden"), LAYERS.Dense(2, name="head")])


def functional() -> keras.Model:
    inputs = keras.Input((3,))
    hidden = LAYERS.Dense(5, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, LAYERS.Dense(2, name="head")(hidden))


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = LAYERS.Dense(5, activation="relu")
        self.head = LAYERS.Dense(2)

    def call(self, x: Any) -> Any:
        return self.head(self.hidden(x))


MODELS = pytest.mark.parametrize("make", [sequential, functional, Subclassed])


def nothing(y: Any, prediction: Any) -> Any:
    return 0.0 * keras.ops.sum(prediction, axis=-1)


def with_weights(model: keras.Model) -> keras.Model:
    model(X)
    model.set_weights([W1, B1, W2, B2])
    return model


def compiled(model: keras.Model, jit: Any = "auto") -> keras.Model:
    model.compile(keras.optimizers.SGD(1.0), nothing, jit_compile=jit)
    return model


def number(x: Any) -> Any:
    return keras.ops.convert_to_numpy(x)


def expected_losses(x: np.ndarray, w1: np.ndarray = W1, b1: np.ndarray = B1, w2: np.ndarray = W2) -> list[float]:
    before = x @ w1 + b1
    one, two, three, four = (rule.penalty for rule in SPEC.rules)
    after = np.maximum(before, 0)
    activities = [ar.value(one, before), ar.value(two, after, mean_over="batchmean")]
    return [float(v) for v in (*activities, ar.value(three, w1), ar.value(three, w2), ar.value(four, B2))]


def expected_gradients(x: np.ndarray) -> list[np.ndarray]:
    before = x @ W1 + B1
    one, two, three, four = (rule.penalty for rule in SPEC.rules)
    by_output = ar.gradient(two, np.maximum(before, 0), mean_over="batchmean")
    upstream = ar.gradient(one, before) + by_output * (before > 0)
    of_hidden = x.T @ upstream + ar.gradient(three, W1)
    return [of_hidden, upstream.sum(0), ar.gradient(three, W2), ar.gradient(four, B2)]


@MODELS
def test_losses_are_those_of_the_reference(make: Any) -> None:
    model = attach(with_weights(make()), SPEC)
    model(X)
    assert list(losses(model)) == KEYS
    assert len(model.losses) == 5
    np.testing.assert_allclose([number(v) for v in losses(model).values()], expected_losses(X), rtol=1e-6)
    np.testing.assert_allclose([number(v) for v in model.losses], expected_losses(X), rtol=1e-6)
    np.testing.assert_allclose(number(total(model)), sum(expected_losses(X)), rtol=1e-6)


def test_losses_have_the_bits_of_the_reference_on_the_same_tensors() -> None:
    model = with_weights(functional())
    after = number(keras.Model(model.inputs[0], model.get_layer("hidden").output)(X))
    attach(model, SPEC)
    model(X)
    found = {key: number(loss) for key, loss in losses(model).items()}
    assert_same_bits(found["hidden/output/l2"], ar.value(ar.L2(0.2), after, mean_over="batchmean"), "output")
    assert_same_bits(found["hidden/kernel/sum"], ar.value(SPEC.rules[2].penalty, W1), "kernel")
    assert_same_bits(found["head/bias/l1"], ar.value(ar.L1(0.5), B2), "bias")


@MODELS
@pytest.mark.parametrize("jit", [False, True])
def test_one_step_of_sgd_takes_the_gradients_of_the_reference(make: Any, jit: bool) -> None:
    model = compiled(attach(with_weights(make()), SPEC), jit)
    loss = model.train_on_batch(X, Y)
    np.testing.assert_allclose(loss, sum(expected_losses(X)), rtol=1e-6)
    for new, old, gradient in zip(model.get_weights(), (W1, B1, W2, B2), expected_gradients(X), strict=True):
        np.testing.assert_allclose(old - new, gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_gradients_of_weights_are_exact_and_zero_at_zero(jit: bool) -> None:
    """On JAX the bias would move by -0.5 if its own derivative of |x| were taken."""
    rules = [ar.Rule(ar.L1(0.5), layer="**", placement="bias"), ar.Rule(ar.L1(0.25), layer="**", placement="kernel")]
    model = compiled(attach(with_weights(sequential()), ar.Spec(rules)), jit)
    model.set_weights([np.sign(W1), np.zeros(5), np.zeros((5, 2)), np.array([0.0, -2.0])])
    model.train_on_batch(X, Y)
    new = model.get_weights()
    assert_same_bits(new[0], np.float32(0.75) * np.sign(W1), "kernel")
    for weight, expected in zip(new[1:], (np.zeros(5), np.zeros((5, 2)), [0.0, -1.5]), strict=True):
        assert_same_bits(weight, np.asarray(expected, np.float32), "weight at zero")


@MODELS
@pytest.mark.parametrize("jit", [False, True])
def test_fit_and_evaluate_with_a_last_partial_batch(make: Any, jit: bool) -> None:
    model = compiled(attach(with_weights(make()), SPEC), jit)
    seen = model.evaluate(X, Y, batch_size=4, verbose=0)
    first, second = sum(expected_losses(X[:4])), sum(expected_losses(X[4:]))
    np.testing.assert_allclose(seen, (4 * first + 3 * second) / 7, rtol=1e-6)
    model.optimizer.learning_rate = 0.0
    history = model.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(history, [seen, seen], rtol=1e-6)
    assert model.predict(X, verbose=0).shape == (7, 2)


def test_an_unbuilt_model_is_matched_when_it_is_built() -> None:
    model = compiled(attach(sequential(), SPEC))
    assert not model.built
    model.fit(X, Y, batch_size=4, verbose=0)
    model(X)
    assert list(losses(model)) == KEYS


def test_a_compiled_and_traced_model_is_traced_again() -> None:
    model = compiled(with_weights(functional()))
    assert model.evaluate(X, Y, verbose=0) == 0.0
    attach(model, SPEC)
    np.testing.assert_allclose(model.evaluate(X, Y, verbose=0), sum(expected_losses(X)), rtol=1e-6)
    detach(model)
    assert model.evaluate(X, Y, verbose=0) == 0.0
    assert not any("call" in vars(layer) for layer in (model, *model.layers))


@pytest.mark.parametrize(("mean_over", "divisor"), [("sum", 1), ("batchmean", 7), ("mean", 35)])
def test_reductions(mean_over: str, divisor: int) -> None:
    rule = ar.Rule(ar.L1(1.0), layer="hidden", placement="pre_activation", mean_over=mean_over)
    model = attach(with_weights(sequential()), ar.Spec([rule]))
    model(X)
    np.testing.assert_allclose(number(total(model)), np.abs(X @ W1 + B1).sum() / divisor, rtol=1e-6)


def test_a_linear_layer_and_a_separate_activation() -> None:
    model = keras.Sequential([keras.Input((3,)), LAYERS.Dense(5, name="a"), LAYERS.ReLU(name="r")])
    pairs = [("a", "pre_activation"), ("a", "output"), ("r", "output")]
    attach(model, ar.Spec([ar.Rule(ar.L1(1.0), layer=a, placement=p, mean_over="sum") for a, p in pairs]))
    model.set_weights([W1, B1])
    model(X)
    before = X @ W1 + B1
    expected = [np.abs(before).sum(), np.abs(before).sum(), np.maximum(before, 0).sum()]
    np.testing.assert_allclose([number(v) for v in losses(model).values()], expected, rtol=1e-6)


def test_an_activation_layer_inside_a_layer() -> None:
    model = keras.Sequential([keras.Input((3,)), LAYERS.Dense(5, activation=LAYERS.LeakyReLU(0.5), name="a")])
    pairs = ["pre_activation", "output"]
    attach(model, ar.Spec([ar.Rule(ar.L1(1.0), layer="a", placement=p, mean_over="sum") for p in pairs]))
    model.set_weights([W1, B1])
    model(X)
    before = X @ W1 + B1
    expected = [np.abs(before).sum(), np.abs(np.where(before > 0, before, before / 2)).sum()]
    np.testing.assert_allclose([number(v) for v in losses(model).values()], expected, rtol=1e-6)
    assert isinstance(model.layers[0].activation, LAYERS.LeakyReLU)


def test_paths_of_nested_and_listed_layers() -> None:
    class Blocks(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = [LAYERS.Dense(4), LAYERS.Dense(3, name="last")]
            self.encoder = keras.Sequential([LAYERS.Dense(2, name="inner")])

        def call(self, x: Any) -> Any:
            for block in self.blocks:
                x = block(x)
            return self.encoder(x)

    model = attach(Blocks(), ar.Spec([ar.Rule(ar.L2(1.0), layer="**", placement="kernel")]))
    model(X)
    assert list(losses(model)) == [f"{path}/kernel/l2" for path in ("blocks/0", "last", "encoder/inner")]


def test_a_shared_layer_counts_once_per_call_and_its_weights_once() -> None:
    inputs, dense = keras.Input((3,)), LAYERS.Dense(3, name="d")
    rules = [ar.Rule(ar.L1(1.0), layer="d", placement=p, mean_over="sum") for p in ("output", "kernel")]
    model = attach(keras.Model(inputs, dense(dense(inputs))), ar.Spec(rules))
    model.set_weights([W1[:, :3], B1[:3]])
    model(X)
    once = X @ W1[:, :3] + B1[:3]
    expected = [np.abs(once).sum() + np.abs(once @ W1[:, :3] + B1[:3]).sum(), np.abs(W1[:, :3]).sum()]
    np.testing.assert_allclose([number(v) for v in losses(model).values()], expected, rtol=1e-5)


def test_a_regularized_model_inside_another() -> None:
    inner = keras.Sequential([keras.Input((3,)), LAYERS.Dense(3, name="d")], name="inner")
    rules = [ar.Rule(ar.L1(1.0), layer="d", placement=p) for p in ("output", "kernel")]
    attach(inner, ar.Spec(rules))
    inputs = keras.Input((3,))
    outer = compiled(keras.Model(inputs, inner(inner(inputs))))
    outer(X)
    assert len(outer.losses) == 3
    outer.fit(X, X, verbose=0)
    outer(X)
    assert len(outer.losses) == 3


def test_layers_added_later_are_met() -> None:
    model = keras.Sequential([keras.Input((3,)), LAYERS.Dense(3)])
    attach(model, ar.Spec([ar.Rule(ar.L1(1.0), layer="**", placement="kernel")]))
    model(X)
    assert len(model.losses) == 1
    model.add(LAYERS.Dense(2))
    model(X)
    assert len(model.losses) == 2


def test_frozen_weights_are_penalized() -> None:
    model = with_weights(sequential())
    model.trainable = False
    attach(model, ar.Spec([ar.Rule(ar.L1(1.0), layer="hidden", placement="kernel")]))
    model(X)
    np.testing.assert_allclose(number(total(model)), np.abs(W1).sum(), rtol=1e-6)


# JAX has no float64 unless x64 is enabled.
POLICIES = ["mixed_float16", "mixed_bfloat16"] + ["float64"] * (keras.backend.backend() != "jax")


@pytest.mark.parametrize("policy", POLICIES)
def test_dtype_policies(policy: str) -> None:
    model = keras.Sequential([keras.Input((3,)), LAYERS.Dense(5, dtype=policy, name="a"), LAYERS.Dense(1)])
    attach(model, ar.Spec([ar.Rule(ar.L1(1e3), layer="a", placement=p) for p in ("kernel", "output")]))
    kernel = model.layers[0].get_weights()[0]
    model(X)
    np.testing.assert_allclose(number(losses(model)["a/kernel/l1"]), float(ar.value(ar.L1(1e3), kernel)), rtol=1e-7)
    compiled(model).fit(X, Y[:, :1], verbose=0)


def test_the_mask_of_keras_is_used() -> None:
    layers = [keras.Input((3,)), LAYERS.Embedding(5, 2, mask_zero=True), LAYERS.Dense(2, name="d")]
    rule = ar.Rule(ar.L1(1.0), layer="d", placement="output", mean_over=("batch", "time"))
    model = attach(keras.Sequential(layers), ar.Spec([rule]))
    tokens = np.array([[1, 0, 0], [1, 2, 0]])
    outputs = number(model(tokens))
    np.testing.assert_allclose(number(total(model)), np.abs(outputs[tokens > 0]).sum() / 3, rtol=1e-6)


def test_convolutions_have_named_axes() -> None:
    layers = [
        LAYERS.Conv2D(3, 3, name="c"),
        LAYERS.DepthwiseConv2D(2, name="w"),
        LAYERS.Conv2DTranspose(2, 3, name="t"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    rules = [ar.Rule(ar.L1(1.0), layer=name, placement="kernel", mean_over=("input", "width")) for name in "cwt"]
    rules.append(ar.Rule(ar.L1(1.0), layer="c", placement="output", mean_over=("height", "feature")))
    attach(model, ar.Spec(rules))
    outputs = number(keras.Sequential(model.layers[:1])(np.ones((2, 8, 8, 1))))
    model(np.ones((2, 8, 8, 1)))
    kernels = [np.abs(layer.get_weights()[0]).sum() for layer in layers]
    expected = [kernels[0] / 3, kernels[1] / 6, kernels[2] / 9, np.abs(outputs).sum() / 18]
    np.testing.assert_allclose([number(v) for v in losses(model).values()], expected, rtol=1e-6)


def test_the_table_of_sites() -> None:
    model = attach(with_weights(sequential()), SPEC)
    assert [site.value for site in sites(model)] == [None] * 5
    model(X)
    lines = repr(sites(model)).splitlines()
    assert lines[1].split()[:5] == ["pre_activation/l1", "hidden", "input", "of", "layer.activation"]
    assert "7×5" in lines[1]
    assert f"{expected_losses(X)[0]:.5g}" in lines[1]
    assert [site.key for site in sites(model)] == KEYS
