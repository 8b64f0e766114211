"""The part of the contract that is about models: an adapter builds a reference network, and measures it.

It is optional: an adapter that has it declares "placements", and is then asked the clauses
of tier P. What it builds is a model as people write it in its framework, with `attach` on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from arspec import Spec
from arspec.layers import Network


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What one forward and backward pass gave.

    Attributes
    ----------
    values : of every site, by its key, such as "hidden/output/l1".
    total : what is added to a loss.
    gradients : of the total, by "layer/placement", for every parameter of the network, in
        the layout of the reference: a kernel is (input, output).
    """

    values: Mapping[str, float]
    total: float
    gradients: Mapping[str, np.ndarray]


class RegularizedModel(Protocol):
    """A model with a Spec on it."""

    def measure(self, x: np.ndarray) -> Measured:
        """Run a batch forward, and the total of its penalties backward."""
        ...

    # With the capability "frozen layers" also: def freeze(self, layer: str) -> None, after which the
    # parameters of the layer are not trained, and their gradients are 0.

    def assign(self, parameters: Mapping[str, np.ndarray]) -> None:
        """Set parameters, by "layer/placement", in the layout of the reference."""
        ...


@runtime_checkable
class ModelAdapter(Protocol):
    """What an adapter that declares "placements" has besides."""

    def layers(self) -> tuple[str, ...]:
        """Return the names of the reference layers it builds, such as ("Dense",)."""
        ...

    def build(self, network: Network, spec: Spec, device: str) -> RegularizedModel:
        """Write the network as a float32 model of the framework, and attach the Spec.

        Errors of `attach` are handed on: some clauses ask for them.
        """
        ...
