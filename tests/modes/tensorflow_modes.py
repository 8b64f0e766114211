"""The modes of TensorFlow, as functions of NumPy arrays."""

from arspec_conformance.adapters.tensorflow_adapter import TensorFlowAdapter
from modes._numbers import modes_of

ADAPTER = TensorFlowAdapter()
MODES = modes_of(ADAPTER, "tf")
