"""Porting from Keras: a model, with its regularization, as an `arspec.port` bundle."""

from arspec_keras.port._export import export as export
