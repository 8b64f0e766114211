"""Classes and functions that a written Equinox file may bring along."""

from arspec_jax.port._equinox_recurrent import HELPERS as _RECURRENT
from arspec_jax.port._functions import HELPERS as _FUNCTIONS

HELPERS = {
    **{name: text.replace("nnx.", "jax.nn.") for name, text in _FUNCTIONS.items()},
    **_RECURRENT,
    "masked_mean": '''def masked_mean(x: jax.Array, mask: jax.Array, keepdims: bool = False) -> jax.Array:
    """The mean over the steps where the mask is true."""
    share = mask[:, None].astype(x.dtype)
    return (x * share).sum(axis=0, keepdims=keepdims) / share.sum(axis=0, keepdims=keepdims)''',
    "folded": '''def folded(key: jax.Array | None, index: int) -> jax.Array | None:
    """A key for each layer that draws numbers; none in inference."""
    return None if key is None else jax.random.fold_in(key, index)''',
    "average_pool": '''def average_pool(
    x: jax.Array, size: tuple[int, ...], stride: tuple[int, ...], padding: tuple[tuple[int, int], ...]
) -> jax.Array:
    """Average pooling, channels first, that counts real entries only."""

    def total(x: jax.Array) -> jax.Array:
        return jax.lax.reduce_window(
            x, 0.0, jax.lax.add, (1, *size), (1, *stride), ((0, 0), *padding)
        )

    return total(x) / total(jnp.ones_like(x[:1]))''',
    "Identity": '''class Identity(eqx.Module):
    """Gives what it is given: a name for a result."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x''',
    "BatchNorm": '''class BatchNorm(eqx.nn.StatefulLayer):
    """Normalizes channels, the first axis, over the batch and all other axes.

    The statistics that inference takes are kept in the state: momentum * before + (1 - momentum)
    * those of the batch, whose variance is biased. To be mapped with axis_name="batch".
    """

    scale: jax.Array | None
    shift: jax.Array | None
    mean: eqx.nn.StateIndex[jax.Array]
    variance: eqx.nn.StateIndex[jax.Array]
    momentum: float = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)
    unbiased: bool = eqx.field(static=True)
    inference: bool

    def __init__(
        self,
        size: int,
        *,
        momentum: float,
        epsilon: float,
        use_scale: bool = True,
        use_shift: bool = True,
        unbiased: bool = False,
    ) -> None:
        self.scale = jnp.ones(size) if use_scale else None
        self.shift = jnp.zeros(size) if use_shift else None
        self.mean, self.variance = eqx.nn.StateIndex(jnp.zeros(size)), eqx.nn.StateIndex(jnp.ones(size))
        self.momentum, self.epsilon, self.unbiased, self.inference = momentum, epsilon, unbiased, False

    def __call__(self, x: jax.Array, state: eqx.nn.State) -> tuple[jax.Array, eqx.nn.State]:
        rows = x.reshape(x.shape[0], -1)
        if self.inference:
            mean, variance = state.get(self.mean), state.get(self.variance)
        else:
            mean = jax.lax.pmean(rows.mean(1), "batch")
            variance = jax.lax.pmean(((rows - mean[:, None]) ** 2).mean(1), "batch")
            count = rows.shape[1] * jax.lax.psum(1, "batch")
            kept = variance * count / (count - 1) if self.unbiased else variance
            state = self.moved(self.moved(state, self.mean, mean), self.variance, kept)
        y = (rows - mean[:, None]) * jax.lax.rsqrt(variance + self.epsilon)[:, None]
        y = y if self.scale is None else y * self.scale[:, None]
        y = y if self.shift is None else y + self.shift[:, None]
        return y.reshape(x.shape), state

    def moved(
        self, state: eqx.nn.State, index: eqx.nn.StateIndex[jax.Array], batch: jax.Array
    ) -> eqx.nn.State:
        """The state in which a statistic has moved towards that of the batch."""
        before = state.get(index)
        return state.set(index, self.momentum * before + (1.0 - self.momentum) * batch)''',
    "Scale": '''class Scale(eqx.Module):
    """Each channel times a number."""

    scale: jax.Array

    def __init__(self, *shape: int) -> None:
        self.scale = jnp.ones(shape)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.scale''',
    "PReLU": '''class PReLU(eqx.Module):
    """max(x, 0) + slope * min(x, 0)."""

    slope: jax.Array

    def __init__(self, *shape: int) -> None:
        self.slope = jnp.zeros(shape)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.relu(x) - self.slope * jax.nn.relu(-x)''',
    "Standardize": '''class Standardize(eqx.Module):
    """(x - mean) / max(sqrt(variance), epsilon) with constant statistics per channel."""

    mean: jax.Array
    variance: jax.Array
    epsilon: float = eqx.field(static=True)

    def __init__(self, *shape: int, epsilon: float) -> None:
        self.mean, self.variance, self.epsilon = jnp.zeros(shape), jnp.ones(shape), epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        mean, variance = jax.lax.stop_gradient((self.mean, self.variance))
        return (x - mean) / jnp.maximum(jnp.sqrt(variance), self.epsilon)''',
}
