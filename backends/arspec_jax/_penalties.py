"""The penalties of one forward pass, as a value that JAX can carry."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from arspec._errors import did_you_mean

Array = Any


@jax.tree_util.register_pytree_with_keys_class
class Penalties(Mapping[str, Array]):
    """The penalty of each site by its key, such as "hidden/pre_activation/l1"; a pytree.

    It may be returned from `jit`, differentiated and mapped like a dict of 0-d arrays.

    Example
    -------
    >>> import arspec_jax, jax.numpy as jnp
    >>> penalties = arspec_jax.Penalties({"hidden/kernel/l2": jnp.float32(0.5), "out/kernel/l2": jnp.float32(0.25)})
    >>> print(penalties.total(), sorted(penalties))
    0.75 ['hidden/kernel/l2', 'out/kernel/l2']
    """

    def __init__(self, values: Mapping[str, Array]) -> None:
        self._values = dict(values)

    def total(self) -> Array:
        """Return the sum of all penalties, added in the order of the rules: a 0-d array."""
        values = list(self._values.values())
        if not values:
            return jnp.zeros(())
        total = values[0]
        for value in values[1:]:
            total = total + value
        return total

    def __getitem__(self, key: str) -> Array:
        if key not in self._values:
            raise KeyError(f"no penalty {key!r}; there is {', '.join(self._values)}.{did_you_mean(key, self._values)}")
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Penalties({self._values!r})"

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Array]], tuple[str, ...]]:
        return [(jax.tree_util.DictKey(key), value) for key, value in self._values.items()], tuple(self._values)

    @classmethod
    def tree_unflatten(cls, keys: tuple[str, ...], values: Iterable[Array]) -> "Penalties":
        return cls(dict(zip(keys, values, strict=True)))
