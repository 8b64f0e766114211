"""Measure whether an adapter gives the numbers of the definition; for ours and for third parties.

This package imports no framework: an adapter is loaded in the process that measures it. Nor does
it import NumPy before a name is asked for, because pytest imports its plugin in every session.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arspec_conformance._adapter import Adapter as Adapter
    from arspec_conformance._adapter import Mode as Mode
    from arspec_conformance._adapter import adapter_names as adapter_names
    from arspec_conformance._adapter import load_adapter as load_adapter
    from arspec_conformance._models import Measured as Measured
    from arspec_conformance._models import ModelAdapter as ModelAdapter

_MODULES = {
    "_adapter": ("Adapter", "Mode", "adapter_names", "load_adapter"),
    "_models": ("Measured", "ModelAdapter"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *(name for names in _MODULES.values() for name in names)])
