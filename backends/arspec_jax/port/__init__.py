"""Porting to JAX: Flax NNX source code for a bundle, and the check of a module against it."""

from arspec_jax.port._check_nnx import check_nnx as check_nnx
from arspec_jax.port._check_nnx import load_nnx as load_nnx
from arspec_jax.port._nnx import write_nnx as write_nnx
