"""Keras models whose bundles the tests of `arspec_jax.port` read; run as a script it writes them.

It runs in a process of its own, since Keras has one backend per process.
"""

import os
import sys
from pathlib import Path
from typing import Any

import arspec as ar


def main(folder: str) -> None:
    """Write every bundle into a folder."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    from arspec.port import write_bundle
    from arspec_keras.port import export

    keras.utils.set_random_seed(1)
    made = {
        "image": (_image, _IMAGE_RULES),
        "sequence": (_sequence, _SEQUENCE_RULES),
        "small": (_small, _SMALL_RULES),
        "plain": (_plain, _PLAIN_RULES),
        "recurrent": (_recurrent, _RECURRENT_RULES),
    }
    for name, (make, rules) in made.items():
        write_bundle(export(make(keras), ar.Spec(rules)), Path(folder) / f"{name}.bundle")


def _image(keras: Any) -> Any:
    layers = keras.layers
    image = keras.Input((13, 11, 4), name="image")
    x = layers.Rescaling(0.5, offset=[0.1, 0.2, 0.3, 0.4], name="rescaling")(image)
    x = layers.Conv2D(6, (3, 2), strides=2, padding="same", groups=2, name="conv", activation="relu")(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=0.01, name="bn")(x)
    x = layers.ReLU(6.0, name="relu6")(x)
    deep = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="deep", activation="elu")(x)
    wide = layers.SeparableConv2D(12, 3, padding="same", depth_multiplier=3, name="wide", activation="gelu")(x)
    x = layers.Subtract(name="subtract")([deep, wide])
    x = layers.Conv2D(6, 3, padding="same", dilation_rate=2, use_bias=False, name="dilated")(x)
    x = layers.GroupNormalization(3, name="groups")(x)
    x = layers.LeakyReLU(0.3, name="leaky")(x)
    x = layers.Conv2DTranspose(5, 3, strides=2, padding="same", name="up", activation="softplus")(x)
    x = layers.PReLU(shared_axes=(1, 2), alpha_initializer="random_normal", name="slopes")(x)
    x = layers.UpSampling2D((2, 1), name="nearest")(x)
    x = layers.Cropping2D(((1, 2), (0, 3)), name="crop")(x)
    x = layers.ZeroPadding2D(((0, 1), (2, 0)), name="pad")(x)
    x = layers.MaxPooling2D(3, 2, padding="same", name="largest")(x)
    x = layers.AveragePooling2D(3, 2, padding="same", name="average")(x)
    block = _block(keras)
    x = layers.Add(name="add")([block(x), x * 0.5])
    x = layers.SpatialDropout2D(0.4, name="channels")(block(x))
    means = layers.GlobalAveragePooling2D(name="means")(x)
    flat = layers.Flatten(name="flatten")(layers.GlobalMaxPooling2D(keepdims=True, name="largest_of_all")(x))
    x = layers.Concatenate(name="both")([means, flat])
    x = layers.Dense(7, activation="hard_silu", name="hidden")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    return keras.Model(image, layers.Dense(3, activation="softmax", name="out")(x), name="image-model")


def _block(keras: Any) -> Any:
    """Return a model inside, with a layer that is frozen."""
    layers = keras.layers
    given = keras.Input((None, None, 5), name="given")
    x = layers.Conv2D(5, 1, name="frozen", trainable=False, activation="tanh")(given)
    x = layers.LayerNormalization(name="norm")(x)
    return keras.Model(given, layers.Activation("silu", name="silu")(x), name="block")


_IMAGE_RULES = [
    ar.Rule(ar.L2(1e-2), layer="**", placement="kernel"),
    ar.Rule(ar.L1(1e-3), layer="wide", placement="depthwise_kernel"),
    ar.Rule(ar.GroupLasso(1e-2, norm_over=("input",)), layer="deep", placement="kernel"),
    ar.Rule(ar.L1(1e-2), layer="conv", placement="output"),
    ar.Rule(ar.L1(1e-2), layer="deep", placement="pre_activation"),
    ar.Rule(ar.L1(1e-2), layer="relu6", placement="output"),
    ar.Rule(ar.L2(1e-2), layer="dilated", placement="output", mean_over=("batch", "width")),
    ar.Rule(ar.L1(1e-2), layer="largest", placement="output"),
    ar.Rule(ar.L2(1e-2), layer="block/norm", placement="output"),
    ar.Rule(ar.L1(1e-2), layer="hidden", placement="output"),
]


def _sequence(keras: Any) -> Any:
    layers = keras.layers
    words = keras.Input((7,), dtype="int32", name="words")
    other = keras.Input((5, 3), name="other")
    x = layers.Embedding(11, 6, mask_zero=True, name="embedding")(words)
    x = layers.Conv1D(6, 3, dilation_rate=2, padding="causal", name="causal", activation="relu")(x)
    x = layers.RMSNormalization(name="rms")(x)
    attended = layers.MultiHeadAttention(2, 5, name="attention")(x, layers.Dense(4, name="key")(other))
    x = layers.LayerNormalization(epsilon=1e-6, name="norm")(layers.Add(name="add")([x, attended]))
    x = layers.MultiHeadAttention(2, 3, use_bias=False, name="self")(x, x)
    x = layers.Permute((2, 1), name="turned")(x)
    x = layers.Conv1DTranspose(4, 2, strides=3, padding="valid", name="longer")(x)
    x = layers.SeparableConv1D(5, 3, padding="valid", name="separable")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    x = layers.Reshape((5, 1), name="reshaped")(layers.Activation("mish", name="mish")(x))
    repeated = layers.RepeatVector(3, name="repeated")(layers.Flatten(name="flat")(x))
    last = layers.Dense(2, activation="exponential", name="last")(repeated)
    return keras.Model([words, other], [last, layers.Activation("hard_sigmoid", name="gate")(x)], name="sequence")


_SEQUENCE_RULES = [
    ar.Rule(ar.L2(1e-2), layer="embedding", placement="embeddings"),
    ar.Rule(ar.L1(1e-2), layer="attention", placement="query_kernel"),
    ar.Rule(ar.L2(1e-2), layer="self", placement="output_kernel"),
    ar.Rule(ar.L1(1e-2), layer="causal", placement="output", mean_over=("batch", "time")),
    ar.Rule(ar.L2(1e-2), layer="norm", placement="scale"),
    ar.Rule(ar.L1(1e-2), layer="attention", placement="output"),
    ar.Rule(ar.L1(1e-2), layer="last", placement="pre_activation"),
]


def _small(keras: Any) -> Any:
    """Return a model in which every planted fault fits."""
    layers = keras.layers
    image = keras.Input((6, 5, 2), name="image")
    x = layers.Conv2D(3, 3, strides=2, padding="same", use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(3, name="hidden", activation="gelu")(x)
    return keras.Model(image, layers.Dense(2, name="out")(x), name="small")


_SMALL_RULES = [
    ar.Rule(ar.L2(1e-1), layer="**", placement="kernel"),
    ar.Rule(ar.L1(1e-1), layer="hidden", placement="output", mean_over=("batch",)),
]


def _plain(keras: Any) -> Any:
    """Return a model without batch normalization, which Equinox can represent."""
    layers = keras.layers
    image, words = keras.Input((11, 9, 4), name="image"), keras.Input((7,), dtype="int32", name="words")
    x = layers.Conv2D(6, (3, 2), strides=2, padding="same", groups=2, name="conv", activation="relu")(image)
    deep = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="deep", activation="silu")(x)
    wide = layers.SeparableConv2D(12, 3, padding="same", name="wide")(x)
    x = layers.Concatenate(name="both")([deep, layers.ReLU(6.0, name="relu6")(wide)])
    x = layers.GroupNormalization(3, name="groups")(x)
    x = layers.Conv2DTranspose(5, 3, strides=2, padding="same", name="up", activation="tanh")(x)
    x = layers.ZeroPadding2D(((0, 1), (2, 0)), name="pad")(layers.Cropping2D(((1, 2), (0, 1)), name="crop")(x))
    x = layers.MaxPooling2D(3, 2, padding="same", name="largest")(x)
    x = layers.AveragePooling2D(3, 2, padding="same", name="average")(x)
    flat = layers.Flatten(name="flatten")(layers.LayerNormalization(name="norm")(x))
    y = layers.Embedding(11, 6, name="embedding")(words)
    y = layers.Conv1D(6, 3, dilation_rate=2, padding="causal", name="causal")(y)
    y = layers.RMSNormalization(name="rms")(layers.MultiHeadAttention(2, 5, value_dim=3, name="attention")(y, y))
    y = layers.Conv1DTranspose(4, 2, strides=3, padding="valid", name="longer")(layers.Dense(5, name="steps")(y))
    x = layers.Concatenate(name="all")([flat, layers.GlobalAveragePooling1D(name="mean")(y)])
    x = layers.Dropout(0.5, name="dropout")(layers.Dense(3, activation="gelu", name="hidden")(x))
    return keras.Model([image, words], layers.Dense(3, activation="softmax", name="out")(x), name="plain")


_PLAIN_RULES = [
    ar.Rule(ar.L2(1e-2), layer="**", placement="kernel"),
    ar.Rule(ar.L1(1e-3), layer="wide", placement="depthwise_kernel"),
    ar.Rule(ar.GroupLasso(1e-2, norm_over=("input",)), layer="deep", placement="kernel"),
    ar.Rule(ar.L1(1e-2), layer="attention", placement="query_kernel"),
    ar.Rule(ar.L1(1e-2), layer="conv", placement="output", mean_over=("batch", "width")),
    ar.Rule(ar.L1(1e-2), layer="deep", placement="output"),
    ar.Rule(ar.L1(1e-2), layer="relu6", placement="output", mean_over=("batch",)),
    ar.Rule(ar.L2(1e-2), layer="largest", placement="output"),
    ar.Rule(ar.L1(1e-2), layer="hidden", placement="output"),
]


def _recurrent(keras: Any) -> Any:
    """Return a model with every recurrent layer, masks, states and both directions."""
    layers = keras.layers
    words, other = keras.Input((7,), dtype="int32", name="words"), keras.Input((4, 3), name="other")
    x = layers.Embedding(11, 3, mask_zero=True, name="embedding")(words)
    x, state, cell = layers.LSTM(
        5, return_sequences=True, return_state=True, bias_initializer="random_normal", name="lstm"
    )(x)
    y = layers.GRU(4, go_backwards=True, bias_initializer="random_normal", return_sequences=True, name="gru")(x)
    z = layers.Bidirectional(layers.GRU(2, reset_after=False, return_sequences=True), merge_mode="sum", name="two")(x)
    last = layers.LSTM(5, use_bias=False, activation="relu", recurrent_activation="hard_sigmoid", name="from_state")(
        other, initial_state=[state, cell]
    )
    simple = layers.SimpleRNN(3, name="simple")(y)
    ends = layers.Bidirectional(layers.SimpleRNN(2, activation="sigmoid"), name="ends")(z)
    return keras.Model([words, other], layers.Concatenate(name="all")([last, simple, ends]), name="recurrent")


_RECURRENT_RULES = [
    ar.Rule(ar.L2(1e-2), layer="lstm", placement="kernel"),
    ar.Rule(ar.L1(1e-2), layer="gru", placement="output"),
    ar.Rule(ar.L2(1e-2), layer="lstm", placement="recurrent_kernel"),
    ar.Rule(ar.L1(1e-2), layer="two/backward", placement="kernel"),
    ar.Rule(ar.L2(1e-2), layer="ends", placement="output", mean_over=("batch",)),
]

if __name__ == "__main__":
    main(sys.argv[1])
