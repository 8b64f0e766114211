"""What JAX's operations do to a pre-activation, by name."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Activation functions that appear in a trace as one call of jit.
JAX_NN = _names(
    "relu relu6 silu swish gelu elu selu celu leaky_relu softplus soft_sign sigmoid hard_sigmoid hard_tanh hard_silu "
    "hard_swish log_sigmoid log_softmax softmax mish squareplus sparse_plus sparse_sigmoid tanh clip"
)

# Elementwise: with constants they scale or shift, or they bend.
SCALING = _names("add sub mul div neg convert_element_type copy copy_p reduce_precision")
CURVED = _names(
    "abs sign exp exp2 log log1p expm1 tanh logistic sin cos tan asin acos atan atan2 sinh cosh asinh acosh atanh erf "
    "erfc erf_inv sqrt rsqrt cbrt integer_pow pow square max min clamp select_n gt lt ge le eq ne floor ceil round "
    "is_finite and or not xor nextafter rem"
)

# Not elementwise: the same numbers elsewhere, and what is linear in its operand.
SHAPING = _names(
    "reshape transpose squeeze expand_dims broadcast_in_dim name sharding_constraint optimization_barrier "
    "stop_gradient rev"
)
LINEAR = _names(
    "dot_general conv_general_dilated add add_any sub mul div neg concatenate slice dynamic_slice gather pad "
    "reduce_sum cumsum select_n reduce_window_sum split"
)

# Primitives of jax.checkpoint, by version.
CHECKPOINTS = _names("remat remat2 checkpoint")

# What people call the transformations whose inside cannot be read.
TRANSFORMATIONS = {
    "remat": "jax.checkpoint (remat)",
    "remat2": "jax.checkpoint (remat)",
    "checkpoint": "jax.checkpoint (remat)",
    "scan": "scan",
    "while": "while_loop",
    "custom_jvp_call": "a custom_jvp function",
    "custom_vjp_call": "a custom_vjp function",
}
