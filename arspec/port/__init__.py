"""Porting: a regularized model as data that any framework can read, and the proof that it arrived.

A reader (`arspec_keras.port`, ...) turns a model into a `Bundle`; a writer turns a bundle
into source code for another framework; `certify` compares the two. This package imports
NumPy alone, and safetensors where files are read or written.
"""

from arspec.port._bundle import Bundle as Bundle
from arspec.port._bundle import PortedSite as PortedSite
from arspec.port._bundle import read_bundle as read_bundle
from arspec.port._bundle import write_bundle as write_bundle
from arspec.port._certificate import Certificate as Certificate
from arspec.port._certificate import Finding as Finding
from arspec.port._certificate import certify as certify
from arspec.port._faults import Fault as Fault
from arspec.port._faults import plant as plant
from arspec.port._files import read_target as read_target
from arspec.port._files import write_target as write_target
from arspec.port._graph import Graph as Graph
from arspec.port._graph import Input as Input
from arspec.port._graph import Node as Node
from arspec.port._mapping import Entry as Entry
from arspec.port._mapping import WeightMap as WeightMap
from arspec.port._moving import Transfer as Transfer
from arspec.port._moving import transfer as transfer
from arspec.port._options import Difference as Difference
from arspec.port._probe import Probe as Probe
from arspec.port._probe import Subject as Subject
from arspec.port._probe import measure as measure
from arspec.port._source import ModuleWriter as ModuleWriter
from arspec.port._source import Written as Written
from arspec.port._split import written_layers as written_layers
from arspec.port._weighted import Layers as Layers
from arspec.port._weighted import WeightedLayer as WeightedLayer
