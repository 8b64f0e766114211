"""Activation functions in the source code that is written for JAX, and the helpers that some of them need.

Where JAX's own function has another subgradient at a kink than TensorFlow and PyTorch (half
of it at both ends of relu6, 1 for the leaky ReLU at 0) a helper of a few lines is written.
"""

from collections.abc import Callable

from arspec.port._kinds import Function

# With "nnx." for functions that flax.nnx has too; {x} is the argument, {p} the parameter.
FUNCTIONS = {
    "relu": "nnx.relu({x})",
    "relu6": "relu6({x})",
    "leaky_relu": "leaky_relu({x}, {p})",
    "elu": "nnx.elu({x}, {p})",
    "celu": "nnx.celu({x}, {p})",
    "selu": "nnx.selu({x})",
    "gelu": "nnx.gelu({x}, approximate=False)",
    "gelu_tanh": "nnx.gelu({x}, approximate=True)",
    "silu": "nnx.silu({x})",
    "hard_silu": "hard_silu({x})",
    "hard_sigmoid": "hard_sigmoid({x})",
    "sigmoid": "nnx.sigmoid({x})",
    "tanh": "nnx.tanh({x})",
    "softplus": "nnx.softplus({x})",
    "softsign": "nnx.soft_sign({x})",
    "softmax": "nnx.softmax({x})",
    "log_softmax": "nnx.log_softmax({x})",
    "exponential": "jnp.exp({x})",
    "mish": "jax.nn.mish({x})",
}
HELPERS = {
    "relu6": '''def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6), with gradient 0 at both ends as in TensorFlow and PyTorch."""
    return jnp.where((x > 0) & (x < 6), x, jax.lax.stop_gradient(jnp.clip(x, 0, 6)))''',
    "hard_sigmoid": '''def hard_sigmoid(x: jax.Array) -> jax.Array:
    """min(max(x / 6 + 1/2, 0), 1), with gradient 0 at both ends."""
    return relu6(x + 3.0) / 6.0''',
    "hard_silu": '''def hard_silu(x: jax.Array) -> jax.Array:
    """x * hard_sigmoid(x)."""
    return x * hard_sigmoid(x)''',
    "leaky_relu": '''def leaky_relu(x: jax.Array, slope: float) -> jax.Array:
    """x where it is positive, slope * x elsewhere; the gradient at 0 is the slope."""
    return jnp.where(x > 0, x, slope * x)''',
}
_NEEDS = {
    "relu6": ("relu6",),
    "hard_sigmoid": ("relu6", "hard_sigmoid"),
    "hard_silu": ("relu6", "hard_sigmoid", "hard_silu"),
    "leaky_relu": ("leaky_relu",),
}


def called(function: Function, x: str, helper: Callable[[str], None], module: str = "nnx") -> str:
    """Return the call of an activation function on the expression x; ask for the helpers it needs.

    Parameters
    ----------
    module : what stands before the name of a function of JAX: "nnx" or "jax.nn".
    """
    if function.name == "linear":
        return x
    for name in _NEEDS.get(function.name, ()):
        helper(name)
    return FUNCTIONS[function.name].format(x=x, p=function.parameter).replace("nnx.", f"{module}.", 1)
