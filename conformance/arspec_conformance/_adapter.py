"""The contract an adapter fulfils to be measured, and how adapters are found.

It is the same for arspec's own adapters and for third parties: a class whose instances
have the methods of `Adapter`, registered by the entry point group "arspec.adapters" as
"module:callable", the callable taking no argument.
"""

import importlib.util
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, runtime_checkable

import numpy as np

from arspec import SpecError
from arspec._errors import unknown

GROUP = "arspec.adapters"

# A checkout on sys.path has no entry points; a test holds these and pyproject.toml together.
OWN = {
    "torch": "arspec_conformance.adapters.torch_adapter:TorchAdapter",
    "jax": "arspec_conformance.adapters.jax_adapter:JaxAdapter",
    "tensorflow": "arspec_conformance.adapters.tensorflow_adapter:TensorFlowAdapter",
    "keras": "arspec_conformance.adapters.keras_adapter:KerasAdapter",
}

CAPABILITIES = {
    "mask": "value_and_gradient takes a mask",
    "empty": "tensors without elements are supported",
    "special values": "NaN and infinities are defined, not only finite numbers",
    "identical": "float32, bfloat16 and float16 have every bit of the definition, not only bounded errors",
    "placements": "it builds models: it has the methods of ModelAdapter",
    "tied weights": "two layers of a model may share a parameter",
    "frozen layers": "its models have `freeze(layer)`, which says that the parameters of a layer are not trained",
}


INSTANT, COMPILED, COSTLY = range(3)


@dataclass(frozen=True, slots=True)
class Mode:
    """One way in which the framework runs code.

    Attributes
    ----------
    name : such as "eager" or "jit".
    cost : what a new shape, dtype or option costs: INSTANT (nothing is compiled), COMPILED
        (a fraction of a second) or COSTLY (a second or more). It decides on how many shapes
        the mode is measured, not on which values.
    dtypes : the dtypes it serves, where they are fewer than those of the device.
    sizes_known : whether the size of the first axis is known when code is traced; penalties
        of a whole kernel, whose sizes always are, are not measured where it is not.
    """

    name: str
    cost: int = 0
    dtypes: tuple[str, ...] | None = None
    sizes_known: bool = True


@runtime_checkable
class Adapter(Protocol):
    """What the suite asks of an adapter. Native tensors are those of its framework."""

    @property
    def name(self) -> str:
        """How reports call it, such as "torch" or "keras-jax"."""
        ...

    def versions(self) -> dict[str, str]:
        """Return the version of each package that takes part."""
        ...

    def devices(self) -> tuple[str, ...]:
        """Return the devices at hand, such as ("cpu", "cuda:0")."""
        ...

    def dtypes(self, device: str) -> tuple[str, ...]:
        """Return which of float16, bfloat16, float32 and float64 the device has."""
        ...

    def modes(self) -> tuple[Mode, ...]:
        """Return the modes in which `value_and_gradient` can run."""
        ...

    def capabilities(self) -> frozenset[str]:
        """Return the keys of CAPABILITIES that it has; the suite measures nothing else."""
        ...

    def to_native(self, array: np.ndarray, dtype: str, device: str) -> Any:
        """Copy an array, already of `dtype` ("bool" included; bfloat16 of ml_dtypes), to the device."""
        ...

    def to_numpy(self, tensor: Any) -> np.ndarray:
        """Copy a native tensor to an array with the same bits."""
        ...

    def value_and_gradient(
        self,
        penalty: Any,
        x: Any,
        *,
        axes: Any = None,
        mean_over: Any = (),
        mask: Any = None,
        cotangent: float = 1.0,
        mode: str,
    ) -> tuple[Any, Any]:
        """Evaluate a penalty where x lives: its value, and the gradient of cotangent · value.

        The value is what users of the adapter call, the gradient what the autodiff of the
        framework makes of it. Both are native tensors; x and mask come from `to_native`.
        """
        ...


def adapter_names() -> tuple[str, ...]:
    """Return the names of all registered adapters, importing none of them."""
    return tuple(sorted(_registered()))


def load_adapter(name: str) -> Adapter:
    """Import an adapter and make an instance.

    Parameters
    ----------
    name : a registered name, or "module:callable".

    Raises
    ------
    SpecError: the name is unknown, or what it names is not an adapter.
    ImportError: its framework is not installed.
    """
    known = _registered()
    if name not in known and ":" not in name:
        raise unknown("adapter", name, known)
    adapter = EntryPoint(name, known.get(name, name), GROUP).load()()
    missing = [method for method in _REQUIRED if not hasattr(adapter, method)]
    if missing:
        raise SpecError(f"adapter {name!r} is {adapter!r}, which has no {', '.join(missing)}.")
    return adapter


def missing_modules(name: str) -> list[str]:
    """Return the top-level modules that an own adapter needs and that are not installed."""
    return [module for module in _MODULES.get(name, ()) if importlib.util.find_spec(module) is None]


_REQUIRED = ("name", *(key for key, member in vars(Adapter).items() if callable(member) and key[0] != "_"))
_MODULES = {
    "torch": ("torch",),
    "jax": ("jax",),
    "tensorflow": ("tensorflow",),
    "keras-torch": ("keras", "torch"),
    "keras-jax": ("keras", "jax"),
    "keras-tensorflow": ("keras", "tensorflow"),
}


def _registered() -> dict[str, str]:
    return {**OWN, **{entry.name: entry.value for entry in entry_points(group=GROUP)}}
