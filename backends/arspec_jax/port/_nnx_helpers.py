"""Classes that a written NNX file may bring along, where flax.nnx has no exact counterpart."""

from arspec_jax.port._functions import HELPERS as _FUNCTIONS
from arspec_jax.port._recurrent import HELPERS as _RECURRENT

HELPERS = {
    "Frozen": '''class Frozen(nnx.Variable):
    """A weight that training leaves alone."""''',
    "Constant": '''class Constant(nnx.Variable):
    """Numbers that were measured once."""''',
    **_FUNCTIONS,
    **_RECURRENT,
    "attention": '''def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None = None, **_: object
) -> jax.Array:
    """Dot-product attention in the dtype it is given; Flax's own takes the softmax in float32."""
    scores = jnp.einsum("...qhd,...khd->...hqk", query / query.shape[-1] ** 0.5, key)
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    return jnp.einsum("...hqk,...khd->...qhd", nnx.softmax(scores), value)''',
    "masked_mean": '''def masked_mean(x: jax.Array, mask: jax.Array, keepdims: bool = False) -> jax.Array:
    """The mean over the steps where the mask is true."""
    share = mask[..., None].astype(x.dtype)
    return (x * share).sum(axis=1, keepdims=keepdims) / share.sum(axis=1, keepdims=keepdims)''',
    "Identity": '''class Identity(nnx.Module):
    """Gives what it is given: a name for a result."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x''',
    "UnbiasedBatchNorm": '''class UnbiasedBatchNorm(nnx.BatchNorm):
    """Batch normalization whose running variance takes that of n - 1, as PyTorch's does."""

    def __call__(self, x: jax.Array) -> jax.Array:
        before, count = self.var[...], x.size // x.shape[-1]
        y = super().__call__(x)
        if not self.use_running_average:
            kept = self.momentum * before
            self.var[...] = kept + (self.var[...] - kept) * count / (count - 1)
        return y''',
    "Scale": '''class Scale(nnx.Module):
    """Each channel times a number."""

    def __init__(self, features: int) -> None:
        self.scale = nnx.Param(jnp.ones(features))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.scale[...]''',
    "PReLU": '''class PReLU(nnx.Module):
    """max(x, 0) + slope * min(x, 0)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.slope = nnx.Param(jnp.zeros(shape))

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(x) - self.slope[...] * nnx.relu(-x)''',
    "Standardize": '''class Standardize(nnx.Module):
    """(x - mean) / max(sqrt(variance), epsilon) with constant statistics per channel."""

    def __init__(self, features: int, epsilon: float) -> None:
        self.mean = Constant(jnp.zeros(features))
        self.variance = Constant(jnp.ones(features))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        return (x - self.mean[...]) / jnp.maximum(jnp.sqrt(self.variance[...]), self.epsilon)''',
}
