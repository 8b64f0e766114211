"""The penalty family: one class in one file each."""

from arspec.penalties._base import Penalty as Penalty
from arspec.penalties._base import Sum as Sum
from arspec.penalties._base import register as register
from arspec.penalties._base import registered as registered
from arspec.penalties.l1 import L1 as L1
from arspec.penalties.l1_l2 import L1L2 as L1L2
from arspec.penalties.l2 import L2 as L2
