"""Porting from and to Keras: a model as a bundle, source code for a bundle, the check of a model against it."""

from arspec_keras.port._check import check as check
from arspec_keras.port._check import load_code as load_code
from arspec_keras.port._export import export as export
from arspec_keras.port._files import load as load
from arspec_keras.port._weighted import assign as assign
from arspec_keras.port._weighted import layers as layers
from arspec_keras.port._write import write as write
