"""Porting to JAX: Flax NNX or Equinox source code for a bundle, and the check of a model against it."""

import importlib
from typing import TYPE_CHECKING, Any

from arspec_jax.port._weighted import arrays as arrays
from arspec_jax.port._weighted import assign as assign
from arspec_jax.port._weighted import layers as layers

if TYPE_CHECKING:
    from arspec_jax.port._check_equinox import check_equinox as check_equinox
    from arspec_jax.port._check_equinox import load_equinox as load_equinox
    from arspec_jax.port._check_nnx import check_nnx as check_nnx
    from arspec_jax.port._check_nnx import load_nnx as load_nnx
    from arspec_jax.port._equinox import write_equinox as write_equinox
    from arspec_jax.port._nnx import write_nnx as write_nnx

__all__ = [
    "arrays",
    "assign",
    "check_equinox",
    "check_nnx",
    "layers",
    "load_equinox",
    "load_nnx",
    "write_equinox",
    "write_nnx",
]


def __getattr__(name: str) -> Any:
    """Import what belongs to one framework where it is asked for, so that the other need not be installed."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    verb, _, framework = name.partition("_")
    file = f"_{framework}" if verb == "write" else f"_check_{framework}"
    return getattr(importlib.import_module(f"{__name__}.{file}"), name)
