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
