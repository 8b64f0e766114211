"""The modes of an adapter as functions of NumPy arrays."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from arspec_conformance import Adapter

Result = tuple[np.ndarray, np.ndarray]


def modes_of(adapter: Adapter, prefix: str) -> dict[str, Callable[..., Result]]:
    """Return {prefix_mode: f(penalty, x, axes=, mean_over=, mask=, cotangent=) -> (value, gradient)}."""
    return {f"{prefix}_{mode.name}": partial(_run, adapter, mode.name) for mode in adapter.modes()}


def _run(adapter: Adapter, mode: str, penalty: Any, x: np.ndarray, *, mask: Any = None, **options: Any) -> Result:
    given = None if mask is None else adapter.to_native(mask, "bool", "cpu")
    tensor = adapter.to_native(x, x.dtype.name, "cpu")
    value, gradient = adapter.value_and_gradient(penalty, tensor, mask=given, mode=mode, **options)
    return adapter.to_numpy(value), adapter.to_numpy(gradient)
