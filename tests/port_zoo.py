"""One image model and one sequence model, each written by hand for five frameworks, with the names of its author.

Together they have every kind of layer whose weights can be moved. Everything is float64 and
takes channels-last arrays of one batch. The sizes are small primes, so that a wrong axis has
another length.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import linen, nnx
from torch import Tensor, nn
from torch.nn import functional as F

import arspec as ar
from arspec.port import Layers

IMAGE = (2, 7, 5, 4)
TOKENS = (2, 7)
ROWS = 11  # of the table; attention heads have size 4, whose root is exact in any dtype
EPSILON = 2**-10  # exact in float32, to which Keras and NNX round it


def image_keras(keras: Any) -> Any:
    layers = keras.layers
    x = given = keras.Input(IMAGE[1:])
    x = layers.Conv2D(6, (3, 2), padding="same", groups=2, activation="relu", name="grouped")(x)
    x = layers.BatchNormalization(epsilon=EPSILON, momentum=0.9, name="norm")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="deep")(x)
    x = layers.GroupNormalization(3, epsilon=EPSILON, name="groups")(x)
    x = layers.SeparableConv2D(7, 3, depth_multiplier=3, padding="same", name="wide")(x)
    x = layers.Conv2DTranspose(5, (3, 2), padding="valid", name="up")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(3, activation="tanh", name="first")(x)
    x = layers.Dense(3, activation="tanh", name="second")(x)
    return keras.Model(given, layers.Dense(3, name="third")(x), name="image")


class ImageTorch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(3, 3)
        self.b, self.a = nn.Linear(3, 3), nn.Linear(5, 3)
        self.transposed = nn.ConvTranspose2d(7, 5, (3, 2))
        self.conv = nn.Conv2d(4, 6, (3, 2), groups=2)
        self.norm = nn.BatchNorm2d(6, eps=EPSILON, momentum=0.1)
        self.by_channel = nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.group_norm = nn.GroupNorm(3, 12, eps=EPSILON)
        self.depthwise = nn.Conv2d(12, 36, 3, padding=1, groups=12, bias=False)
        self.pointwise = nn.Conv2d(36, 7, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(F.relu(self.conv(F.pad(x.permute(0, 3, 1, 2), (0, 1, 1, 1)))))
        x = self.pointwise(self.depthwise(self.group_norm(self.by_channel(x))))
        x = self.transposed(x).mean((2, 3))
        return self.out(torch.tanh(self.b(torch.tanh(self.a(x)))))


class ImageNnx(nnx.Module):
    def __init__(self) -> None:
        options: dict[str, Any] = {"param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
        self.conv = nnx.Conv(4, 6, (3, 2), feature_group_count=2, **options)
        self.norm = nnx.BatchNorm(6, epsilon=EPSILON, momentum=0.9, use_running_average=True, **options)
        self.norm.mean = nnx.BatchStat(jnp.zeros(6, jnp.float64))  # NNX itself keeps them in float32
        self.norm.var = nnx.BatchStat(jnp.ones(6, jnp.float64))
        self.by_channel = nnx.Conv(6, 12, (3, 3), feature_group_count=6, **options)
        self.group_norm = nnx.GroupNorm(12, 3, epsilon=EPSILON, use_fast_variance=False, **options)
        self.depthwise = nnx.Conv(12, 36, (3, 3), feature_group_count=12, use_bias=False, **options)
        self.pointwise = nnx.Conv(36, 7, (1, 1), padding="VALID", **options)
        self.up = nnx.ConvTranspose(7, 5, (3, 2), padding="VALID", **options)
        self.dense = nnx.List([nnx.Linear(5, 3, **options), nnx.Linear(3, 3, **options), nnx.Linear(3, 3, **options)])

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.norm(nnx.relu(self.conv(x)))
        x = self.pointwise(self.depthwise(self.group_norm(self.by_channel(x))))
        x = self.up(x).mean((1, 2))
        return self.dense[2](jnp.tanh(self.dense[1](jnp.tanh(self.dense[0](x)))))


class ImageLinen(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        d: Any = {"param_dtype": jnp.float64}
        x = linen.relu(linen.Conv(6, (3, 2), feature_group_count=2, **d)(x))
        x = linen.BatchNorm(use_running_average=True, epsilon=EPSILON, momentum=0.9, **d)(x)
        x = linen.Conv(12, (3, 3), feature_group_count=6, **d)(x)
        x = linen.GroupNorm(3, epsilon=EPSILON, use_fast_variance=False, **d)(x)
        x = linen.Conv(36, (3, 3), feature_group_count=12, use_bias=False, **d)(x)
        x = linen.Conv(7, (1, 1), padding="VALID", **d)(x)
        x = linen.ConvTranspose(5, (3, 2), padding="VALID", transpose_kernel=True, **d)(x).mean((1, 2))
        x = jnp.tanh(linen.Dense(3, **d)(x))
        return linen.Dense(3, **d)(jnp.tanh(linen.Dense(3, **d)(x)))


class ImageEquinox(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    by_channel: eqx.nn.Conv2d
    group_norm: eqx.nn.GroupNorm
    depthwise: eqx.nn.Conv2d
    pointwise: eqx.nn.Conv2d
    up: eqx.nn.ConvTranspose2d
    dense: list[eqx.nn.Linear]

    def __init__(self, key: Any) -> None:
        k = list(jax.random.split(key, 9))
        self.conv = eqx.nn.Conv2d(4, 6, (3, 2), padding="SAME", groups=2, key=k[0])
        self.norm = eqx.nn.BatchNorm(6, "batch", eps=EPSILON, momentum=0.9, mode="batch", inference=True)
        self.by_channel = eqx.nn.Conv2d(6, 12, 3, padding=1, groups=6, key=k[1])
        self.group_norm = eqx.nn.GroupNorm(3, 12, eps=EPSILON)
        self.depthwise = eqx.nn.Conv2d(12, 36, 3, padding=1, groups=12, use_bias=False, key=k[2])
        self.pointwise = eqx.nn.Conv2d(36, 7, 1, key=k[3])
        self.up = eqx.nn.ConvTranspose2d(7, 5, (3, 2), key=k[4])
        self.dense = [eqx.nn.Linear(5, 3, key=k[5]), eqx.nn.Linear(3, 3, key=k[6]), eqx.nn.Linear(3, 3, key=k[7])]

    def __call__(self, x: jax.Array, state: eqx.nn.State) -> jax.Array:
        x, _ = self.norm(jax.nn.relu(self.conv(x.transpose(2, 0, 1))), state)
        x = self.pointwise(self.depthwise(self.group_norm(self.by_channel(x))))
        x = self.up(x).mean((1, 2))
        return self.dense[2](jnp.tanh(self.dense[1](jnp.tanh(self.dense[0](x)))))


def sequence_keras(keras: Any) -> Any:
    layers = keras.layers
    x = given = keras.Input(TOKENS[1:], dtype="int32")
    x = layers.Embedding(ROWS, 6, name="table")(x)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="both")(x)
    x = layers.LayerNormalization(epsilon=EPSILON, name="norm")(x)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.RMSNormalization(epsilon=EPSILON, name="rms")(x)
    x = layers.Conv1D(7, 3, padding="causal", dilation_rate=2, name="causal")(x)
    x = layers.LSTM(3, return_sequences=True, name="memory")(x)
    return keras.Model(given, layers.Dense(2, name="head")(x), name="sequence")


class SequenceTorch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(ROWS, 6)
        self.lstm = nn.LSTM(6, 4, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(8, eps=EPSILON)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.rms = nn.RMSNorm(8, eps=EPSILON)
        self.conv = nn.Conv1d(8, 7, 3, dilation=2)
        self.second = nn.LSTM(7, 3, batch_first=True)
        self.out = nn.Linear(3, 2)
        for name, bias in self.named_parameters():
            if ".bias_hh" in name:
                bias.requires_grad_(False).zero_()

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.lstm(self.embedding(ids))[0])
        x = self.rms(self.attention(x, x, x, need_weights=False)[0])
        x = self.conv(F.pad(x.transpose(1, 2), (4, 0))).transpose(1, 2)
        return self.out(self.second(x)[0])


class SequenceNnx(nnx.Module):
    def __init__(self) -> None:
        o: dict[str, Any] = {"param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
        self.embedding = nnx.Embed(ROWS, 6, **o)
        one, other = (nnx.RNN(nnx.OptimizedLSTMCell(6, 4, **o), rngs=nnx.Rngs(0)) for _ in range(2))
        self.lstm = nnx.Bidirectional(one, other, rngs=nnx.Rngs(0))
        self.norm = nnx.LayerNorm(8, epsilon=EPSILON, use_fast_variance=False, **o)
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, dtype=jnp.float64, **o)
        self.rms = nnx.RMSNorm(8, epsilon=EPSILON, use_fast_variance=False, **o)
        self.conv = nnx.Conv(8, 7, (3,), padding="CAUSAL", kernel_dilation=2, **o)
        self.second = nnx.RNN(nnx.LSTMCell(7, 3, **o), rngs=nnx.Rngs(0))
        self.out = nnx.Linear(3, 2, **o)

    def __call__(self, ids: jax.Array) -> jax.Array:
        x = self.norm(self.lstm(self.embedding(ids)))
        x: Any = self.second(self.conv(self.rms(self.attention(x))))
        return self.out(x)


class SequenceLinen(linen.Module):
    @linen.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        d: Any = {"param_dtype": jnp.float64}
        x = linen.Embed(ROWS, 6, **d)(ids)
        cells = [linen.RNN(linen.OptimizedLSTMCell(4, **d)) for _ in range(2)]
        x = linen.Bidirectional(cells[0], cells[1])(x)
        x = linen.LayerNorm(epsilon=EPSILON, use_fast_variance=False, **d)(x)
        x = linen.MultiHeadDotProductAttention(2, **d)(x)
        x = linen.RMSNorm(epsilon=EPSILON, use_fast_variance=False, **d)(x)
        x = linen.Conv(7, (3,), padding="CAUSAL", kernel_dilation=(2,), **d)(x)
        return linen.Dense(2, **d)(linen.RNN(linen.LSTMCell(3, **d))(x))


class SequenceEquinox(eqx.Module):
    embedding: eqx.nn.Embedding
    forward: eqx.nn.LSTMCell
    backward: eqx.nn.LSTMCell
    norm: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    rms: eqx.nn.RMSNorm
    conv: eqx.nn.Conv1d
    second: eqx.nn.LSTMCell
    out: eqx.nn.Linear

    def __init__(self, key: Any) -> None:
        k = list(jax.random.split(key, 7))
        self.embedding = eqx.nn.Embedding(ROWS, 6, key=k[0])
        self.forward, self.backward = eqx.nn.LSTMCell(6, 4, key=k[1]), eqx.nn.LSTMCell(6, 4, key=k[2])
        self.norm = eqx.nn.LayerNorm(8, eps=EPSILON)
        biases: Any = dict.fromkeys([f"use_{name}_bias" for name in ("query", "key", "value", "output")], True)
        self.attention = eqx.nn.MultiheadAttention(2, 8, key=k[3], **biases)
        self.rms = eqx.nn.RMSNorm(8, eps=EPSILON, use_bias=False)
        self.conv = eqx.nn.Conv1d(8, 7, 3, padding=((4, 0),), dilation=2, key=k[4])
        self.second = eqx.nn.LSTMCell(7, 3, key=k[5])
        self.out = eqx.nn.Linear(3, 2, key=k[6])

    def __call__(self, ids: jax.Array) -> jax.Array:
        x = jax.vmap(self.embedding)(ids)
        x = jnp.concatenate([walked(self.forward, x), walked(self.backward, x[::-1])[::-1]], -1)
        x = jax.vmap(self.norm)(x)
        x = jax.vmap(self.rms)(self.attention(x, x, x))
        x = self.conv(x.T).T
        return jax.vmap(self.out)(walked(self.second, x))


def walked(cell: Any, x: jax.Array) -> jax.Array:
    """Run a cell of Equinox over time."""
    start = jnp.zeros(cell.hidden_size, x.dtype)
    first = (start, start) if isinstance(cell, eqx.nn.LSTMCell) else start

    def step(state: Any, x: jax.Array) -> Any:
        after = cell(x, state)
        return after, after[0] if isinstance(after, tuple) else after

    return jax.lax.scan(step, first, x)[1]


def randomized(weights: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Return other numbers of the same shapes; variances are positive."""
    rng = np.random.default_rng(seed)
    made = {name: rng.normal(scale=0.5, size=array.shape) for name, array in weights.items()}
    return {
        name: (np.abs(a) + 0.5 if name.endswith("variance") else a).astype(weights[name].dtype)
        for name, a in made.items()
    }


def inputs(kind: str) -> np.ndarray:
    rng = np.random.default_rng(7)
    return rng.integers(0, ROWS, TOKENS) if kind == "sequence" else rng.normal(size=IMAGE)


def zeros(tree: Any, dtype: Any = None) -> Any:
    """Return what has shapes alone with zeros in them: to compile an initializer takes seconds."""

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return jnp.asarray(np.zeros(leaf.shape, dtype or leaf.dtype))

    return jax.tree.map(one, tree)


def made_nnx(make: Callable[[], nnx.Module]) -> Any:
    """Return a module whose variables are zeros."""
    graph, state = nnx.split(nnx.eval_shape(make))
    return nnx.merge(graph, zeros(state))


@dataclass
class Held:
    """A model, by what a test does with it: list, assign, run, and ask for the penalties of rules."""

    layers: Callable[[], Layers]
    assign: Callable[[dict[str, np.ndarray]], None]
    run: Callable[[], np.ndarray]
    penalties: Callable[[ar.Spec], list[float]]


def torch_model(kind: str) -> Held:
    import arspec_torch
    from arspec_torch.port import assign, layers

    torch.manual_seed(0)
    model = (ImageTorch() if kind == "image" else SequenceTorch()).double().eval()
    x = torch.from_numpy(inputs(kind))

    def penalties(spec: ar.Spec) -> list[float]:
        attached = arspec_torch.attach(model, spec)
        model(x)
        found = [float(loss.detach()) for loss in attached.losses().values()]
        attached.detach()
        return found

    return Held(lambda: layers(model, x), lambda w: assign(model, w), lambda: model(x).detach().numpy(), penalties)


def nnx_model(kind: str) -> Held:
    from arspec_jax.port import assign, layers

    model = made_nnx(ImageNnx if kind == "image" else SequenceNnx)
    x = jnp.asarray(inputs(kind))
    run = nnx.jit(lambda model, x: model(x))
    return Held(
        lambda: layers(model, x),
        lambda weights: assign(model, weights),
        lambda: np.asarray(run(model, x)),
        lambda spec: _jax_penalties(model, spec, model, x),
    )


def linen_model(kind: str) -> Held:
    from arspec_jax.port import assign, layers

    model: Any = ImageLinen() if kind == "image" else SequenceLinen()
    x = jnp.asarray(inputs(kind))
    held = [zeros(jax.eval_shape(model.init, jax.random.key(0), x), jnp.float64)]

    def change(weights: dict[str, np.ndarray]) -> None:
        held[0] = assign(model, weights, held[0], x)

    return Held(
        lambda: layers(model, held[0], x),
        change,
        lambda: np.asarray(jax.jit(model.apply)(held[0], x)),
        lambda spec: _jax_penalties(model, spec, held[0], x),
    )


def equinox_model(kind: str) -> Held:
    from arspec_jax.port import assign, layers

    key, x = jax.random.key(0), jnp.asarray(inputs(kind))
    made: Any = SequenceEquinox if kind == "sequence" else eqx.nn.make_with_state(ImageEquinox)
    given = zeros(eqx.filter_eval_shape(made, key))
    held = [(given, None) if kind == "sequence" else given]

    def change(weights: dict[str, np.ndarray]) -> None:
        model, state = held[0]
        found = assign(model, weights, state=state)
        held[0] = found if state is not None else (found, None)

    def run() -> np.ndarray:
        model, state = held[0]
        more = () if state is None else (state,)
        return np.asarray(jax.jit(jax.vmap(lambda x: model(x, *more), axis_name="batch"))(x))

    def penalties(spec: ar.Spec) -> list[float]:
        model, state = held[0]
        example = inputs(kind)[0]  # of one example: the weights are the same
        return _jax_penalties(model, spec, model, jnp.asarray(example), *(() if state is None else (state,)))

    return Held(lambda: layers(held[0][0], state=held[0][1]), change, run, penalties)


def _jax_penalties(model: Any, spec: ar.Spec, *args: Any) -> list[float]:
    """Return the value of each rule at the tensor that the adapter finds; to compile them takes seconds."""
    import arspec_jax

    found = arspec_jax.attach(model, spec, batched=False).parameters(*args)
    tensors = [(rule, found[rule.layer, rule.placement]) for rule in spec.rules]
    return [float(ar.value(r.penalty, np.asarray(t.read()), axes=t.axes, mean_over=r.mean_over)) for r, t in tensors]


def keras_model(kind: str, keras: Any) -> Held:
    import arspec_keras
    from arspec_keras.port import assign, layers

    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        model = image_keras(keras) if kind == "image" else sequence_keras(keras)
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])
    x = inputs(kind)

    def penalties(spec: ar.Spec) -> list[float]:
        attached = arspec_keras.attach(model, spec)
        attached(x)
        found = [float(keras.ops.convert_to_numpy(loss)) for loss in arspec_keras.losses(attached).values()]
        arspec_keras.detach(attached)
        return found

    return Held(
        lambda: layers(model),
        lambda weights: assign(model, weights),
        lambda: np.asarray(keras.ops.convert_to_numpy(model(x, training=False))),
        penalties,
    )
