"""Modules that tell a `Regularization` of their calls: a subclass of their own class each.

A new class, unlike a hook, is something that torch.compile guards on, so that a model
compiled before is compiled again. The class exists in memory only: copies and pickles of a
module are made of its own class and given a new one.
"""

import copyreg
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from arspec import SpecError, UnsupportedError

_OWNER = "_arspec_regularization"
_MARK = "_arspec_watched_class"


def watch(module: nn.Module, owner: Any) -> None:
    """Let `owner._run(module, forward, args, options)` stand for the forward of a module."""
    module.__class__ = _watched_class(type(module))
    module.__dict__[_OWNER] = owner


def unwatch(module: nn.Module) -> None:
    """Give a module its own class back.

    Raises
    ------
    SpecError: something else has changed its class since.
    """
    if _MARK not in vars(type(module)):
        raise SpecError(
            f"the class of a {type(module).__name__} was changed after attach (a parametrization?); undo that first."
        )
    module.__class__ = type(module).__bases__[0]
    del module.__dict__[_OWNER]


@contextmanager
def own_classes(model: nn.Module) -> Iterator[None]:
    """Let the modules of a model run inside of `with` as if nobody watched them."""
    watched = [(module, type(module)) for module in model.modules() if _MARK in vars(type(module))]
    for module, cls in watched:
        module.__class__ = cls.__bases__[0]
    try:
        yield
    finally:
        for module, cls in watched:
            module.__class__ = cls


def owner_of(module: nn.Module) -> Any:
    """Return who watches a module, or None."""
    return module.__dict__.get(_OWNER)


def check_watchable(module: nn.Module) -> None:
    """Refuse a module whose class cannot stand in: a patched forward, or compiled TorchScript.

    Raises
    ------
    SpecError, UnsupportedError.
    """
    name = type(module).__name__
    if "forward" in module.__dict__:
        raise SpecError(f"a {name} of the model has a patched forward; attach arspec before patching it.")
    if type(module).__module__.startswith("torch.jit"):
        raise UnsupportedError(f"a {name} of the model is TorchScript, which runs no Python; attach to the original.")


def refuse_lazy(model: nn.Module) -> None:
    """Refuse a model with lazy modules, which become others when they first run.

    Raises
    ------
    SpecError.
    """
    for module in model.modules():
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
            raise SpecError(
                f"a {type(module).__name__} of the model has no parameters yet; run the model once, then attach."
            )


def _watched_class(cls: type[nn.Module]) -> type[nn.Module]:
    def forward(self: nn.Module, *args: Any, **options: Any) -> Any:
        return self.__dict__[_OWNER]._run(self, super(watched, self).forward, args, options)  # pyright: ignore

    def reduce_ex(self: nn.Module, protocol: Any) -> Any:
        reduced: Any = super(watched, self).__reduce_ex__(protocol)  # pyright: ignore
        if reduced[0] is not copyreg.__newobj__:  # pyright: ignore[reportAttributeAccessIssue]
            raise UnsupportedError(f"a {cls.__name__} with rules is copied and pickled by protocol 2 or newer only.")
        return _new, (cls, *reduced[1][1:]), *reduced[2:]

    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    members = {**names, "forward": forward, "__reduce_ex__": reduce_ex, _MARK: True}
    watched = type(cls.__name__, (cls,), members)
    return watched


def _new(cls: type[nn.Module], *args: Any) -> nn.Module:
    watched: Any = _watched_class(cls)
    return watched.__new__(watched, *args)
