"""What arspec can name inside an nn.Module: layers, their tensors and the names of the axes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arspec import Layer
from arspec_torch._activations import Activation, Unknown

_AFFINE = {
    nn.Linear: (None, "output input"),
    nn.Conv1d: ("batch feature time", "output input time"),
    nn.Conv2d: ("batch feature height width", "output input height width"),
    nn.Conv3d: ("batch feature depth height width", "output input depth height width"),
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where the tensor of a placement comes from.

    Attributes
    ----------
    module : the module that produces or holds it.
    tensor : the name shown to people.
    axes : names of its axes, or None for the default names of its rank.
    parameter : attribute of `module` that holds it, or None for an activation.
    of_input : whether it is the input of `module` instead of its output.
    transform : what to apply to it before the penalty, or None.
    """

    module: nn.Module
    tensor: str
    axes: str | None = None
    parameter: str | None = None
    of_input: bool = False
    transform: Callable[[Tensor], Tensor] | None = None


Sources = Mapping[tuple[str, str], Source]


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return every submodule by its path; a module without children is its own layer "model"."""
    layers = {path.replace(".", "/"): module for path, module in model.named_modules() if path}
    return layers or {"model": model}


def affine_axes(module: nn.Module) -> tuple[str | None, str] | None:
    """Return the names of the axes of output and weight if `module` is an affine layer."""
    return next((axes for cls, axes in _AFFINE.items() if isinstance(module, cls)), None)


def describe(
    model: nn.Module, activation_of: Callable[[str], Activation | Unknown | None]
) -> tuple[list[Layer], dict[tuple[str, str], Source]]:
    """List the layers of a model and, per (path, placement), the source of the tensor.

    `activation_of` says which activation function belongs to the affine layer at a path.
    """
    layers: list[Layer] = []
    sources: dict[tuple[str, str], Source] = {}
    for path, module in named_layers(model).items():
        found, refused = _sources(path, module, activation_of)
        sources |= {(path, placement): source for placement, source in found.items()}
        placements = {placement: source.tensor for placement, source in found.items()}
        has_own = any(True for _ in module.parameters(recurse=False))
        layers.append(Layer(path, type(module).__name__, placements, refused, in_globs=has_own))
    return layers, sources


def _sources(
    path: str, module: nn.Module, activation_of: Callable[[str], Activation | Unknown | None]
) -> tuple[dict[str, Source], dict[str, str]]:
    name = path.replace("/", ".")
    axes = affine_axes(module)
    if axes is None:
        return _other_sources(name, module), {}
    out_axes, kernel_axes = axes
    found = {
        "pre_activation": Source(module, f"{name}()", out_axes),
        "kernel": Source(module, f"{name}.weight", kernel_axes, parameter="weight"),
    }
    if module.bias is not None:
        found["bias"] = Source(module, f"{name}.bias", "output", parameter="bias")
    activation = activation_of(path)
    if isinstance(activation, Unknown):
        return found, {"output": activation.reason}
    found["output"] = _activated(name, module, out_axes, activation)
    return found, {}


def _activated(name: str, module: nn.Module, axes: str | None, activation: Activation | None) -> Source:
    if activation is None:
        return Source(module, f"{name}()", axes)
    if activation.module is not None:
        return Source(activation.module, f"{activation.name}()", axes)
    return Source(module, f"{activation.name}({name}())", axes, transform=activation.function)


def _other_sources(name: str, module: nn.Module) -> dict[str, Source]:
    found = {"output": Source(module, f"{name}()")}
    if is_activation(module):
        found["pre_activation"] = Source(module, f"{name}(input)", of_input=True)
    return found


def is_activation(module: nn.Module) -> bool:
    """Return whether a module is one of torch's elementwise activation functions."""
    return type(module).__module__ == "torch.nn.modules.activation" and not isinstance(
        module, nn.MultiheadAttention | nn.Softmax | nn.Softmax2d | nn.LogSoftmax | nn.Softmin
    )


def parameter_of(source: Source) -> Tensor:
    """Return the parameter a source names, as the module gives it now."""
    parameter = getattr(source.module, source.parameter or "")
    if not isinstance(parameter, Tensor):
        raise TypeError(f"{source.tensor} is a {type(parameter).__name__}, not a tensor.")
    return torch.as_tensor(parameter)
