"""The modes of JAX, as functions of NumPy arrays."""

from arspec_conformance.adapters.jax_adapter import JaxAdapter
from modes._numbers import modes_of

ADAPTER = JaxAdapter()
MODES = modes_of(ADAPTER, "jax")
