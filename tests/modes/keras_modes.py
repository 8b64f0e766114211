"""The modes of Keras on the running backend, as functions of NumPy arrays."""

from arspec_conformance.adapters.keras_adapter import BACKEND as BACKEND
from arspec_conformance.adapters.keras_adapter import KerasAdapter
from modes._numbers import modes_of

ADAPTER = KerasAdapter()
MODES = modes_of(ADAPTER, f"keras_{BACKEND}")
