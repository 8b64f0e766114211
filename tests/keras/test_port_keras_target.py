"""Porting to Keras: source code of a functional model, checked at every level; there and back again."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import arspec as ar
import arspec_torch.port
import keras
from arspec.port import Bundle, Certificate, Written
from arspec_keras.port import check, export, write
from arspec_keras.port._check import build
from arspec_torch.port._check import build as build_torch

L = keras.layers
on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="float64 throughout on it alone")


def certified(bundle: Bundle, *, faults: bool = False) -> tuple[Written, keras.Model, Certificate]:
    """Write a bundle as Keras, and compare."""
    written = write(bundle)
    model = build(bundle, written)
    certificate = check(bundle, written, model, faults=faults)
    assert certificate.holds, certificate.explain()
    return written, model, certificate


def flat(bundle: Bundle) -> dict[str, bytes]:
    """Return the bytes of each weight; "/" in names becomes "_" in source code."""
    return {name.replace("/", "_"): weight.tobytes() for name, weight in bundle.weights.items()}


class Convolutional(nn.Module):
    """Strided and padded windows, statistics, a skip and a flatten, channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, (5, 3), 2, (2, 1))
        self.bn = nn.BatchNorm2d(5, momentum=0.3)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.block = nn.Sequential(nn.Conv2d(5, 5, 3, padding=1, groups=5), nn.BatchNorm2d(5), nn.GELU("tanh"))
        self.up = nn.ConvTranspose2d(5, 7, 4, 2, 1)
        self.norm = nn.GroupNorm(7, 7)
        self.fc = nn.Linear(7 * 10 * 6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.leaky_relu(self.bn(self.stem(x)), 0.1))
        x = self.norm(self.up(x + self.block(x)))
        return self.fc(torch.flatten(F.relu(x), 1))


SPEC = ar.Spec(
    [
        ar.Rule(ar.L2(1e-3), layer="**", placement="kernel"),
        ar.Rule(ar.L1(1e-2), layer="stem", placement="pre_activation"),
        ar.Rule(ar.L1(2e-2), layer="fc", placement="output"),
        ar.Rule(ar.L1(3e-2), layer="block/0", placement="bias"),
    ]
)


@on_tensorflow
def test_torch_to_keras_to_torch() -> None:
    torch.manual_seed(3)
    model, example = Convolutional(), torch.randn(2, 3, 19, 11)
    bundle = arspec_torch.port.export(model, example, SPEC)
    written, _, certificate = certified(bundle, faults=True)
    assert set(certificate.levels()) == {"L0", "L1", "L2", "L3", "L4", "L5"}
    assert "class UnbiasedBatchNormalization(layers.BatchNormalization)" in written.text
    assert 'name="block_0"' in written.text
    back = arspec_torch.port.write(bundle)
    again = build_torch(bundle, back)
    third = arspec_torch.port.export(again, example)
    assert flat(third) == flat(bundle)


def zoo() -> keras.Model:
    """Return a Keras model with many kinds of layers, its weights random where fresh ones are alike."""
    keras.utils.set_random_seed(5)
    image = keras.Input((13, 11, 3), name="image")
    x = L.Rescaling(0.5, offset=-0.25, name="rescaling")(image)
    x = L.Conv2D(7, (3, 2), strides=2, padding="same", activation="relu6", name="conv")(x)
    x = L.BatchNormalization(momentum=0.8, name="bn")(x)
    y = L.DepthwiseConv2D(3, padding="same", activation="silu", name="depthwise")(x)
    x = L.Add(name="sum")([x, L.SpatialDropout2D(0.2, name="drop")(y)])
    x = L.PReLU(shared_axes=[1, 2], name="prelu")(x)
    x = L.AveragePooling2D(2, padding="same", name="pool")(x)
    x = L.ZeroPadding2D(((1, 0), (0, 2)), name="pad")(x)
    x = L.Concatenate(name="both")([x, L.LeakyReLU(0.1, name="leaky")(x)])
    x = L.Conv2DTranspose(5, 3, strides=2, padding="same", name="up", activation="tanh")(x)
    x = L.GroupNormalization(5, name="group")(x)
    tokens = L.Reshape((-1, 5), name="tokens")(L.Cropping2D(1, name="crop")(x))
    tokens = L.MultiHeadAttention(2, 3, name="attention")(tokens, tokens)
    tokens = L.LayerNormalization(name="norm")(tokens)
    inner = keras.Sequential(
        [keras.Input((5,)), L.Dense(7, "gelu", name="dense"), L.Dense(2, name="last")], name="head"
    )
    return keras.Model(image, inner(L.GlobalAveragePooling1D(name="mean")(tokens) * 2.0), name="zoo")


@on_tensorflow
def test_every_layer_of_a_keras_model_comes_back() -> None:
    spec = ar.Spec(
        [
            ar.Rule(ar.L2(1e-3), layer="**", placement="kernel"),
            ar.Rule(ar.L1(1e-2), layer="up", placement="pre_activation"),
            ar.Rule(ar.L1(2e-2), layer="prelu", placement="output"),
        ]
    )
    bundle = export(zoo(), spec)
    written, model, _ = certified(bundle)
    assert "def build_head() -> keras.Model:" in written.text
    assert flat(export(model)) == flat(bundle)


@on_tensorflow
def test_what_keras_cannot_say_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(3, 2, 1, count_include_pad=False))
    bundle = arspec_torch.port.export(model, torch.randn(2, 3, 10, 12))
    with pytest.raises(ar.UnsupportedError, match="'1': an average pooling that does not count its padding"):
        write(bundle)
    norm = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    for parameter in norm[0].parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ar.UnsupportedError, match="'0': a layer of which scale, shift alone does not train"):
        write(arspec_torch.port.export(norm, torch.randn(2, 3)))


@on_tensorflow
def test_recurrent_layers_there_and_back() -> None:
    keras.utils.set_random_seed(5)
    x = words = keras.Input((7, 3), name="words")
    x = L.Bidirectional(L.GRU(4, return_sequences=True), name="both")(x)
    x, h, c = L.LSTM(5, return_sequences=True, return_state=True, name="lstm")(x)
    x = L.Concatenate(name="last")([L.SimpleRNN(2, name="rnn")(x), h, c])
    model = keras.Model(words, L.Dense(2, name="out")(x), name="sequences")
    spec = ar.Spec(
        [
            ar.Rule(ar.L2(1e-2), layer="both/backward", placement="recurrent_kernel"),
            ar.Rule(ar.L1(1e-2), layer="lstm", placement="cell_state"),
            ar.Rule(ar.L1(1e-2), layer="rnn", placement="hidden_state"),
        ]
    )
    bundle = export(model, spec)
    certified(bundle)
    there = build_torch(bundle, arspec_torch.port.write(bundle))
    back = arspec_torch.port.export(there, torch.zeros(1, 7, 3), SPEC_BACK)
    certified(back)
    assert flat(back) == flat(bundle)


SPEC_BACK = ar.Spec([ar.Rule(ar.L1(1e-2), layer="both/forward", placement="hidden_state")])


@on_tensorflow
def test_keras_to_torch_to_keras() -> None:
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            keras.Input((13, 11, 3)),
            L.Conv2D(7, 3, padding="same", name="conv", activation="relu"),
            L.BatchNormalization(name="bn"),
            L.AveragePooling2D(2, padding="same", name="pool"),
            L.Flatten(name="flatten"),
            L.Dense(5, activation="exponential", name="dense"),
        ]
    )
    bundle = export(model)
    there = build_torch(bundle, arspec_torch.port.write(bundle))
    back = arspec_torch.port.export(there, torch.zeros(1, 3, 13, 11))
    _, again, _ = certified(back)
    assert flat(back) == flat(bundle)
    names = [layer.name for layer in again.layers[1:]]
    assert names == ["conv", "conv_activation", "bn", "pool", "flatten", "dense", "dense_activation"]


class Tokens(nn.Module):
    """A Transformer encoder over embedded tokens, and a mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        layer = nn.TransformerEncoderLayer(6, 2, 7, 0.0, nn.GELU(), norm_first=True, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(tokens)).mean(1))


@on_tensorflow
def test_transformer_encoder_to_keras() -> None:
    torch.manual_seed(3)
    rules = ar.Spec(
        [
            ar.Rule(ar.L2(1e-2), layer="encoder/layers/1/self_attn", placement="value_kernel"),
            ar.Rule(ar.L1(1e-2), layer="encoder/layers/0/linear1", placement="output"),
        ]
    )
    bundle = arspec_torch.port.export(Tokens(), torch.arange(14).reshape(2, 7) % 11, rules)
    written, _, _ = certified(bundle)
    assert "layers.MultiHeadAttention(2, 3, name=" in written.text


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="what other backends say")
def test_other_backends_say_that_they_cannot_measure() -> None:
    bundle = arspec_torch.port.export(nn.Sequential(nn.Linear(3, 2)), torch.zeros(1, 3))
    with pytest.raises(ar.UnsupportedError, match="set KERAS_BACKEND=tensorflow"):
        certified(bundle)
