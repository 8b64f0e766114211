"""One definition of regularization, the same numbers in every framework."""

import importlib as _importlib
from typing import Any as _Any

from arspec._axes import Axes as Axes
from arspec._errors import SpecError as SpecError
from arspec._errors import UnsupportedError as UnsupportedError
from arspec._namespace import Namespace as Namespace
from arspec._reference import gradient as gradient
from arspec._reference import value as value
from arspec._rule import Rule as Rule
from arspec._schedules import Constant as Constant
from arspec._schedules import Cosine as Cosine
from arspec._schedules import LinearWarmup as LinearWarmup
from arspec._schedules import Schedule as Schedule
from arspec._schedules import Step as Step
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
from arspec.penalties import Binarize as Binarize
from arspec.penalties import BinaryEntropy as BinaryEntropy
from arspec.penalties import DeCov as DeCov
from arspec.penalties import GroupLasso as GroupLasso
from arspec.penalties import Hoyer as Hoyer
from arspec.penalties import HoyerSquare as HoyerSquare
from arspec.penalties import Huber as Huber
from arspec.penalties import KLSparsity as KLSparsity
from arspec.penalties import L0Step as L0Step
from arspec.penalties import L2Norm as L2Norm
from arspec.penalties import LInf as LInf
from arspec.penalties import Lp as Lp
from arspec.penalties import NormStabilizer as NormStabilizer
from arspec.penalties import Orthogonal as Orthogonal
from arspec.penalties import Penalty as Penalty
from arspec.penalties import PseudoHuber as PseudoHuber
from arspec.penalties import SmoothL1 as SmoothL1
from arspec.penalties import SoftOrthogonal as SoftOrthogonal
from arspec.penalties import StudentT as StudentT
from arspec.penalties import Sum as Sum
from arspec.penalties import Tanh as Tanh
from arspec.penalties import TemporalDifference as TemporalDifference
from arspec.penalties import TotalVariation as TotalVariation
from arspec.penalties import register as register
from arspec.penalties import registered as registered

_LAZY = ("dialects", "kinks", "layers")


def __getattr__(name: str) -> _Any:
    """Import a part that most programs never ask for when it is asked for."""
    if name in _LAZY:
        return _importlib.import_module(f"arspec.{name}")
    raise AttributeError(f"module 'arspec' has no attribute {name!r}")
