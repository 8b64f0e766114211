"""Which arrays of a layer are its kernel, its bias and so on, and how they make the tensor of `arspec.layers`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from arspec._axes import SPATIAL_AXES

Array = Any
Has = Callable[[str], bool]

PROJECTIONS = ("query", "key", "value")


def only(arrays: Sequence[Array]) -> Array:
    return arrays[0]


def side_by_side(arrays: Sequence[Array]) -> Array:
    """Join the parts of a recurrent layer along the gates."""
    return jnp.concatenate(arrays, -1)


def flat(arrays: Sequence[Array]) -> Array:
    return jnp.reshape(arrays[0], -1)


def heads_out(arrays: Sequence[Array]) -> Array:
    """(input, heads, size) to (input, heads · size)."""
    return jnp.reshape(arrays[0], (arrays[0].shape[0], -1))


def heads_in(arrays: Sequence[Array]) -> Array:
    """(heads, size, output) to (heads · size, output)."""
    return jnp.reshape(arrays[0], (-1, arrays[0].shape[-1]))


def transposed(arrays: Sequence[Array]) -> Array:
    return arrays[0].T


@dataclass(frozen=True)
class Role:
    """A parameter of a layer.

    Attributes
    ----------
    leaves : paths of its arrays in the layer, with "/" between the parts.
    axes : names of the axes of the tensor that a penalty sees.
    rank : of every leaf; one that has more axes is a stack of layers.
    form : makes the tensor from the leaves.
    """

    leaves: tuple[str, ...]
    axes: str
    rank: int
    form: Callable[[Sequence[Array]], Array] = only


Roles = Mapping[str, Role]


def kernel_and_bias(rank: int, axes: str, kernel: str = "kernel", bias: str = "bias") -> dict[str, Role]:
    """Return the roles of an affine layer."""
    return {"kernel": Role((kernel,), axes, rank), "bias": Role((bias,), "output", 1)}


def depthwise(groups: int) -> Callable[[Sequence[Array]], Array]:
    """Return the way to the kernel of a convolution with `groups`: with one per channel, (..., input, M).

    Flax keeps (..., 1, input · M), the channel outermost.
    """

    def form(arrays: Sequence[Array]) -> Array:
        kernel = arrays[0]
        if groups == 1 or kernel.shape[-2] != 1:
            return kernel
        return jnp.reshape(kernel, (*kernel.shape[:-2], groups, -1))

    return form


def spatial_axes(count: int, order: str) -> str | None:
    """Name the axes of a convolution's kernel: "input output" behind the spatial ones, or None."""
    return f"{SPATIAL_AXES[count]} {order}" if count in SPATIAL_AXES else None


def scale_and_shift(rank: int, scale: str = "scale", shift: str = "bias") -> dict[str, Role]:
    """Return the roles of a normalization; a penalty sees one axis."""
    return {name: Role((leaf,), "output", rank, flat) for name, leaf in (("scale", scale), ("shift", shift))}


def attention() -> dict[str, Role]:
    """Return the roles of Flax's attention, whose kernels are (input, heads, size) and (heads, size, output)."""
    found = {f"{name}_kernel": Role((f"{name}/kernel",), "input output", 3, heads_out) for name in PROJECTIONS}
    found |= {f"{name}_bias": Role((f"{name}/bias",), "output", 2, flat) for name in PROJECTIONS}
    found["output_kernel"] = Role(("out/kernel",), "input output", 3, heads_in)
    found["output_bias"] = Role(("out/bias",), "output", 1)
    return found


def _per_gate(first: str, gates: Sequence[str], leaf: str) -> tuple[str, ...]:
    return tuple(f"{first}{gate}/{leaf}" for gate in gates)


def lstm(has: Has) -> dict[str, Role]:
    """Return the roles of Flax's LSTM cells, in the order i, f, g, o: parts apart or joined."""
    if has("dense_i/kernel"):
        return _joined(only, bias="dense_h/bias")
    of_input = ("i", "f", "g", "o") if has("if/kernel") else ("i", "f_", "g", "o")
    return _apart(("i", of_input), ("h", ("i", "f", "g", "o")), _per_gate("h", ("i", "f", "g", "o"), "bias"))


def gru(has: Has) -> dict[str, Role]:
    """Return the roles of Flax's GRU cells; Flax orders r, z, n, `arspec.layers` z, r, n."""
    if has("dense_i/kernel"):
        return _joined(_update_first, bias="dense_i/bias")
    biases = (*_per_gate("i", ("z", "r", "n"), "bias"), "hn/bias")
    return _apart(("i", ("z", "r", "n")), ("h", ("z", "r", "n")), biases)


def simple(has: Has) -> dict[str, Role]:
    """Return the roles of Flax's SimpleCell."""
    if has("dense_i/kernel"):
        return _joined(only, bias="dense_i/bias")
    return _apart(("i", ("",)), ("h", ("",)), ("i/bias",))


def _joined(form: Callable[[Sequence[Array]], Array], bias: str) -> dict[str, Role]:
    return {
        "kernel": Role(("dense_i/kernel",), "input output", 2, form),
        "recurrent_kernel": Role(("dense_h/kernel",), "input output", 2, form),
        "bias": Role((bias,), "output", 1, form),
    }


def _apart(
    of_input: tuple[str, Sequence[str]], of_state: tuple[str, Sequence[str]], biases: tuple[str, ...]
) -> dict[str, Role]:
    return {
        "kernel": Role(_per_gate(*of_input, "kernel"), "input output", 2, side_by_side),
        "recurrent_kernel": Role(_per_gate(*of_state, "kernel"), "input output", 2, side_by_side),
        "bias": Role(biases, "output", 1, side_by_side),
    }


def _update_first(arrays: Sequence[Array]) -> Array:
    """Turn the order r, z, n into z, r, n."""
    reset, update, new = jnp.split(arrays[0], 3, -1)
    return jnp.concatenate([update, reset, new], -1)


def update_first(arrays: Sequence[Array]) -> Array:
    """Turn the order r, z, n of the first array into z, r, n; the others follow as they are."""
    return jnp.concatenate([_update_first(arrays), *arrays[1:]], -1)


def present(roles: Roles, has: Has) -> dict[str, Role]:
    """Return the roles all of whose leaves the layer has."""
    return {name: role for name, role in roles.items() if all(has(leaf) for leaf in role.leaves)}
