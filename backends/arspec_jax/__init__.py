"""Regularize JAX models: NNX, Linen, Equinox and plain functions."""

from arspec_jax._engine import JaxNamespace as JaxNamespace
from arspec_jax._engine import value as value
