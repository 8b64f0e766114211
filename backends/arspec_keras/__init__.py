"""arspec for Keras 3, on its TensorFlow, JAX and PyTorch backends."""

from arspec._frameworks import require, without_backend

require("arspec_keras", "keras", "Keras", "keras")
try:
    import keras as _keras  # noqa: F401  fails without the backend that it wants
except ModuleNotFoundError as _error:
    raise without_backend(_error) from None

from arspec_keras._attach import attach as attach
from arspec_keras._attach import detach as detach
from arspec_keras._attach import losses as losses
from arspec_keras._attach import sites as sites
from arspec_keras._attach import total as total
from arspec_keras._backend import value as value
from arspec_keras._extract import extract as extract
from arspec_keras._logger import PenaltyLogger as PenaltyLogger
from arspec_keras._native import ActivityRegularization as ActivityRegularization
from arspec_keras._native import Regularizer as Regularizer
from arspec_keras._statistics import statistics as statistics
from arspec_keras._statistics_logger import StatisticsLogger as StatisticsLogger
