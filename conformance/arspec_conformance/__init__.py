"""Measure whether an adapter gives the numbers of the definition; for ours and for third parties.

This package imports no framework: an adapter is loaded in the process that measures it.
"""

from arspec_conformance._adapter import Adapter as Adapter
from arspec_conformance._adapter import Mode as Mode
from arspec_conformance._adapter import adapter_names as adapter_names
from arspec_conformance._adapter import load_adapter as load_adapter
from arspec_conformance._models import Measured as Measured
from arspec_conformance._models import ModelAdapter as ModelAdapter
