"""One definition of regularization, the same numbers in every framework."""

from arspec._axes import Axes as Axes
from arspec._errors import SpecError as SpecError
from arspec._errors import UnsupportedError as UnsupportedError
from arspec._reference import gradient as gradient
from arspec._reference import value as value
from arspec._rule import Rule as Rule
from arspec._schema import json_schema as json_schema
from arspec._sites import Layer as Layer
from arspec._sites import Site as Site
from arspec._sites import Sites as Sites
from arspec._spec import SPEC_VERSION as SPEC_VERSION
from arspec._spec import Spec as Spec
from arspec._spec import load as load
from arspec.penalties import L1 as L1
from arspec.penalties import L1L2 as L1L2
from arspec.penalties import L2 as L2
from arspec.penalties import Penalty as Penalty
from arspec.penalties import Sum as Sum
from arspec.penalties import register as register
