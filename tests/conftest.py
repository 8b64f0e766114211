"""Shared test set-up: import order of the frameworks, and Hypothesis profiles."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# A cache of compiled code for each checkout and process: two runs at a time that share one
# can find each other's half-written files.
os.environ.setdefault(
    "TORCHINDUCTOR_CACHE_DIR",
    f"{Path(__file__).parents[1]}/.pytest_cache/inductor-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}",
)

import torch  # noqa: F401 - before TensorFlow, which otherwise takes its OpenMP
from hypothesis import HealthCheck, settings

# Reproducible in CI; ARSPEC_HUNT=1 looks for new examples.
settings.register_profile(
    "ci", derandomize=True, database=None, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("hunt", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hunt" if os.environ.get("ARSPEC_HUNT") else "ci")
