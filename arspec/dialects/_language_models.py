"""AR and TAR, the activation regularization of recurrent language models: code and paper.

Sources
-------
- S. Merity, B. McCann, R. Socher, Revisiting activation regularization for language RNNs,
  2017: α·L2(m ∘ h_t) and β·L2(h_t − h_{t+1}), L2 being the norm, *not* squared, and m the
  dropout mask. How steps and examples are reduced is not said; they are averaged here.
- awd-lstm-lm, `main.py`: `alpha * dropped_rnn_h.pow(2).mean()` on the last layer after its
  dropout and `beta * (rnn_h[1:] - rnn_h[:-1]).pow(2).mean()` on the last layer before it:
  the mean of squares over every axis. The commands of the paper use alpha 2 and beta 1.
- fastai 2, `fastai/callback/rnn.py`, `RNNRegularizer(alpha, beta)`: the same two, in training
  only and not in the logged loss. Its guard against short sequences asks for the length of
  the batch, so that a batch of one example has no TAR; that is not copied.

The layer of AR is the dropout after the last recurrent layer, that of TAR the recurrent
layer itself.
"""

from typing import Any

from arspec.dialects._dialect import require_coefficient
from arspec.dialects._terms import EVERYWHERE, Term, TermDialect
from arspec.penalties import L2, L2Norm, Penalty, TemporalDifference


def _regularizer(
    name: str, equation: str, cls: type[L2] | type[L2Norm] | type[TemporalDifference], **means: Any
) -> Term:
    number = "alpha" if name == "AR" else "beta"

    def penalty(**numbers: Any) -> Penalty:
        return cls(require_coefficient(number, numbers[number]))

    def numbers(penalty: Penalty) -> dict[str, Any] | None:
        return {number: penalty.coefficient} if type(penalty) is cls else None

    return Term(name, equation, penalty, numbers, (number,), placements=("output",), **means)


_CODE = (
    _regularizer("AR", "alpha · mean(h²), h after its dropout", L2, means=EVERYWHERE),
    _regularizer("TAR", "beta · mean((h_{t+1} − h_t)²), h before its dropout", TemporalDifference, means=EVERYWHERE),
)

awd_lstm = TermDialect(
    name="awd-lstm",
    about="awd-lstm-lm: AR and TAR are means of squares, AR on the dropped output, TAR on the raw one",
    key="term",
    table=_CODE,
)

fastai = TermDialect(
    name="fastai",
    about="fastai RNNRegularizer: as awd-lstm; in training only, and not logged",
    key="term",
    table=_CODE,
)

awd_lstm_paper = TermDialect(
    name="awd-lstm-paper",
    about="AR as the paper writes it: alpha times the norm of each state, not squared",
    key="term",
    table=(
        _regularizer("AR", "alpha · mean over steps of ‖h_t‖", L2Norm, means=(("batch", "time"), ("time", "batch"))),
    ),
    refused={
        "TAR": "the paper takes the norm of each step h_t − h_{t+1}, not squared; TemporalDifference squares it, "
        "as the published code does: see the dialect awd-lstm."
    },
)
