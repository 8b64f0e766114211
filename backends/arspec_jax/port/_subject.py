"""Measuring a JAX target: a `Subject` over any model that is a function of its arrays.

Everything is traced once per mode and batch size, and runs in pieces that all subjects of a
check share: a pass gives outputs and penalties, and a pass in training mode the gradients
too, whose two weights (of the data loss and of the penalties) are arguments.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from arspec import L1, Rule, Spec
from arspec.port import Bundle, Written
from arspec.port._kinds import Function, Recurrent
from arspec.port._probe import padding_mask, perturbed
from arspec.port._source import FIRST
from arspec.port._target import target_spec, trained_weights
from arspec_jax.port._pieces import Pieces

Arrays = dict[str, np.ndarray]
Tensors = Mapping[str, Any]
Pass = tuple[list[Any], list[Any], Tensors]  # outputs, penalties, and what the pass changed


class JaxSubject(ABC):
    """A model in float64, at the perturbed weights of a bundle, without dropout."""

    def __init__(self, bundle: Bundle, written: Written, pieces: Pieces) -> None:
        self.bundle, self.written, self.pieces = bundle, written, pieces
        self.weights: Arrays = {
            name: np.asarray(array, np.float64)
            for name, array in written.weights.to_target(perturbed(bundle.weights)).items()
        }
        self.spec: Spec = target_spec(bundle, written)
        self._canonical_trained = trained_weights(bundle.graph)
        self._evaluate = pieces.compiled(lambda weights, inputs: self.run(weights, inputs, training=False))
        self._differentiate = pieces.compiled(jax.value_and_grad(self._loss, has_aux=True))
        self._kept: list[tuple[Sequence[np.ndarray], bool, Any]] = []

    # What a kind of model says.

    @property
    @abstractmethod
    def trained(self) -> set[str]:
        """The names of the weights that a gradient moves."""

    @abstractmethod
    def run(self, weights: Tensors, inputs: Sequence[Any], *, training: bool) -> Pass:
        """Run the model."""

    @abstractmethod
    def results(self, spec: Spec, inputs: Sequence[Any]) -> dict[str, Any]:
        """Return, in evaluation, by layer what the rules of a Spec would see."""

    # What all share.

    def outputs(self, inputs: Sequence[np.ndarray], *, training: bool) -> list[np.ndarray]:
        """Return the outputs, channels last."""
        found, _, _ = self._pass(inputs, training)
        return [canonical(y, layout) for y, layout in zip(found, self.written.outputs, strict=True)]

    def penalties(self, inputs: Sequence[np.ndarray], *, training: bool) -> dict[str, float]:
        """Return every penalty by its key in the source."""
        _, found, _ = self._pass(inputs, training)
        return {site.key: float(one) for site, one in zip(self.bundle.sites, found, strict=True)}

    def gradients(self, inputs: Sequence[np.ndarray], cotangents: Sequence[np.ndarray] | None) -> Arrays:
        """Return the gradients of every trainable weight."""
        if cotangents is None:
            _, found = self._gradients(inputs, self.bundle.probe.cotangents, 0.0, 1.0)
        else:
            _, found = self._gradients(inputs, cotangents, 1.0, 0.0)
        moved = self.written.weights.to_canonical(found, self.bundle.shapes)
        return {name: gradient for name, gradient in moved.items() if name in self._canonical_trained}

    def step(self, inputs: Sequence[np.ndarray], cotangents: Sequence[np.ndarray], rate: float) -> Arrays:
        """Return every weight after one step of gradient descent."""
        (_, _, changed), found = self._gradients(inputs, cotangents, 1.0, 1.0)
        after = self.weights | {name: np.asarray(array) for name, array in changed.items()}
        after |= {name: after[name] - rate * gradient for name, gradient in found.items()}
        return self.written.weights.to_canonical(after, self.bundle.shapes)

    def trace(self, inputs: Sequence[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Return the results of the layers that can be seen, in the order of the graph."""
        order = [path for path, _ in self.bundle.graph.walk() if path in self.written.traced]
        places = {path: self.written.traced[path] for path in dict.fromkeys(order)}
        linear = {path for path, node in self.bundle.graph.walk() if _is_linear(node.layer)}
        seen = {path: "pre_activation" if path in linear else "output" for path in places}
        rules = [Rule(L1(1.0), layer=place.path, placement=seen[path]) for path, place in places.items()]
        with jax.enable_x64(True):
            found = self.results(Spec(rules), self._native(inputs)) if rules else {}
        return (
            (path, canonical(found[place.path], place.layout)) for path, place in places.items() if place.path in found
        )

    def _pass(self, inputs: Sequence[np.ndarray], training: bool) -> Pass:
        for given, mode, found in self._kept:
            if given is inputs and mode == training:
                return found
        if training:
            found, _ = self._gradients(inputs, self.bundle.probe.cotangents, 1.0, 1.0)
        else:
            with jax.enable_x64(True):
                found = jax.device_get(self._evaluate(self.weights, self._native(inputs)))
        self._kept.append((inputs, training, found))
        return found

    def _gradients(
        self, inputs: Sequence[np.ndarray], cotangents: Sequence[np.ndarray], data: float, penalties: float
    ) -> tuple[Pass, Arrays]:
        native = [native_array(c, layout) for c, layout in zip(cotangents, self.written.outputs, strict=True)]
        moved = {name: array for name, array in self.weights.items() if name in self.trained}
        rest = {name: array for name, array in self.weights.items() if name not in moved}
        with jax.enable_x64(True):
            (_, found), gradients = self._differentiate(moved, rest, self._native(inputs), native, (data, penalties))
            return jax.device_get((found, gradients))

    def _loss(self, moved: Tensors, rest: Tensors, inputs: Any, cotangents: Any, shares: Any) -> tuple[Any, Pass]:
        outputs, penalties, changed = self.run({**moved, **rest}, inputs, training=True)
        data = sum((jnp.sum(y * c) / len(c) for y, c in zip(outputs, cotangents, strict=True)), jnp.zeros(()))
        total = shares[0] * data + shares[1] * sum(penalties, jnp.zeros(()))
        return total, (outputs, penalties, changed)

    def masks(self, inputs: Sequence[Any]) -> dict[str, Any]:
        """Return which steps of padded sequences count, by layer of the target."""
        pairs = zip(self.bundle.sites, self.written.sites, strict=True)
        graph = self.bundle.graph
        return {layer: padding_mask(graph, site.mask, inputs) for site, (layer, _) in pairs if site.mask}

    def _native(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [native_array(x, layout) for x, layout in zip(inputs, self.written.inputs, strict=True)]


def _is_linear(layer: object) -> bool:
    """Return whether an affine layer has no activation function: one that follows belongs to another layer."""
    return getattr(layer, "activation", None) == Function("linear") and not isinstance(layer, Recurrent)


def native_array(x: np.ndarray, layout: str) -> np.ndarray:
    """Return an input as the target takes it."""
    held = x.astype(np.float64) if x.dtype.kind == "f" else x
    return np.ascontiguousarray(np.moveaxis(held, -1, 1)) if layout == FIRST and x.ndim > 2 else held


def canonical(x: Any, layout: str) -> np.ndarray:
    """Return a result of the target, channels last."""
    array = np.asarray(x)
    return np.moveaxis(array, 1, -1) if layout == FIRST and array.ndim > 2 else array
