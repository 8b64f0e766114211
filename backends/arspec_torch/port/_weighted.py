"""`layers` and `assign`: the layers with weights of an nn.Module that exists, and new weights for them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from arspec import SpecError
from arspec.port._order import Groups, expanded
from arspec.port._weighted import Layers, WeightedLayer, layers_of, with_names
from arspec_torch._attach import inside
from arspec_torch._layers import Context, describe, named_layers
from arspec_torch.port._weighted_calls import order_of_calls
from arspec_torch.port._weighted_kinds import held, read_module


def layers(model: nn.Module, /, example_inputs: Tensor | Sequence[Tensor] | None = None) -> Layers:
    """List the layers with weights of a module, each with its weights in canonical layout.

    Parameters
    ----------
    model : any nn.Module of torch's own layers; nothing is traced.
    example_inputs : one tensor per argument of forward. With them the model runs once, in
        evaluation, so that the order of its layers and what each one reads is known.

    Returns
    -------
    A `Layers`; print it. A module of several directions or layers is one entry for each of
    them, as rules name them: "lstm/0/backward". The two biases of an LSTM are read as their
    sum. What a layer of another class holds is `unknown`, and an error where it is to be moved.

    Raises
    ------
    SpecError: the model is no nn.Module, or is not built yet.

    Notes
    -----
    A subclass with a forward of its own leaves its options open: a transfer says so.

    Example
    -------
    >>> import torch
    >>> print(layers(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())))
    layer  kind   weights             tensors
    0      Dense  kernel 2×3, bias 3  0.weight, 0.bias
    """
    model = inside(model)
    found = _Found(model)
    calls, after = None, None
    if example_inputs is not None:
        calls, after = expanded(*order_of_calls(model, example_inputs, found.owners), found.parts)
    described = describe(model, Context())[0]
    arrays = {name: _array(tensor) for name, tensor in found.tensors.items()}
    return Layers(
        "torch",
        found.layers,
        arrays,
        described=described,
        calls=calls,
        after=after,
        unknown=found.unknown,
        dtypes={name: str(tensor.dtype).removeprefix("torch.") for name, tensor in found.tensors.items()},
    )


def assign(model: nn.Module, weights: Mapping[str, np.ndarray], /) -> None:
    """Give the layers of a module these weights, in place.

    Parameters
    ----------
    weights : canonical, by "layer/role", as `layers(model).weights` has them: every role of each
        layer that is named; layers that are not named stay as they are.

    Raises
    ------
    SpecError: a weight is missing, foreign or of another shape; nothing was changed.
    UnsupportedError: a layer cannot be described.

    Notes
    -----
    Shapes, dtypes, devices and requires_grad stay. The second bias of an LSTM becomes 0.
    """
    new = layers_of(layers(model), weights).tensors_of(weights)
    found = _Found(inside(model))
    with torch.no_grad():
        for name, array in new.items():
            found.tensors[name].copy_(torch.from_numpy(np.ascontiguousarray(array)))


class _Found:
    """The layers of a model, their tensors by one name each, and which module has which path."""

    def __init__(self, model: nn.Module) -> None:
        self.layers: list[WeightedLayer] = []
        self.tensors: dict[str, Tensor] = {}
        self.unknown: dict[str, str] = {}
        self.owners: dict[nn.Module, str] = {}
        self.parts: dict[str, Groups] = {}
        self._names: dict[int, str] = {}
        inner: set[nn.Module] = set()
        for path, name, module in named_layers(model):
            if module in inner or not _has_weights(module):
                continue
            if isinstance(module, nn.MultiheadAttention):
                inner.add(module.out_proj)
            self._add(path, f"{name}." if name else "", module)

    def _add(self, path: str, prefix: str, module: nn.Module) -> None:
        if any(is_lazy(parameter) for parameter in module.parameters(recurse=False)):
            raise SpecError(f"{path!r} has no weights yet: run the model once.")
        try:
            found = read_module(module, path)
        except LookupError as reason:
            self.unknown[path] = str(reason)
            return
        self.owners[module] = path
        self.parts[path] = _groups(module, [layer.path for layer in found])
        self.layers += [with_names(layer, lambda name: self._keep(prefix, module, name)) for layer in found]

    def _keep(self, prefix: str, module: nn.Module, attribute: str) -> str:
        """Return the name of a tensor in the model: one that is shared has one."""
        tensor = held(module, attribute)
        name = self._names.setdefault(id(tensor), f"{prefix}{attribute}")
        self.tensors[name] = tensor
        return name


def _groups(module: Any, paths: list[str]) -> Groups:
    """Return the layers of a recurrent module, each with its directions."""
    size = 2 if getattr(module, "bidirectional", False) else 1
    return [paths[start : start + size] for start in range(0, len(paths), size)]


def _has_weights(module: nn.Module) -> bool:
    """Return whether a module holds parameters or saved statistics itself."""
    own = [tensor for _, tensor in module.named_parameters(recurse=False)]
    kept = (tensor for name, tensor in module.state_dict(keep_vars=True).items() if "." not in name)
    return bool(own) or any(tensor.is_floating_point() for tensor in kept)


def _array(tensor: Tensor) -> np.ndarray:
    whole = tensor.detach().cpu()
    return whole.float().numpy() if whole.dtype == torch.bfloat16 else whole.numpy().copy()
