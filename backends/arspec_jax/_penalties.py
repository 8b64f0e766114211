"""The penalties of one forward pass, as a value that JAX can carry."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from arspec._errors import SpecError, did_you_mean
from arspec._schedules import Schedule, scheduled_step
from arspec_jax._engine import schedule_factor

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

    def __init__(
        self,
        values: Mapping[str, Array],
        schedules: Mapping[str, Schedule] | None = None,
        in_training: Iterable[str] = (),
    ) -> None:
        self._values = dict(values)
        self._schedules = dict(schedules or {})
        self._in_training = tuple(in_training)

    def total(self, step: Any = None, *, training: bool | None = None) -> Array:
        """Return the sum of all penalties, added in the order of the rules: a 0-d array.

        Parameters
        ----------
        step : the training step, from 0, where a rule has a schedule; may be traced. Its
            penalty is then multiplied by the factor of the schedule at this step.
        training : whether this is training, where a rule says when="train". In evaluation
            its penalty is left out.

        Raises
        ------
        SpecError: a rule has a schedule and no step is given, or says when="train" and
            training is not given.
        """
        scheduled_step(step, list(self._schedules))
        values = [self._scheduled(key, step) for key in self._values if self._counts(key, training)]
        if not values:
            return jnp.zeros(())
        total = values[0]
        for value in values[1:]:
            total = total + value
        return total

    def _counts(self, key: str, training: bool | None) -> bool:
        if key not in self._in_training:
            return True
        if not isinstance(training, bool):
            raise SpecError(
                f"{key} counts in training only (when='train'); got training={training!r}. "
                "Say total(training=True), or False in evaluation."
            )
        return training

    def _scheduled(self, key: str, step: Any) -> Array:
        if key not in self._schedules:
            return self._values[key]
        return self._values[key] * schedule_factor(self._schedules[key], step)

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

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Array]], tuple[Any, ...]]:
        children = [(jax.tree_util.DictKey(key), value) for key, value in self._values.items()]
        return children, (tuple(self._values), tuple(self._schedules.items()), self._in_training)

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], values: Iterable[Array]) -> "Penalties":
        keys, schedules, in_training = static
        return cls(dict(zip(keys, values, strict=True)), dict(schedules), in_training)
