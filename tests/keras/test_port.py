"""Keras models as bundles, written to PyTorch and compared at every level.

The evidence is measured on TensorFlow, the one backend of Keras that computes in float64
throughout; on the others a test asks that this is said.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import arspec as ar
import arspec_keras
import arspec_torch
import keras
from arspec.port import Bundle, Certificate, read_bundle, write_bundle
from arspec.port._files import read_target, write_target
from arspec.port._kinds import FUNCTIONS
from arspec_keras.port import export
from arspec_torch.port import check, load, write

L = keras.layers
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="evidence is measured with Keras on TensorFlow"
)


def ported(bundle: Bundle, folder: Path, *, faults: bool = False) -> Certificate:
    """Write a bundle and its PyTorch code to disk, read both back, and check."""
    write_bundle(bundle, folder / "model.bundle")
    held = read_bundle(folder / "model.bundle")
    write_target(held, write(held), folder / "model.py")
    written, weights = read_target(folder / "model.py")
    module = load(folder / "model.py", written.class_name, weights)
    return check(held, written, module, faults=faults)


def assert_holds(certificate: Certificate, *levels: str) -> None:
    assert certificate.holds, certificate.explain()
    compared = {level: count for level, (count, _, _) in certificate.levels().items()}
    assert all(compared.get(level, 0) > 0 for level in levels or ("L0", "L1", "L3", "L4")), compared


def regularized(name: str = "conv") -> dict[str, object]:
    return {"kernel_regularizer": keras.regularizers.L2(1e-3), "name": name}


def image(*, shape: tuple[int | None, ...] = (13, 10, 3)) -> keras.KerasTensor:
    return keras.Input(shape, name="image")


def convolutional() -> keras.Model:
    x = inputs = image()
    x = L.Conv2D(8, 3, strides=2, padding="same", **regularized("conv"))(x)
    x = L.BatchNormalization(name="norm")(x)
    x = L.ReLU(6.0, name="relu", activity_regularizer=keras.regularizers.L1(1e-3))(x)
    side = L.SeparableConv2D(8, 3, padding="same", activation="gelu", name="separable")(x)
    x = L.Add(name="add")([x, side])
    x = L.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = L.MaxPooling2D(3, 2, padding="same", name="pool")(x)
    x = L.Flatten(name="flat")(x)
    x = L.Dense(7, activation="gelu", activity_regularizer=keras.regularizers.L1(1e-3), name="hidden")(x)
    x = L.Dense(7, activation="tanh", name="square")(x)
    return keras.Model(inputs, L.Dense(5, activation="softmax", name="out")(x), name="convolutional")


def dilated_and_grouped() -> keras.Model:
    x = inputs = image(shape=(12, 9, 4))
    x = L.Conv2D(6, (3, 2), dilation_rate=(2, 1), padding="same", groups=2, use_bias=False, name="grouped")(x)
    x = L.Conv2D(5, 4, strides=(2, 3), padding="same", name="uneven")(x)
    x = L.Conv2D(5, 2, activation="elu", name="valid")(x)
    return keras.Model(inputs, x, name="dilated")


def one_dimensional() -> keras.Model:
    x = inputs = keras.Input((11, 3), name="series")
    x = L.Conv1D(4, 3, dilation_rate=2, padding="causal", name="causal")(x)
    x = L.BatchNormalization(name="norm")(x)
    x = L.SeparableConv1D(5, 3, padding="same", name="separable")(x)
    x = L.MaxPooling1D(2, name="pool")(x)
    x = L.AveragePooling1D(3, 2, padding="same", name="average")(x)
    x = L.Conv1DTranspose(3, 4, strides=2, padding="same", name="transposed")(x)
    x = L.LayerNormalization(name="layer_norm")(x)
    x = L.ZeroPadding1D((1, 2), name="padded")(x)
    x = L.UpSampling1D(2, name="upsampled")(x)
    x = L.Cropping1D((2, 1), name="cropped")(x)
    return keras.Model(inputs, L.GlobalMaxPooling1D(name="global")(x), name="series_model")


def three_dimensional() -> keras.Model:
    x = inputs = keras.Input((5, 6, 7, 2), name="volume")
    x = L.Conv3D(3, 2, strides=2, padding="same", name="conv")(x)
    x = L.BatchNormalization(name="norm")(x)
    x = L.AveragePooling3D(2, padding="same", name="pool")(x)
    x = L.Conv3DTranspose(2, 2, name="transposed")(x)
    return keras.Model(inputs, L.GlobalAveragePooling3D(name="global")(x), name="volume_model")


def transposed(kernel: int, strides: int, padding: str) -> Callable[[], keras.Model]:
    def build() -> keras.Model:
        x = inputs = image(shape=(5, 4, 3))
        x = L.Conv2DTranspose(4, kernel, strides=strides, padding=padding, activation="tanh", name="up")(x)
        return keras.Model(inputs, x, name="transposed")

    return build


def normalized() -> keras.Model:
    x = inputs = image(shape=(6, 5, 8))
    x = L.LayerNormalization(name="layer_norm")(x)
    x = L.GroupNormalization(4, name="group_norm")(x)
    x = L.BatchNormalization(scale=False, name="no_scale")(x)
    x = L.BatchNormalization(center=False, momentum=0.8, epsilon=1e-5, name="no_shift")(x)
    x = L.RMSNormalization(name="rms")(x)
    x = L.PReLU(shared_axes=(1, 2), name="prelu")(x)
    x = L.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = L.Reshape((8,), name="vector")(x)
    return keras.Model(inputs, L.BatchNormalization(name="vector_norm")(x), name="normalized")


def merged() -> keras.Model:
    first, second = keras.Input((6, 5, 4), name="first"), keras.Input((6, 5, 4), name="second")
    conv = L.Conv2D(4, 3, padding="same", name="shared")
    a, b = conv(first), conv(second)
    parts = [L.Subtract(name="minus")([a, b]), L.Multiply(name="times")([a, b]), L.Maximum(name="max")([a, b])]
    parts += [L.Minimum(name="min")([a, b]), L.Average(name="mean")([a, b, first]), a * 0.5 + b / 3.0 - 1.0]
    x = L.Concatenate(name="channels")(parts)
    x = L.Concatenate(axis=2, name="rows")([x, x])
    gate = L.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    gate = L.Conv2D(24, 1, activation="sigmoid", name="excite")(gate)
    return keras.Model([first, second], [L.Multiply(name="gated")([x, gate]), a], name="merged")


def nested() -> keras.Model:
    block = keras.Sequential([keras.Input((6, 5, 4)), L.Conv2D(4, 3, padding="same", name="conv"), L.ReLU(name="act")])
    block.name = "block"
    x = inputs = image(shape=(6, 5, 4))
    x = block(x)
    x = L.Activation("hard_silu", name="class")(x)
    x = L.Permute((2, 1, 3), name="permuted")(x)
    x = L.Reshape((3, 10, 4), name="reshaped")(x)
    x = L.Conv2D(3, 2, name="2nd-conv")(x)
    x = L.GlobalAveragePooling2D(name="pool")(x)
    x = L.RepeatVector(4, name="repeated")(x)
    return keras.Model(inputs, L.Dense(2, name="forward")(x), name="nested")


def frozen() -> keras.Model:
    model = keras.Sequential(
        [keras.Input((6,)), L.Dense(5, activation="relu", **regularized("kept")), L.Dense(3, name="out")], name="frozen"
    )
    model.get_layer("kept").trainable = False
    return model


def scaled() -> keras.Model:
    x = inputs = image(shape=(6, 5, 3))
    x = L.Rescaling(1 / 127.5, -1.0, name="rescaled")(x)
    x = L.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0], name="standardized")(x)
    x = L.Dropout(0.5, name="dropped")(x)
    x = L.SpatialDropout2D(0.5, name="dropped_channels")(x)
    x = L.UpSampling2D(2, interpolation="bilinear", name="bilinear")(x)
    x = L.ZeroPadding2D(((0, 1), (2, 0)), name="padded")(x)
    return keras.Model(inputs, L.Conv2D(2, 3, strides=2, name="conv")(x), name="scaled")


def tokens() -> keras.Model:
    x = inputs = keras.Input((7,), dtype="int32", name="tokens")
    x = L.Embedding(11, 6, name="embedded")(x)
    x = L.Dense(6, activation="silu", name="dense")(x)
    return keras.Model(inputs, L.Flatten(name="flat")(x), name="tokens_model")


def open_sizes() -> keras.Model:
    x = inputs = image(shape=(None, None, 3))
    x = L.Conv2D(4, 3, strides=2, padding="same", name="conv")(x)
    x = L.MaxPooling2D(3, 2, padding="same", name="pool")(x)
    return keras.Model(inputs, L.AveragePooling2D(2, padding="same", name="average")(x), name="open")


def told_its_mode() -> keras.Model:
    """A layer that is told training=False: Keras lets the mode of the model overrule it."""
    x = inputs = image(shape=(6, 5, 3))
    x = L.BatchNormalization(name="norm")(x, training=False)
    return keras.Model(inputs, L.Dense(2, name="out")(L.Dropout(0.5, name="dropped")(x)), name="told")


MODELS = [
    *(convolutional, dilated_and_grouped, one_dimensional, three_dimensional, normalized, merged, nested, frozen),
    *(
        told_its_mode,
        scaled,
        tokens,
        open_sizes,
        transposed(3, 1, "valid"),
        transposed(2, 3, "valid"),
        transposed(4, 2, "same"),
    ),
    *(transposed(3, 2, "same"), transposed(2, 3, "same"), transposed(5, 2, "same")),
]


@on_tensorflow
@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__qualname__.partition(".")[0])
def test_a_model_arrives_in_torch_at_every_level(build: Callable[[], keras.Model], tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    assert_holds(ported(export(build()), tmp_path))


@on_tensorflow
@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"gelu_tanh"}))
def test_every_activation_function_arrives_in_torch(name: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6,)), L.Dense(5, activation=name, name="fused"), L.Activation(name, name="alone")]
    assert_holds(ported(export(keras.Sequential(layers, name="functions")), tmp_path))


@on_tensorflow
def test_planted_faults_are_noticed_and_name_their_layer(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    certificate = ported(export(convolutional()), tmp_path, faults=True)
    assert_holds(certificate, "L0", "L1", "L2", "L3", "L4", "L5")
    planted = {
        name.rpartition(" (")[0]: (name.rpartition(" (")[2][:-1], how) for name, how in certificate.faults.items()
    }
    assert set(planted) == {
        "square kernel transposed",
        "padding on the wrong side",
        "epsilon of another framework",
        "momentum not inverted",
        "GELU approximated by tanh",
        "coefficient twice as large",
        "activity summed over the batch",
        "activity before the activation function",
        "penalty as decoupled weight decay",
        "penalty as decay of all weights",
    }
    assert all(layer in how for layer, how in planted.values()), planted


@on_tensorflow
def test_rules_given_as_a_spec_arrive_with_their_values(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    rules = [
        ar.Rule(ar.L2(1e-3), layer="**", placement="kernel"),
        ar.Rule(ar.L1(1e-3), layer="separable", placement="depthwise_kernel"),
        ar.Rule(ar.L1(1e-3), layer="separable", placement="pre_activation", mean_over="mean"),
        ar.Rule(ar.GroupLasso(1e-3, norm_over=("input", "height", "width")), layer="conv", placement="kernel"),
        ar.Rule(ar.Hoyer(1e-3), layer="add", placement="output"),
        ar.Rule(ar.L1(1e-3), layer="norm", placement="scale"),
    ]
    bundle = export(convolutional(), ar.Spec(rules))
    certificate = ported(bundle, tmp_path)
    assert_holds(certificate, "L0", "L1", "L2", "L3", "L4")
    assert len(bundle.sites) == 5 + 5
    spec = ar.load(tmp_path / "model.spec.json")
    assert {rule.layer for rule in spec.rules} >= {"conv", "separable_depthwise", "separable", "add", "norm", "out"}


@on_tensorflow
def test_ten_steps_of_training_give_the_same_losses(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = convolutional()
    bundle = export(model)
    ported(bundle, tmp_path)
    written, weights = read_target(tmp_path / "model.py")
    module = load(tmp_path / "model.py", written.class_name, weights).train()
    penalties = arspec_torch.attach(module, ar.load(tmp_path / "model.spec.json"))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    generator = np.random.default_rng(0)
    images = generator.standard_normal((10, 8, 13, 10, 3)).astype(np.float32)
    labels = generator.integers(0, 5, (10, 8))
    model.compile(optimizer=keras.optimizers.SGD(0.05), loss="sparse_categorical_crossentropy")
    ours, theirs = [], []
    for batch, label in zip(images, labels, strict=True):
        theirs.append(float(model.train_on_batch(batch, label)))
        optimizer.zero_grad()
        output = module(torch.from_numpy(np.ascontiguousarray(np.moveaxis(batch, -1, 1))))
        loss = torch.nn.functional.nll_loss(output.log(), torch.from_numpy(label)) + penalties.total()
        loss.backward()
        optimizer.step()
        ours.append(loss.item())
    np.testing.assert_allclose(ours, theirs, rtol=2e-5)


@on_tensorflow
def test_the_code_needs_neither_keras_nor_arspec(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = convolutional()
    ported(export(model), tmp_path)
    x = np.random.default_rng(0).standard_normal((2, 13, 10, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", np.ascontiguousarray(np.moveaxis(x, -1, 1)))
    np.save(tmp_path / "y.npy", keras.ops.convert_to_numpy(model(x)))
    code = (
        "import sys, numpy as np, torch, model; m = model.load().eval();"
        "y = m(torch.from_numpy(np.load('x.npy'))).detach().numpy();"
        "np.testing.assert_allclose(y, np.load('y.npy'), atol=1e-6);"
        "assert not {'keras', 'arspec', 'arspec_torch', 'tensorflow'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _custom(inputs: keras.KerasTensor) -> keras.KerasTensor:
    class Doubled(L.Layer):
        def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
            return 2 * x

    return Doubled(name="doubled")(inputs)


@on_tensorflow
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (_custom, "'?doubled'?: a layer of the class .*Doubled cannot be ported exactly"),
        (lambda x: L.Conv2D(3, 2, kernel_constraint="non_neg", name="bound")(x), "bound: kernel_constraint"),
        (lambda x: L.Softmax(axis=1, name="soft")(x), "soft: Softmax\\(axis=1\\)"),
        (lambda x: L.BatchNormalization(trainable=False, name="still")(x), "'still' is a frozen BatchNormalization"),
        (lambda x: L.Dropout(0.5, name="monte_carlo")(x, training=True), "monte_carlo: training=True"),
        (lambda x: L.ReLU(max_value=3.0, name="capped")(x), "capped: this ReLU"),
    ],
)
def test_what_cannot_be_exact_is_refused_by_name(layer: Callable[..., keras.KerasTensor], message: str) -> None:
    inputs = image(shape=(6, 5, 3))
    with pytest.raises(ar.UnsupportedError, match=message):
        export(keras.Model(inputs, layer(inputs)))


@on_tensorflow
def test_a_subclassed_model_is_refused() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = L.Dense(2)

        def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
            return self.dense(x)

    model = Own()
    model(np.ones((1, 3), np.float32))
    with pytest.raises(ar.UnsupportedError, match="whose graph Keras does not know"):
        export(model)


@on_tensorflow
def test_the_model_is_not_changed() -> None:
    keras.utils.set_random_seed(0)
    model = arspec_keras.attach(convolutional(), ar.Spec([ar.Rule(ar.L1(1e-3), layer="add", placement="output")]))
    before = [keras.ops.convert_to_numpy(v).copy() for v in model.variables]
    bundle = export(model)
    assert next(site.key for site in bundle.sites) == "add/output/l1"
    assert all(np.array_equal(a, v) for a, v in zip(before, model.variables, strict=True))
    assert len(arspec_keras.extract(model).rules) == len(bundle.spec.rules)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow measures")
def test_other_backends_say_how_to_export() -> None:
    with pytest.raises(ar.UnsupportedError, match=r"arspec port export MODEL\.keras -o BUNDLE"):
        export(frozen())
