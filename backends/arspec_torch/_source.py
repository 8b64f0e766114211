"""Where the tensor of a placement comes from: a call of a module, or its parameters.

Everything here can be copied and pickled with the model it belongs to.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from typing import Any

from torch import Tensor, nn

from arspec import Site, SpecError, UnsupportedError


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a module.

    Attributes
    ----------
    module : what was called.
    args, options : the positional and keyword arguments of its forward.
    output : what it returned, None for what is captured before it runs.
    cache : what one placement computed and another one of the same call needs as well.
    """

    module: nn.Module
    args: tuple[Any, ...]
    options: Mapping[str, Any]
    output: Any = None
    cache: dict[Any, Any] = field(default_factory=dict)

    def argument(self, position: int, name: str) -> Any:
        """Return an argument of forward, or None where it was not given."""
        return self.args[position] if len(self.args) > position else self.options.get(name)


@dataclass(frozen=True, slots=True)
class Captured:
    """The tensor of a placement in one call.

    Attributes
    ----------
    tensor : it.
    axes : names of its axes, or None for the default names of its rank.
    lengths : of its sequences, where they were packed: entries behind them do not exist. Of
        shape (batch,); the tensor is (batch, time, ...).
    """

    tensor: Tensor
    axes: str | None = None
    lengths: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where the tensor of a placement comes from.

    Attributes
    ----------
    module : the module that produces or holds it.
    tensor : the name shown to people.
    axes : names of the axes of a parameter.
    parameters : the attributes of `module` a parameter is made of; () for an activation.
    read : makes the tensor of them; None where there is one and it is the tensor.
    part : what tells this tensor from others made of the same parameters.
    exact : whether Σ over this tensor is Σ over its parameters (not so for a sum of two).
    capture : finds an activation in a call.
    before : whether it is captured before the module runs.
    """

    module: nn.Module
    tensor: str
    axes: str | None = None
    parameters: tuple[str, ...] = ()
    read: Callable[..., Tensor] | None = None
    part: str = ""
    exact: bool = True
    capture: Callable[[Call], Captured] | None = None
    before: bool = False

    @property
    def is_parameter(self) -> bool:
        """Whether it is there without a forward pass."""
        return bool(self.parameters)


@dataclass(frozen=True, slots=True)
class Found:
    """A layer of a model: its path, and the sources of its placements.

    `refused`, `hints` and `in_globs` are those of `arspec.Layer`.
    """

    path: str
    kind: str
    sources: Mapping[str, Source]
    refused: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)
    in_globs: bool = True


def parameter(module: nn.Module, name: str, attribute: str, axes: str | None) -> Source:
    """Return the source of one parameter that is penalized as it is."""
    return Source(module, f"{name}.{attribute}", axes, (attribute,))


def input_of(module: nn.Module, name: str, axes: str | None = None) -> Source:
    """Return the source of the first argument of a module's forward, however it is passed."""
    taken = [
        p for p in signature(module.forward).parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    first = taken[0].name if taken else ""
    return Source(module, f"{name}(input)", capture=partial(_input, first=first, axes=axes), before=True)


def output_of(module: nn.Module, name: str, axes: str | None = None) -> Source:
    """Return the source of what a module returns, of its first entry if that is a tuple of tensors."""
    return Source(module, f"{name}()", capture=partial(_output, name=name, axes=axes, function=None))


def transformed(module: nn.Module, name: str, axes: str | None, function: Callable[[Tensor], Tensor]) -> Source:
    """Return the source of a function of what a module returns; `name` is shown to people."""
    return Source(module, name, capture=partial(_output, name=name, axes=axes, function=function))


def _input(call: Call, *, first: str, axes: str | None) -> Captured:
    return Captured(_one_tensor(call.argument(0, first), f"the first argument of a {_kind(call.module)}"), axes)


def _output(call: Call, *, name: str, axes: str | None, function: Callable[[Tensor], Tensor] | None) -> Captured:
    tensor = _one_tensor(call.output, f"{name}()" if function is None else name)
    return Captured(tensor if function is None else function(tensor), axes)


def _one_tensor(found: Any, what: str) -> Tensor:
    if not isinstance(found, Tensor):
        raise SpecError(
            f"{what} is a {type(found).__name__}, not one tensor; "
            "name a layer inside it that gives the tensor you mean."
        )
    return found


def _kind(module: nn.Module) -> str:
    return type(module).__name__


def read_parameter(source: Source) -> Tensor:
    """Return the tensor of a parameter, as the module gives it now.

    A sharded one (a DTensor, as FSDP2 and tensor parallelism make) is gathered: the penalty
    is that of the whole, and its gradient comes back sharded.
    """
    tensors = [_whole(getattr(source.module, name), source) for name in source.parameters]
    return tensors[0] if source.read is None else source.read(*tensors)


def _whole(tensor: Any, source: Source) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise UnsupportedError(f"{source.tensor} is a {type(tensor).__name__}; expected a tensor.")
    return whole(tensor)


def whole(tensor: Tensor) -> Tensor:
    """Return a DTensor gathered from all its shards, any other tensor as it is."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def own_parameters(source: Source) -> list[Tensor]:
    """Return the parameters behind a source; torch.func.functional_call puts other tensors in their place.

    Raises
    ------
    UnsupportedError: an attribute is neither a parameter nor parametrized.
    """
    registered = dict(source.module.named_parameters(recurse=False, remove_duplicate=False))
    found: list[Tensor] = []
    for name in source.parameters:
        if name in registered:
            found.append(registered[name])
        elif nn.utils.parametrize.is_parametrized(source.module, name):
            found.extend(source.module.get_submodule(f"parametrizations.{name}").parameters())
        else:
            raise UnsupportedError(
                f"{source.tensor} is neither a parameter nor parametrized, so it may be stale; "
                "torch.nn.utils.weight_norm and spectral_norm have successors in torch.nn.utils.parametrizations."
            )
    return found


Watched = tuple[tuple[Site, ...], tuple[Site, ...]]


def by_module(model: nn.Module, sites: Iterable[Site], sources: Mapping[str, Source]) -> dict[nn.Module, Watched]:
    """Return, by the module that is watched for them, the sites captured before it runs and those after.

    The model itself is always watched.
    """
    found: dict[nn.Module, Watched] = {model: ((), ())}
    for site in sites:
        source = sources[site.key]
        if not source.is_parameter:
            early, late = found.get(source.module, ((), ()))
            found[source.module] = ((*early, site), late) if source.before else (early, (*late, site))
    return found


def identity(source: Source) -> tuple[object, ...] | None:
    """Return what two sources of one parameter have in common, or None for an activation."""
    return (*map(id, own_parameters(source)), source.part) if source.is_parameter else None


def is_replaced(source: Source) -> bool:
    """Return whether torch.func.functional_call has put other tensors in the place of the parameters."""
    return not all(isinstance(p, nn.Parameter) for p in own_parameters(source))


def is_frozen(source: Source) -> bool:
    """Return whether no parameter behind a source wants a gradient.

    Raises
    ------
    UnsupportedError: torch.func.functional_call hides which parameters are frozen.
    """
    parameters = own_parameters(source)
    if is_replaced(source):
        raise UnsupportedError(
            f"{source.tensor}: under torch.func.functional_call it is not known which parameters are frozen; "
            "leave trainable_only out."
        )
    return not any(p.requires_grad for p in parameters)


def rows(tensor: Tensor, *, start: int, stop: int) -> Tensor:
    """Return the rows of a weight, or the entries of a bias."""
    return tensor[start:stop]


# What torch.compile, checkpoint_wrapper and FSDP1 put around a module, as a part of its path.
WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")


def inner(module: nn.Module) -> nn.Module:
    """Return what a wrapper such as that of torch.compile holds, or the module itself."""
    return next((held for name, held in module.named_children() if name in WRAPPERS), module)


def named_inside(model: nn.Module) -> dict[str, nn.Module]:
    """Return every module by its dotted name, without wrappers and without what computes parametrizations."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        parts = name.split(".")
        if "parametrizations" not in parts and inner(module) is module:
            found[".".join(part for part in parts if part not in WRAPPERS)] = module
    return found
