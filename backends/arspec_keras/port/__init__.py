"""Porting from and to Keras: a model as a bundle, source code for a bundle, the check of a model against it."""

from arspec_keras.port._check import check as check
from arspec_keras.port._export import export as export
from arspec_keras.port._write import write as write
