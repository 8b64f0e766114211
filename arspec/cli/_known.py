"""What `arspec doctor` knows, as data: the packages, the versions tested, the traps of versions.

The versions tested are those of constraints.txt, the versions needed those of pyproject.toml
(a test compares them). A trap is named by its row in `arspec traps`; "versions" says where it
was measured or read in source.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Package:
    """A package that arspec stands on.

    Attributes
    ----------
    name : as pip knows it; `others` are further names of the same framework.
    extra : the extra of arspec that brings it, or "" for what is always there.
    needed, tested : the oldest version that is supported, and the one that is tested.
    """

    name: str
    extra: str
    needed: str
    tested: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """A trap of some versions of a package.

    Attributes
    ----------
    id : the row of `arspec traps`.
    package, versions : such as "keras" and ">=3.0,<3.14"; "" stands for every version.
    happens : what the framework does by itself.
    cure : what to do instead.
    """

    id: str
    package: str
    versions: str
    happens: str
    cure: str


PACKAGES = (
    Package("numpy", "", "1.26", "2.4.6"),
    Package("torch", "torch", "2.6", "2.13.0"),
    Package("numba", "fast", "0.63", "0.68.1"),
    Package("lightning", "lightning", "2.4", "2.6.6"),
    Package("tensorflow-cpu", "tensorflow", "2.18", "2.21.0", others=("tensorflow", "tensorflow-macos")),
    Package("keras", "keras", "3.8", "3.15.1"),
    Package("jax", "jax", "0.6", "0.10.2"),
    Package("flax", "jax", "0.10", "0.12.8"),
    Package("equinox", "jax", "0.11", "0.13.8"),
    Package("optax", "jax", "0.2", "0.2.8"),
)

KNOWN = (
    Known(
        "A1",
        "jax",
        "",
        "jax.grad of jnp.abs at 0 is 1, in torch and TensorFlow it is 0: a zero bias starts to move.",
        "Write the penalty with arspec_jax.value or a rule: the gradient of L1 at 0 is 0.",
    ),
    Known(
        "A2",
        "jax",
        "",
        "The gradient of jnp.linalg.norm at the zero vector is NaN.",
        "arspec.L2Norm and arspec.GroupLasso have gradient 0 there.",
    ),
    Known(
        "A2",
        "torch",
        "",
        "The gradient of torch.sqrt((x * x).sum()) at the zero vector is NaN.",
        "arspec.L2Norm and arspec.GroupLasso have gradient 0 there.",
    ),
    Known(
        "A2",
        "tensorflow-cpu",
        "",
        "The gradient of tf.norm at the zero vector is NaN.",
        "arspec.L2Norm and arspec.GroupLasso have gradient 0 there.",
    ),
    Known(
        "A4",
        "jax",
        "",
        "XLA takes subnormal numbers for 0: the square of 1e-20 is 0 in float32, and a norm divides by it.",
        "The norms of arspec are scaled before they are squared.",
    ),
    Known(
        "A5",
        "keras",
        ">=3.0",
        "Under mixed_float16 an activity_regularizer sums in float16: above 65504 it is inf.",
        "arspec_keras.attach sums in float64 and returns float32.",
    ),
    Known(
        "A6",
        "keras",
        ">=3.0",
        "L1 and L2 keep their coefficient in float32: 0.1 becomes 0.10000000149.",
        "Keep the numbers in a Spec; attach uses and saves them to the bit.",
    ),
    Known(
        "A7",
        "torch",
        "",
        "weight_decay=c of torch.optim.SGD is the gradient of c/2 Σw², L2(c) of Keras that of c Σw².",
        "weight_decay=2 c is arspec.L2(c); arspec_torch.extract(model, optimizer) reads it so.",
    ),
    Known(
        "A7",
        "optax",
        "",
        "optax.add_decayed_weights(c) adds c w, the gradient of c/2 Σw².",
        "It is arspec.L2(c / 2); arspec_jax.extract reads it so.",
    ),
    Known(
        "B1",
        "keras",
        ">=3.0,<3.14",
        "An activity_regularizer is summed over the batch; tf.keras and Keras 3.14 divide by it.",
        'Say which one you mean: Rule(..., mean_over="sum") or "batchmean" with arspec_keras.attach.',
    ),
    Known(
        "B1",
        "keras",
        ">=3.14",
        "An activity_regularizer is divided by the batch; before 3.14 it was a sum: older scripts now regularize less.",
        'Attach the old meaning: Rule(..., mean_over="sum"), or multiply the coefficient by the batch size.',
    ),
    Known(
        "B3",
        "keras",
        ">=3.0",
        "Padded time steps count in an activity_regularizer, although the layer knows the mask.",
        "arspec_keras.attach heeds the mask.",
    ),
    Known(
        "B4",
        "keras",
        ">=3.0",
        "TimeDistributed(Dense(activity_regularizer=...)) adds no loss at all.",
        'Give the rule the path of the TimeDistributed layer itself, placement="output".',
    ),
    Known(
        "C2",
        "torch",
        "",
        "nn.ReLU(inplace=True) overwrites a pre-activation that a hook has kept.",
        "Nothing to do with attach: it copies what will be overwritten.",
    ),
    Known(
        "C3",
        "torch",
        "",
        "A forward hook that is added after the first call of a compiled model is not called.",
        "Nothing to do with attach: before or after torch.compile, it counts or it raises.",
    ),
    Known(
        "C4",
        "torch",
        "",
        "checkpoint(use_reentrant=True) gives a penalty inside of it no gradient.",
        "use_reentrant=False; attach refuses the other kind.",
    ),
    Known(
        "C7",
        "equinox",
        "",
        "A weight in two places of a module is two arrays to jax.tree: it is penalized twice.",
        "eqx.nn.Shared; attach refuses one array in two places.",
    ),
    Known(
        "C9",
        "keras",
        ">=3.0",
        "layer.kernel_regularizer = ... on a built layer changes get_config() and not the loss.",
        "arspec_keras.attach(model, spec) works on built models.",
    ),
    Known(
        "C10",
        "keras",
        ">=3.0",
        "A cell with an activity_regularizer inside keras.layers.RNN counts step 0 twice, or fit stops.",
        'A rule for the RNN layer, placement="hidden_state".',
    ),
    Known(
        "C11",
        "flax",
        "",
        "sow without mutable= in apply keeps nothing and says nothing.",
        "arspec_jax.attach returns the penalties beside the output.",
    ),
    Known(
        "C12",
        "keras",
        ">=3.0",
        "An activity_regularizer under keras.RematScope stops on the JAX backend.",
        "A rule at an activation outside of the scope; weights can be named everywhere.",
    ),
    Known(
        "C15",
        "keras",
        ">=3.0",
        "keras.regularizers.l1_l2() is a regularizer that adds 0.",
        "arspec.L1L2 has no default coefficients.",
    ),
    Known(
        "C17",
        "keras",
        "",
        "Penalties are part of the loss of evaluate, too.",
        'when="train" on a rule; arspec_keras.PenaltyLogger shows the loss of the task apart.',
    ),
    Known(
        "C18",
        "keras",
        ">=3.0,<3.4",
        "save drops activity regularizers.",
        "Keras 3.4 or newer; arspec_keras saves its Spec with the model.",
    ),
    Known(
        "D3",
        "torch",
        "",
        "AdamW(weight_decay=...) is decoupled: it is the gradient of no penalty.",
        "Keep it in the optimizer, or write L2 as a rule and set weight_decay=0; they train differently.",
    ),
    Known(
        "D11",
        "keras",
        ">=3.0",
        "Some of keras.ops compute float64 in float32 on the JAX and torch backends.",
        "arspec_keras.value and attach do not go through keras.ops.",
    ),
)


def number(version: str) -> tuple[int, ...]:
    """Return "2.13.0+cpu" as (2, 13, 0); what is no number ends it."""
    parts: list[int] = []
    for part in version.partition("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        parts.append(int(digits))
    return tuple(parts)


def is_older(version: str, than: str) -> bool:
    """Compare two versions by their numbers; 3.8 and 3.8.0 are the same."""
    width = max(len(number(version)), len(number(than)))
    left, right = ((*number(each), *(0,) * width)[:width] for each in (version, than))
    return left < right


def within(version: str, versions: str) -> bool:
    """Return whether a version lies in a range such as ">=3.0,<3.14"; "" holds every version."""
    return all(
        not is_older(version, part[2:]) if part.startswith(">=") else is_older(version, part[1:])
        for part in filter(None, versions.split(","))
    )
