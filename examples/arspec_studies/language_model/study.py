"""AR and TAR on a language model: the description of the study."""

from arspec_studies._study.study import Metric, Study, Variant
from arspec_studies.language_model.data import measure, task


def _variants(prefix: str, title: str, words: int, *, grid: bool) -> tuple[Variant, ...]:
    def variant(name: str, penalty: str, file: str, *more: float) -> Variant:
        who = (f"{prefix}_{name}", f"{title}, {penalty}", {}, grid, more if grid else ())
        return Variant(*who, options={"words": words}, file=file, against=f"{prefix}_none")

    return (
        variant("none", "no penalty", "baseline"),
        variant("ar", "AR (α)", "ar", 0.5, 8.0),
        variant("tar", "TAR (β)", "tar", 0.25, 4.0),
        variant("ar_tar", "AR and TAR", "ar_tar", 8.0),
    )


STUDY = Study(
    name="language-model",
    title="AR and TAR on an LSTM language model",
    question="AR keeps the states of an LSTM small, TAR keeps them from changing fast. Which of α and β lowers the "
    "perplexity of a small word-level model, and how much of either is too much?",
    source="S. Merity, B. McCann, R. Socher, Revisiting activation regularization for language RNNs, 2017: on Penn "
    "Treebank both lower the perplexity of a model with dropout by a few points; the published code uses α = 2, β = 1 "
    "and means of squares, as here.",
    setting="The help topics of Python (pydoc_data), the 799 most frequent words and one for all others. Little text "
    "is 8000 words, read ten times; more text is 24 000, read four times; 6000 later words test both. Embedding "
    "64, LSTM 96, softmax; sequences of 20 words, each from a zero state; Adam (0.003), batches of 10 sequences. AR is "
    "α · mean h², TAR is β · mean (h_{t+1} − h_t)².",
    reading="Perplexities cannot be compared with Penn Treebank: the text is a hundred or thirty times smaller, of "
    "another kind, and its vocabulary is cut at 800. The paper's models have dropout, and AR sees the dropped states; "
    "frameworks draw dropout differently, so there is none here, and what the paper adds to dropout stands alone. "
    "Epochs are fixed and nothing stops early. The last two columns are what AR and TAR make small. In the variants "
    "with both, β is half of the α that is shown.",
    variants=(
        *_variants("little", "little text", 8000, grid=True),
        *_variants("more", "more text", 24000, grid=False),
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
