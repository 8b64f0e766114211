"""Faults of recurrent layers, embeddings, normalizations and frozen weights."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from arspec.layers import Embedding, SimpleRNN
from arspec_conformance._models import Measured
from arspec_conformance.faulty._fault import Fault
from arspec_conformance.faulty._models import Building, Wrapped, moved, same_rule, with_rules


def where_there_is(kind: type, faulty: Callable[[Building], Any]) -> Callable[[Building], Any]:
    """Return what builds the faulty model where a network has such a layer, and else the right one."""

    def built(asked: Building) -> Any:
        has = any(isinstance(layer, kind) for layer in asked.network.layers.values())
        return faulty(asked) if has else asked.right()

    return built


class _OnlyRows(Wrapped):
    """An embedding whose rows count only if their token occurs."""

    def __init__(self, asked: Building) -> None:
        super().__init__(asked.right())
        tables = asked.network.layers.items()
        self._tables = {name: layer.embeddings for name, layer in tables if isinstance(layer, Embedding)}

    def measure(self, x: np.ndarray) -> Measured:
        for name, table in self._tables.items():
            occurs = np.isin(np.arange(len(table)), x)[:, None]
            self.assign({f"{name}/embeddings": np.where(occurs, table, 0.0)})
        return super().measure(x)


class _Trained(Wrapped):
    """A frozen layer whose penalties are right, and whose gradients are those of a free one."""

    def __init__(self, asked: Building) -> None:
        super().__init__(asked.right())
        self._free = asked.right()

    def assign(self, parameters: Mapping[str, np.ndarray]) -> None:
        super().assign(parameters)
        self._free.assign(parameters)

    def measure(self, x: np.ndarray) -> Measured:
        found = super().measure(x)
        return Measured(found.values, found.total, self._free.measure(x).gradients)


FAULTS = (
    Fault(
        "one kernel for the other",
        "A rule for the recurrent kernel sees the kernel.",
        model=with_rules(lambda r: moved(r, {"recurrent_kernel": "kernel"})),
        needs=("layer SimpleRNN",),
    ),
    Fault(
        "states for sums",
        "pre_activation of a recurrent layer is taken after its function.",
        model=where_there_is(SimpleRNN, with_rules(lambda r: moved(r, {"pre_activation": "hidden_state"}))),
        needs=("layer SimpleRNN",),
    ),
    Fault(
        "rows that occur",
        "An embedding's rows count only where their token occurs.",
        model=where_there_is(Embedding, _OnlyRows),
        needs=("layer Embedding",),
    ),
    Fault(
        "shift for scale",
        "A rule for the scale of a normalization sees its shift.",
        model=with_rules(lambda r: moved(r, {"scale": "shift"})),
        needs=("layer BatchNormalization",),
    ),
    Fault(
        "frozen weights penalized",
        "trainable_only is ignored.",
        model=with_rules(same_rule),
        needs=("frozen layers",),
    ),
    Fault("frozen weights trained", "A frozen weight gets a gradient.", model=_Trained, needs=("frozen layers",)),
)
