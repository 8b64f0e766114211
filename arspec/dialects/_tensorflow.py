"""tf-slim, `tf.nn.l2_loss` and Sonnet: regularizers of TensorFlow that are functions of a tensor.

Sources
-------
- tf-slim 1.1, `tf_slim/layers/regularizers.py` (before it, `tf.contrib.layers`):
  `l1_regularizer(scale)` is `scale * reduce_sum(abs(w))`; `l2_regularizer(scale)` is
  `scale * nn.l2_loss(w)`, with the ½; `l1_l2_regularizer(scale_l1, scale_l2)` is their sum.
  A scale of 0.0 disables the regularizer, an integer is an error there.
- TensorFlow 1 and 2, `tf.nn.l2_loss(t)`: `sum(t ** 2) / 2`, over every axis; no division by
  the batch for an activation.
- Sonnet 2, `sonnet/src/regularizers.py`: `L1(scale)` is `scale * Σ|w|`, `L2(scale)` is
  `scale * Σw²`, without the ½.
"""

from typing import Any

from arspec._placements import ACTIVATIONS
from arspec.dialects._dialect import double, half, require_coefficient
from arspec.dialects._terms import EVERY_PARAMETER, Term, TermDialect, proportional
from arspec.penalties import L1, L1L2, L2, Penalty


def _elastic(scale_l1: Any, scale_l2: Any) -> Penalty:
    return L1L2(require_coefficient("scale_l1", scale_l1), half("scale_l2", scale_l2))


def _scales(penalty: Penalty) -> dict[str, Any] | None:
    if not isinstance(penalty, L1L2):
        return None
    return {"scale_l1": penalty.l1, "scale_l2": double("scale_l2", penalty.l2)}


tf_slim = TermDialect(
    name="tf-slim",
    about="tf-slim and tf.contrib.layers: l2_regularizer is scale·½Σw², l1_regularizer scale·Σ|w|",
    key="regularizer",
    table=(
        proportional("l1_regularizer", L1, "scale"),
        proportional("l2_regularizer", L2, "scale", halved=True),
        Term("l1_l2_regularizer", "scale_l1 · Σ|x| + scale_l2 · ½Σx²", _elastic, _scales, ("scale_l1", "scale_l2")),
    ),
    refused={"sum_regularizer": "a list of other regularizers; write each of them as a term of its own."},
)

tf_nn = TermDialect(
    name="tf.nn",
    about="tf.nn.l2_loss: scale·½Σx², summed over the batch too",
    key="loss",
    table=(proportional("l2_loss", L2, "scale", halved=True, placements=(*EVERY_PARAMETER, *ACTIVATIONS)),),
)

sonnet = TermDialect(
    name="sonnet",
    about="Sonnet 2: L2 is scale·Σw², without the ½ of tf-slim; L1 is scale·Σ|w|",
    key="regularizer",
    table=(proportional("L1", L1, "scale"), proportional("L2", L2, "scale")),
    refused={
        "OffDiagonalOrthogonal": "the squares of the off-diagonal entries of WᵀW; SoftOrthogonal, ‖WᵀW − I‖², "
        "also draws the diagonal to 1."
    },
)
