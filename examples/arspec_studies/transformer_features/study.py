"""A sparse autoencoder on a transformer: the description of the study."""

from arspec_studies._study.study import Metric, Study, Variant
from arspec_studies.sparse_autoencoder import penalty  # noqa: F401 - the spec files name it
from arspec_studies.transformer_features.data import measure, task

STUDY = Study(
    name="transformer-features",
    title="Sparse features of a transformer with random weights",
    question="Sparse autoencoders are used to find features in the activations of language models. What do they find "
    "in a transformer that has learned nothing?",
    source="the use is that of T. Bricken et al., Towards monosemanticity, 2023, and S. Rajamanoharan et al., "
    "Jumping ahead, 2024; the control is that of T. Heap et al., Sparse autoencoders can interpret randomly "
    "initialized transformers, 2025. No published number is repeated.",
    setting="A GPT-2 of 4 layers of 64, built offline from a configuration of the package transformers, weights "
    "random, reads 6000 words of Python's help topics in sequences of 20. Its hidden state after the second layer is "
    "coded by an autoencoder of 256 latents (four times over-complete) as in the study of digits: 5000 states to "
    "train, 1000 to test; Adam (0.003), batches of 250, 25 epochs.",
    reading="What random weights can show: that the penalty trades error for sparsity on real activations, that the "
    "tools fit together, and how much of an apparent meaning comes from the input alone. For each latent, the last "
    "columns give the share of the most frequent word among the ten states in which it is strongest, beside the same "
    "for random numbers: it is far above chance, because a random transformer passes word and position on. What they "
    "cannot show: anything a model has learned. A feature that looks like a word here is the word, not knowledge; a "
    "study of a trained model needs this one as its control.",
    variants=(
        Variant("baseline", "no penalty", options={"activation": "relu"}),
        Variant("l1", "L1", coefficients=(1.0, 0.3, 0.03), options={"activation": "relu"}),
        Variant("l0", "L0", coefficients=(0.1, 0.03), options={"activation": "jumprelu"}),
    ),
    metrics=(
        # No direction: alone, it is best without a penalty.
        Metric("unexplained", "error (% of variance)", None, scale=100, digits=2),
        Metric("active", "active latents", None, digits=1),
        Metric("never", "latents never active (%)", None, scale=100, digits=1),
        Metric("word", "same word (%)", None, scale=100, digits=1),
        Metric("chance", "same word by chance (%)", None, scale=100, digits=1),
    ),
    task=task,
    measure=measure,
    seeds=5,
    quick_seeds=1,
    needs=("torch", "transformers"),
)
