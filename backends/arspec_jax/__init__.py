"""Regularize JAX models: NNX, Linen, Equinox and plain functions."""

from arspec._frameworks import require

require("arspec_jax", "jax", "JAX", "jax")

from arspec_jax._attach import attach as attach
from arspec_jax._engine import JaxNamespace as JaxNamespace
from arspec_jax._engine import value as value
from arspec_jax._extract import extract as extract
from arspec_jax._forward import Forward as Forward
from arspec_jax._penalties import Penalties as Penalties
from arspec_jax._site import site as site
from arspec_jax._statistics import statistics as statistics
