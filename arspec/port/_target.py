"""What every framework that checks a target asks of a bundle and a map."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from arspec._errors import SpecError
from arspec._spec import Spec
from arspec.port._bundle import Bundle
from arspec.port._graph import Graph
from arspec.port._source import Written


def target_spec(bundle: Bundle, written: Written) -> Spec:
    """Return the rules in names of the target: one for each site of the bundle, in that order."""
    rules = bundle.spec.rules
    return Spec(
        [
            replace(rules[site.rule], layer=layer, placement=placement)
            for site, (layer, placement) in zip(bundle.sites, written.sites, strict=True)
        ]
    )


def trained_weights(graph: Graph) -> set[str]:
    """Return the weights that a gradient moves."""
    return {
        path
        for path, node, role in graph.weights()
        if role not in getattr(node.layer, "state", ()) and role not in node.frozen
    }


def require_tensors(held: Mapping[str, np.ndarray], written: Written) -> None:
    """Raise unless a target holds the tensors that the map says, in their shapes.

    Raises
    ------
    SpecError: one is missing, foreign or of another shape; they are listed.
    """
    require_names(held, written.weights.shapes, "the model is not that of the map")


def require_names(held: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], who: str) -> None:
    """Raise unless tensors have these names and shapes.

    Raises
    ------
    SpecError: one is missing, foreign or of another shape; they are listed.
    """
    wrong = [f"{name} {tuple(shape)} is missing" for name, shape in expected.items() if name not in held]
    wrong += [f"{name} {held[name].shape} is too much" for name in held if name not in expected]
    wrong += [
        f"{name} has shape {array.shape}, not {tuple(expected[name])}"
        + (", looks transposed" if array.shape[::-1] == tuple(expected[name]) else "")
        for name, array in held.items()
        if name in expected and array.shape != tuple(expected[name])
    ]
    if wrong:
        listed = "; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")
        raise SpecError(f"{who}: {listed}.")
