"""Plain functions: fn(params, x, ...) with params a pytree, and activations named by `site`.

A parameter belongs to the layer that its path names: params["hidden"]["kernel"] is the
kernel of "hidden". "kernel", "weight", "w" and "W" are kernels, read as (input, output),
with the spatial axes of a convolution in front; "bias" and "b" are biases beside a kernel.
"recurrent_kernel", "embeddings", "scale", "shift" and the kernels of an attention are called
as their placements; a bias beside a scale is its shift.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from arspec._placements import PARAMETERS
from arspec_jax._arguments import Recorder
from arspec_jax._forward import Call
from arspec_jax._parts import RESULT, Parameter, Part, entry_name, joined
from arspec_jax._roles import spatial_axes
from arspec_jax._scope import Name
from arspec_jax._trace import Trace

KERNEL_NAMES = ("kernel", "weight", "w", "W")
BIAS_NAMES = ("bias", "b")
Make = Callable[[str, str], Parameter]
_MATRICES = tuple(name for name in PARAMETERS if name.endswith("_kernel") or name == "embeddings")


class FunctionModel:
    """A plain function, whose layers are known from its first call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def known_parts(self) -> None:
        return None

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        recorder = Recorder(lambda args, kwargs: self._function(*args, **kwargs), (args, kwargs))

        def parts(traced: Trace) -> Sequence[Part]:
            parameters = parameters_by_layer(args[0]) if args else {}
            return [_part(path, parameters.get(path, {}), traced) for path in _paths(parameters, traced)]

        return Call(recorder.leaves, recorder.run, recorder.finish, parts)

    def trained(self, argument: Any) -> Any:
        return floats(argument)


def floats(tree: Any) -> list[Any]:
    """Return the arrays of floating dtype in a pytree."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]


def parameters_by_layer(params: Any) -> dict[str, dict[str, Any]]:
    """Group the leaves of a pytree by layer: {"hidden": {"kernel": array}}."""
    layers: dict[str, dict[str, Any]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        *layer, name = [entry_name(entry) for entry in path] or [""]
        if layer and hasattr(leaf, "shape"):
            layers.setdefault(joined(tuple(layer)), {})[str(name)] = leaf
    return layers


def role_parameters(arrays: Mapping[str, Any], make: Make) -> tuple[dict[str, Parameter], dict[str, str]]:
    """Return the parameters among the arrays of a layer by placement, and what must be refused.

    `make` makes one from the name of an array and the names of its axes.
    """
    kernels = [name for name in KERNEL_NAMES if name in arrays]
    biases = [name for name in BIAS_NAMES if name in arrays]
    if len(kernels) > 1 or len(biases) > 1:
        reason = f"it has {', '.join([*kernels, *biases])}, so which one is meant is open. Keep one name per role."
        return {}, {"kernel": reason, "bias": reason}
    parameters, refused = _named_as_placements(arrays, make)
    for name in kernels:
        axes = kernel_axes(len(arrays[name].shape))
        if axes is None:
            refused["kernel"] = f"{name} has the shape {tuple(arrays[name].shape)}; expected 2 to 5 axes."
        else:
            parameters["kernel"] = make(name, axes)
    if biases and len(arrays[biases[0]].shape) == 1:
        one = make(biases[0], "output")
        parameters |= {"bias": one} if kernels else {"shift": one} if "scale" in parameters else {}
    return parameters, refused


def _named_as_placements(arrays: Mapping[str, Any], make: Make) -> tuple[dict[str, Parameter], dict[str, str]]:
    expected = {**dict.fromkeys(_MATRICES, (2, "input output")), "scale": (1, "output"), "shift": (1, "output")}
    parameters, refused = {}, {}
    for name, (rank, axes) in expected.items():
        if name in arrays and len(arrays[name].shape) == rank:
            parameters[name] = make(name, axes)
        elif name in arrays and name not in ("depthwise_kernel", "pointwise_kernel"):
            refused[name] = f"{name} has the shape {tuple(arrays[name].shape)}; expected {rank} axes."
    return parameters, refused


def kernel_axes(rank: int) -> str | None:
    """Name the axes of a kernel by its rank, (spatial, input, output); None for another rank."""
    return "input output" if rank == 2 else spatial_axes(rank - 2, "input output")


def _paths(parameters: Mapping[str, Any], traced: Trace) -> list[str]:
    named = [name.layer for name in (*traced.named, *traced.hidden)]
    return list(dict.fromkeys([*parameters, *named]))


def named_parts(traced: Trace, known: Container[str]) -> list[Part]:
    """Return a part for every layer that only `site` names; a pattern does not meet its tensors."""
    paths = dict.fromkeys(name.layer for name in (*traced.named, *traced.hidden) if name.layer not in known)
    return [replace(_part(path, {}, traced), kind="site", in_globs=False) for path in paths]


def _part(path: str, arrays: Mapping[str, Any], traced: Trace) -> Part:
    parameters, refused = role_parameters(arrays, lambda name, axes: Parameter(lambda: arrays[name], axes))
    found = {name.placement for name in (*traced.named, *traced.hidden) if name.layer == path}
    is_affine = "pre_activation" in found and Name(path, "hidden_state") not in traced.named
    results = (*RESULT, *(found - set(RESULT))) if is_affine else tuple(found)
    if not found:
        cure = f'name it in the function: h = arspec_jax.site(h, layer="{path}", placement="pre_activation").'
        refused |= dict.fromkeys(RESULT, f"a plain function does not say which tensor that is; {cure}")
    return Part(path, "function", is_affine, results, parameters, refused)
