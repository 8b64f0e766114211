"""Adapters that are wrong on purpose, one fault each: the suite must tell them from right ones."""

from arspec_conformance.faulty import _behaviour, _gradients, _layers, _models, _values
from arspec_conformance.faulty._fault import Call as Call
from arspec_conformance.faulty._fault import Fault as Fault
from arspec_conformance.faulty._fault import FaultyAdapter as FaultyAdapter

FAULTS: tuple[Fault, ...] = (
    *_gradients.FAULTS,
    *_values.FAULTS,
    *_behaviour.FAULTS,
    *_models.FAULTS,
    *_layers.FAULTS,
)
NO_FAULT = Fault("no fault", "Nothing is wrong: a clause that fails is a false alarm.", Call.run)
