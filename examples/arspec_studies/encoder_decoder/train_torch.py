"""An LSTM encoder–decoder in PyTorch, regularized by `attach`; torch.vmap cannot batch nn.LSTM, so runs take turns."""

from functools import partial

import torch
from torch import Tensor, nn

import arspec
from arspec_studies._study.study import Batch, Weights
from arspec_studies._study.torch_fit import classify
from arspec_studies.encoder_decoder.data import EMBEDDED, LEARNING_RATE, STEPS, SYMBOLS, UNITS


class EncoderDecoder(nn.Module):
    """The last state of the encoder is the input of every step of the decoder; returns logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, EMBEDDED)
        self.encoder = nn.LSTM(EMBEDDED, UNITS, batch_first=True)
        self.decoder = nn.LSTM(UNITS, UNITS, batch_first=True)
        self.output = nn.Linear(UNITS, SYMBOLS)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.encoder(self.embedding(x))
        code = states[:, -1:].expand(-1, STEPS, -1)
        return self.output(self.decoder(code)[0])


def train(spec: arspec.Spec, batch: Batch) -> list[Weights]:
    """Train one model per run; return the weights of each."""
    model = EncoderDecoder()
    return classify(model, spec, batch, partial(torch.optim.Adam, lr=LEARNING_RATE), vmap=False)
