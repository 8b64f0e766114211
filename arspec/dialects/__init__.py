"""Dialects: foreign conventions in, explicit rules out, and back where that is exact.

What other projects call "L2 0.01" differs by a ½, by a division by the batch, by the tensor
it meets. Each dialect reads documents of one project into rules that say all of this, writes
rules back where the project can say the same, and refuses the rest by name, with the reason.

>>> from arspec import dialects
>>> dialects.tf_slim.rule("l2_regularizer", scale=0.002, layer="**", placement="kernel").penalty
L2(coefficient=0.001)
"""

from arspec.dialects._dialect import Conversion as Conversion
from arspec.dialects._dialect import Dialect as Dialect
from arspec.dialects._dialect import DialectWarning as DialectWarning
from arspec.dialects._dialect import Refusal as Refusal
from arspec.dialects._keras import keras as keras
from arspec.dialects._keras import tf_keras as tf_keras
from arspec.dialects._language_models import awd_lstm as awd_lstm
from arspec.dialects._language_models import awd_lstm_paper as awd_lstm_paper
from arspec.dialects._language_models import fastai as fastai
from arspec.dialects._names import dialect as dialect
from arspec.dialects._names import known as known
from arspec.dialects._optimizers import haiku as haiku
from arspec.dialects._optimizers import optax as optax
from arspec.dialects._optimizers import torch as torch
from arspec.dialects._sparse_autoencoders import dictionary_learning as dictionary_learning
from arspec.dialects._sparse_autoencoders import openai_sparse_autoencoder as openai_sparse_autoencoder
from arspec.dialects._sparse_autoencoders import sae_lens as sae_lens
from arspec.dialects._tensorflow import sonnet as sonnet
from arspec.dialects._tensorflow import tf_nn as tf_nn
from arspec.dialects._tensorflow import tf_slim as tf_slim
