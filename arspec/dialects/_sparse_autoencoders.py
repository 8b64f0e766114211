"""SAELens, dictionary_learning and openai's sparse_autoencoder: sparsity of the latents.

All sum over the features and average over the examples. They part where a feature is
weighted by the norm of its decoder row, a product of two tensors that a rule cannot hold.

Sources
-------
- SAELens 6, `sae_lens/saes/standard_sae.py`: `(l1_coefficient *
  feature_acts.norm(p=lp_norm, dim=-1)).mean()`, feature_acts multiplied by the norms of the
  decoder rows where `scale_sparsity_penalty_by_decoder_norm`.
  `sae_lens/saes/jumprelu_sae.py`, `jumprelu_sparsity_loss_mode`: "step" is
  `(l0_coefficient * Step(hidden_pre, threshold).sum(-1)).mean()` with a straight-through
  gradient to the threshold alone; "tanh" is `tanh(scale * acts * norms)`, in the same way.
- dictionary_learning, `trainers/standard.py`: `l1_penalty * f.norm(p=1, dim=-1).mean()`;
  `trainers/p_anneal.py`: `f.pow(p).sum(dim=-1).mean()` for "Lp^p", p falling in training;
  `trainers/jumprelu.py`: `(l0 / target_l0 - 1) ** 2`.
- openai/sparse_autoencoder, `loss.py`: `normalized_L1_loss` is
  `(latents.abs().sum(dim=1) / input.norm(dim=1)).mean()`.
"""

from typing import Any

from arspec._errors import SpecError, UnsupportedError
from arspec.dialects._dialect import require_coefficient
from arspec.dialects._terms import PER_EXAMPLE, Term, TermDialect, proportional
from arspec.penalties import L1, L0Step, L2Norm, Lp, Penalty, Tanh

_LATENTS: dict[str, Any] = {"placements": ("output",), "means": PER_EXAMPLE}
_WEIGHTED = (
    "each feature is weighted by the norm of its decoder row, which a rule cannot hold. Where the rows are kept "
    "at norm 1 the weight is 1: say so with scale_sparsity_penalty_by_decoder_norm=False."
)


def _refuse_weights(scaled: Any) -> None:
    if not isinstance(scaled, bool):
        raise SpecError(f"scale_sparsity_penalty_by_decoder_norm={scaled!r}; expected True or False.")
    if scaled:
        raise UnsupportedError(_WEIGHTED)


def _standard(l1_coefficient: Any, lp_norm: Any, scale_sparsity_penalty_by_decoder_norm: Any) -> Penalty:
    _refuse_weights(scale_sparsity_penalty_by_decoder_norm)
    coefficient = require_coefficient("l1_coefficient", l1_coefficient)
    if require_coefficient("lp_norm", lp_norm) not in (1, 2):
        raise UnsupportedError(f"lp_norm={lp_norm!r}: (Σ|x|^p)^(1/p) is in the family for p = 1 and p = 2 only.")
    return L1(coefficient) if lp_norm == 1 else L2Norm(coefficient)


def _of_standard(penalty: Penalty) -> dict[str, Any] | None:
    if not isinstance(penalty, L1 | L2Norm):
        return None
    p = 1.0 if isinstance(penalty, L1) else 2.0
    return {"l1_coefficient": penalty.coefficient, "lp_norm": p, "scale_sparsity_penalty_by_decoder_norm": False}


def _step(l0_coefficient: Any, threshold: Any, jumprelu_bandwidth: Any) -> Penalty:
    return L0Step(l0_coefficient, threshold=threshold, bandwidth=jumprelu_bandwidth)


def _of_step(penalty: Penalty) -> dict[str, Any] | None:
    if not isinstance(penalty, L0Step):
        return None
    numbers = {"threshold": penalty.threshold, "jumprelu_bandwidth": penalty.bandwidth}
    return {"l0_coefficient": penalty.coefficient, **numbers}


def _tanh(l0_coefficient: Any, jumprelu_tanh_scale: Any, scale_sparsity_penalty_by_decoder_norm: Any) -> Penalty:
    _refuse_weights(scale_sparsity_penalty_by_decoder_norm)
    return Tanh(l0_coefficient, scale=jumprelu_tanh_scale)


def _of_tanh(penalty: Penalty) -> dict[str, Any] | None:
    if not isinstance(penalty, Tanh):
        return None
    numbers = {"jumprelu_tanh_scale": penalty.scale, "scale_sparsity_penalty_by_decoder_norm": False}
    return {"l0_coefficient": penalty.coefficient, **numbers}


sae_lens = TermDialect(
    name="sae-lens",
    about="SAELens: sparsity summed over features, averaged over the rest; L1, tanh, L0 by step",
    key="loss",
    table=(
        Term(
            "standard",
            "l1_coefficient · mean over examples of ‖x‖_p",
            _standard,
            _of_standard,
            ("l1_coefficient", "scale_sparsity_penalty_by_decoder_norm"),
            {"lp_norm": 1.0},
            **_LATENTS,
        ),
        Term(
            "jumprelu_step",
            "l0_coefficient · mean over examples of Σ 1[x > threshold]; one threshold that is not trained",
            _step,
            _of_step,
            ("l0_coefficient", "threshold", "jumprelu_bandwidth"),
            placements=("pre_activation",),
            means=PER_EXAMPLE,
        ),
        Term(
            "jumprelu_tanh",
            "l0_coefficient · mean over examples of Σ tanh(jumprelu_tanh_scale · |x|)",
            _tanh,
            _of_tanh,
            ("l0_coefficient", "jumprelu_tanh_scale", "scale_sparsity_penalty_by_decoder_norm"),
            **_LATENTS,
        ),
    ),
    refused={
        "gated": "the L1 of the gate's own activations, " + _WEIGHTED,
        "pre_act_loss": "it is masked by which features have been dead for long: a state, not a function of x.",
        "topk": "it has no sparsity penalty: exactly k features are kept.",
        "ghost_grads": "a second reconstruction loss through dead features, not a penalty.",
    },
)


def _annealed(sparsity_penalty: Any, p: Any) -> Penalty:
    return Lp(sparsity_penalty, p=p)


def _of_annealed(penalty: Penalty) -> dict[str, Any] | None:
    return {"sparsity_penalty": penalty.coefficient, "p": penalty.p} if isinstance(penalty, Lp) else None


dictionary_learning = TermDialect(
    name="dictionary-learning",
    about="dictionary_learning: l1_penalty·‖f‖₁, averaged over the examples",
    key="trainer",
    table=(
        proportional("StandardTrainer", L1, "l1_penalty", **_LATENTS),
        Term(
            "PAnnealTrainer",
            "sparsity_penalty · mean over examples of Σ x^p (sparsity_function 'Lp^p'), p as it is now",
            _annealed,
            _of_annealed,
            ("sparsity_penalty", "p"),
            **_LATENTS,
        ),
    ),
    refused={
        "StandardTrainerAprilUpdate": "each feature is weighted by the norm of its decoder column, which a rule "
        "cannot hold.",
        "GatedSAETrainer": "the L1 is that of the gate's own activations, through a decoder that is not trained by it.",
        "JumpReluTrainer": "its loss is (L0 / target_l0 − 1)², not proportional to L0; the nearest is L0Step.",
        "TopKTrainer": "it has no sparsity penalty: exactly k features are kept.",
        "BatchTopKTrainer": "it has no sparsity penalty: k features per example are kept, on average.",
    },
)


def _normalized(l1_weight: Any, input_norm: Any) -> Penalty:
    norm = require_coefficient("input_norm", input_norm)
    if norm == 0:
        raise SpecError(f"input_norm={input_norm!r}; expected a number > 0.")
    return L1(require_coefficient("l1_weight", l1_weight) / norm)


def _of_normalized(penalty: Penalty) -> dict[str, Any] | None:
    return {"l1_weight": penalty.coefficient, "input_norm": 1.0} if isinstance(penalty, L1) else None


openai_sparse_autoencoder = TermDialect(
    name="openai-sparse-autoencoder",
    about="openai/sparse_autoencoder: L1 of each example over the norm of its input; exact if that is one number",
    key="loss",
    table=(
        Term(
            "normalized_L1_loss",
            "l1_weight · mean over examples of ‖latents‖₁ / input_norm; input_norm is the norm that every input has",
            _normalized,
            _of_normalized,
            ("l1_weight", "input_norm"),
            **_LATENTS,
        ),
    ),
)
