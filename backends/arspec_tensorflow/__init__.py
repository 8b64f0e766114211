"""arspec for TensorFlow: penalties on tensors (models are regularized by arspec_keras)."""

from arspec_tensorflow._engine import value as value
