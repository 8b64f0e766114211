"""Sparse autoencoders on digits: the description of the study."""

from arspec_studies._study.study import Metric, Study, Variant
from arspec_studies.sparse_autoencoder import penalty  # noqa: F401 - the spec files name it
from arspec_studies.sparse_autoencoder.data import measure, show, task
from arspec_studies.sparse_autoencoder.figures import figures

_L1 = (1.0, 0.3, 0.03, 0.01)
_KL = (1.0, 0.3, 0.03, 0.01)
_L0 = (0.1, 0.03, 0.003, 0.001)


def _variants(prefix: str, words: str, units: int, few: slice = slice(None)) -> tuple[Variant, ...]:
    def variant(name: str, title: str, activation: str, coefficients: tuple[float, ...], file: str) -> Variant:
        options = {"units": units, "activation": activation}
        against = f"{prefix}_none"
        return Variant(f"{prefix}_{name}", f"{words}, {title}", {}, True, coefficients[few], options, file, against)

    return (
        variant("none", "no penalty", "relu", (), "baseline"),
        variant("l1", "L1", "relu", _L1, "l1"),
        variant("kl", "KL", "sigmoid", _KL, "kl"),
        variant("l0", "L0", "jumprelu", _L0, "l0"),
    )


STUDY = Study(
    name="sparse-autoencoder",
    title="Sparse autoencoders on digits: what does a sparse code cost?",
    question="Three penalties make the code of an autoencoder sparse: L1 on ReLU units, KL on the mean of sigmoid "
    "units, and L0 with trained thresholds. Which of them explains most of an image with the fewest latents?",
    source="A. Ng, Sparse autoencoder, CS294A lecture notes, 2011 (KL); T. Bricken et al., Towards monosemanticity, "
    "2023 (L1); S. Rajamanoharan et al., Jumping ahead, 2024 (L0 by straight-through steps, JumpReLU). None of them "
    "has numbers for these digits: nothing here is compared with a published table.",
    setting="The 1797 digits of scikit-learn, 8 × 8 pixels from 0 to 1: 1500 to train, 297 to test. One hidden layer "
    "of 128 units (over-complete) or 24 (under-complete), a linear decoder whose features are kept at length 1, "
    "squared error summed over the pixels, Adam (0.003), batches of 100, 60 epochs. The penalty is summed over the "
    "latents and averaged over the batch; KL is that of the mean over the batch from a target of 0.05.",
    reading="Error is the share of the variance of the test images that is left. A latent counts as active above 0; a "
    "sigmoid is never 0 and counts above 0.1, so that its numbers of latents are not quite those of the others. The "
    "features have length 1, or an L1 penalty could be paid by small latents and a large decoder. The L0 penalty is "
    "registered by this study in twenty lines: arspec's own L0Step has gradient 0 at the activations by definition, "
    "and a JumpReLU trains the thresholds instead.",
    variants=(*_variants("over", "over-complete", 128), *_variants("under", "under-complete", 24, slice(1, 3))),
    metrics=(
        # No direction: alone, it is best without a penalty.
        Metric("unexplained", "error (% of variance)", None, scale=100, digits=2),
        Metric("active", "active latents", None, digits=1),
        Metric("never", "latents never active (%)", None, scale=100, digits=1),
        Metric("mean", "mean latent", None),
    ),
    task=task,
    measure=measure,
    show=show,
    figures=figures,
    seeds=5,
    quick_seeds=1,
)
