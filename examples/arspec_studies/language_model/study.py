"""AR and TAR on a language model: the description of the study."""

from arspec_studies._study.study import Metric, Study, Variant
from arspec_studies.language_model.data import measure, task

STUDY = Study(
    name="language-model",
    title="AR and TAR on an LSTM language model",
    question="AR keeps the states of an LSTM small, TAR keeps them from changing fast. Which of α and β lowers the "
    "perplexity of a small word-level model, and how much of either is too much?",
    source="S. Merity, B. McCann, R. Socher, Revisiting activation regularization for language RNNs, 2017: on Penn "
    "Treebank both lower the perplexity of a model with dropout by a few points; the published code uses α = 2, β = 1 "
    "and means of squares, as here.",
    setting="The help topics of Python (pydoc_data): 24 000 words to train, the next 6000 to test, the 799 most "
    "frequent words and one for all others. Embedding 64, LSTM 96, softmax; sequences of 20 words, each from a zero "
    "state; Adam (0.003), batches of 20 sequences, 6 epochs. AR is α · mean h², TAR is β · mean (h_{t+1} − h_t)².",
    reading="Perplexities cannot be compared with Penn Treebank: the text is thirty times smaller, of another kind, "
    "and its vocabulary is cut at 800. The paper's models have dropout, and AR sees the dropped states; frameworks "
    "draw dropout differently, so there is none here, and what the paper adds to dropout stands alone. The last two "
    "columns are what AR and TAR make small. In the variant with both, β is half of the α that is shown.",
    variants=(
        Variant("baseline", "no penalty"),
        Variant("ar", "AR (α)", coefficients=(0.5, 8.0)),
        Variant("tar", "TAR (β)", coefficients=(0.25, 4.0)),
        Variant("ar_tar", "AR and TAR", coefficients=(8.0,)),
    ),
    metrics=(
        Metric("test", "test perplexity", False, digits=2),
        Metric("train", "train perplexity", False, digits=2),
        Metric("square", "mean h²", None, digits=4),
        Metric("step", "mean (Δh)²", None, digits=4),
    ),
    task=task,
    measure=measure,
    seeds=5,
)
