"""The arrays among the arguments and results of a model, apart from what is static."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

Array = Any


@dataclass(frozen=True)
class Structure:
    """A pytree without its arrays: the tree, and at each leaf a static value or the place of an array."""

    tree: Any
    static: tuple[tuple[bool, Any], ...]

    def fill(self, arrays: Sequence[Array]) -> Any:
        """Put the arrays back."""
        source = iter(arrays)
        return jax.tree.unflatten(self.tree, [next(source) if dynamic else leaf for dynamic, leaf in self.static])


def separate(values: Any) -> tuple[list[Array], Structure]:
    """Split a pytree into its arrays and the rest (numbers, strings, functions)."""
    leaves, tree = jax.tree.flatten(values)
    marks = tuple((True, None) if _is_array(leaf) else (False, leaf) for leaf in leaves)
    return [leaf for leaf in leaves if _is_array(leaf)], Structure(tree, marks)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


class Recorder:
    """Runs a function on separated arguments and remembers the structure of what it returned."""

    def __init__(self, function: Callable[..., Any], values: Any) -> None:
        self.leaves, self._inputs = separate(values)
        self._function = function
        self._outputs: Structure | None = None

    def run(self, *leaves: Array) -> list[Array]:
        arrays, self._outputs = separate(self._function(*self._inputs.fill(leaves)))
        return arrays

    def finish(self, arrays: Sequence[Array], _: Any = None) -> Any:
        assert self._outputs is not None
        return self._outputs.fill(arrays)
