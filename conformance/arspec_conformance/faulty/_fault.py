"""An adapter with one fault: what it is asked, and what it answers wrongly."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from arspec import Spec
from arspec._axes import Axes, resolve_axes
from arspec.layers import Network
from arspec_conformance._adapter import Adapter, Mode
from arspec_conformance._models import ModelAdapter
from arspec_conformance.cases import DTYPES

Answer = tuple[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call of `value_and_gradient`, in arrays.

    Attributes
    ----------
    adapter : the right adapter below.
    memory : what a faulty adapter may keep between its calls.
    """

    adapter: Adapter
    penalty: Any
    x: np.ndarray
    axes: Any
    mean_over: Any
    mask: np.ndarray | None
    cotangent: float
    mode: str
    device: str
    memory: dict[Any, Any]

    def run(self, **changes: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the right value and gradient, of a call with some changes."""
        call = replace(self, **changes)
        x = self.adapter.to_native(np.array(call.x), call.x.dtype.name, self.device)
        mask = None if call.mask is None else self.adapter.to_native(np.array(call.mask), "bool", self.device)
        options = {"axes": call.axes, "mean_over": call.mean_over, "cotangent": call.cotangent}
        found = self.adapter.value_and_gradient(call.penalty, x, mask=mask, mode=self.mode, **options)
        value, gradient = (np.array(self.adapter.to_numpy(tensor)) for tensor in found)
        return value, gradient

    @property
    def is_first_mode(self) -> bool:
        """Whether the mode is the first one of the adapter."""
        return self.mode == self.adapter.modes()[0].name

    @property
    def resolved(self) -> Axes:
        """The named axes of x."""
        return resolve_axes(self.x.ndim, self.axes, self.mean_over)

    @property
    def valid(self) -> np.ndarray:
        """True where x is valid, of the shape of x."""
        if self.mask is None:
            return np.ones(self.x.shape, bool)
        rest = (1,) * (self.x.ndim - self.mask.ndim)
        return np.broadcast_to(self.mask.reshape(self.mask.shape + rest), self.x.shape)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong in real adapters.

    Attributes
    ----------
    name : unique.
    sentence : what is wrong.
    answer : from a call to the faulty answer.
    model : from what is to be built to the faulty model, for faults of placement.
    needs : the capabilities without which an adapter cannot have it, and layers, as "layer Embedding".
    about : names of the penalties it shows at; none: all.
    modes : how many modes an adapter needs to have it.
    dtypes : the dtypes at which it shows, if not at float32.
    """

    name: str
    sentence: str
    answer: Callable[[Call], Answer] = Call.run
    about: tuple[str, ...] = ()
    modes: int = 1
    dtypes: tuple[str, ...] = ("float32",)
    model: Callable[[Any], Any] | None = None
    needs: tuple[str, ...] = ()


class FaultyAdapter:
    """A right adapter with a fault on top; it claims no identity, which would make killing it easy."""

    def __init__(self, adapter: Adapter, fault: Fault) -> None:
        self._adapter, self._fault = adapter, fault
        self._memory: dict[Any, Any] = {}
        self._device = "cpu"

    @property
    def name(self) -> str:
        return f"{self._adapter.name} with {self._fault.name}"

    def versions(self) -> dict[str, str]:
        return self._adapter.versions()

    def devices(self) -> tuple[str, ...]:
        return self._adapter.devices()

    def dtypes(self, device: str) -> tuple[str, ...]:
        return self._adapter.dtypes(device)

    def modes(self) -> tuple[Mode, ...]:
        return self._adapter.modes()

    def capabilities(self) -> frozenset[str]:
        return self._adapter.capabilities() - {"identical"}

    def to_native(self, array: np.ndarray, dtype: str, device: str) -> Any:
        self._device = device
        return self._adapter.to_native(array, dtype, device)

    def to_numpy(self, tensor: Any) -> np.ndarray:
        return tensor if isinstance(tensor, np.ndarray) else self._adapter.to_numpy(tensor)

    def layers(self) -> tuple[str, ...]:
        return self._adapter.layers() if isinstance(self._adapter, ModelAdapter) else ()

    def build(self, network: Network, spec: Spec, device: str) -> Any:
        from arspec_conformance.faulty._models import Building

        asked = Building(self._adapter, network, spec, device)
        return asked.right() if self._fault.model is None else self._fault.model(asked)

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
    ) -> Answer:
        arrays = [None if t is None else np.array(self._adapter.to_numpy(t)) for t in (x, mask)]
        given = (axes, mean_over, arrays[1], cotangent, mode, self._device, self._memory)
        with np.errstate(all="ignore"):
            return self._fault.answer(Call(self._adapter, penalty, np.asarray(arrays[0]), *given))


def at(penalty: Any, *names: str) -> bool:
    """Return whether the penalty has one of these names."""
    return penalty.name in names


def rounded_to(x: np.ndarray, dtype: str) -> np.ndarray:
    """Return x rounded to a dtype, in its own."""
    return x.astype(DTYPES[dtype]).astype(x.dtype)
