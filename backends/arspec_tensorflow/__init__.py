"""arspec for TensorFlow: penalties on tensors (models are regularized by arspec_keras)."""

from arspec._frameworks import require

require("arspec_tensorflow", "tensorflow", "TensorFlow", "tensorflow")

from arspec_tensorflow._engine import value as value
