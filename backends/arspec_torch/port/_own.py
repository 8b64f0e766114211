"""Telling the helper classes that `write` puts into a file from other people's classes."""

from functools import cache
from types import CodeType
from typing import Any

from torch import nn

from arspec_torch.port._helpers import HELPERS

# As in a written file: the same call is other code where a name is imported by the module.
_IMPORTS = "import torch\nfrom torch import Tensor, nn\nfrom torch.nn import functional as F\n"


def helper_of(module: nn.Module) -> str:
    """Return which helper of a written file a module is, by the code of its methods, or ""."""
    cls: Any = type(module)
    own = _classes().get(cls.__name__)
    return cls.__name__ if own is not None and _methods(cls) == _methods(own) else ""


@cache
def _classes() -> dict[str, Any]:
    """Return the helpers as classes. Their text is arspec's own."""
    found: dict[str, Any] = {}
    for name, text in HELPERS.items():
        space: dict[str, Any] = {"__name__": __name__}
        exec(compile(_IMPORTS + text, f"<{name}>", "exec"), space)
        if isinstance(space[name], type):
            found[name] = space[name]
    return found


def _methods(cls: type) -> dict[str, Any]:
    held = {name: getattr(each, "__code__", None) for name, each in vars(cls).items()}
    return {"": cls.__mro__[1], **{name: _plain(code) for name, code in held.items() if code is not None}}


def _plain(code: CodeType) -> tuple[Any, ...]:
    """Return what a function does, without where it stands."""
    constants = tuple(_plain(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts)
    return code.co_code, code.co_names, code.co_varnames, constants
