"""A language model in PyTorch, regularized by `attach`; torch.vmap cannot batch nn.LSTM, so runs take turns."""

from functools import partial

import torch
from torch import Tensor, nn

import arspec
from arspec_studies._study.study import Batch, Weights
from arspec_studies._study.torch_fit import classify
from arspec_studies.language_model.data import EMBEDDED, LEARNING_RATE, UNITS, WORDS


class LanguageModel(nn.Module):
    """Embedding, LSTM and a linear layer; returns logits of shape (batch, time, words)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, EMBEDDED)
        self.lstm = nn.LSTM(EMBEDDED, UNITS, batch_first=True)
        self.output = nn.Linear(UNITS, WORDS)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(x))
        return self.output(states)


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one model per run; return the weights of each."""
    model = LanguageModel()
    return classify(model, spec, batch, partial(torch.optim.Adam, lr=LEARNING_RATE), vmap=False)
