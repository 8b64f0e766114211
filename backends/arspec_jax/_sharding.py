"""Arrays that are sharded over explicit axes of a mesh, where JAX wants every result's sharding said."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec

from arspec import UnsupportedError


def on_automatic_axes(function: Callable[..., Any], *operands: Any) -> Any:
    """Evaluate a scalar function; over explicit axes as if they were automatic, where XLA shards as it likes.

    The sums of the definition halve an array again and again, which explicit axes refuse.

    Raises
    ------
    UnsupportedError: an operand has explicit axes, and no mesh is set.
    """
    if not any(AxisType.Explicit in jax.typeof(each).sharding.mesh.axis_types for each in operands):
        return function(*operands)
    if jax.sharding.get_abstract_mesh().empty:
        raise UnsupportedError(
            "an array is sharded over explicit axes of a mesh that is not set; say `with jax.set_mesh(mesh):` around "
            "the program, or make the mesh with axis_types=(jax.sharding.AxisType.Auto, ...)."
        )
    return jax.sharding.auto_axes(function, out_sharding=PartitionSpec())(*operands)
