"""A small CNN with activity regularization: the description of the study."""

from arspec_studies._study.study import Metric, Study, Variant
from arspec_studies.cnn.data import measure, task

_COEFFICIENTS = (0.1, 1e-3)

STUDY = Study(
    name="cnn",
    title="A small CNN: activity regularization on feature maps",
    question="What does a penalty on the feature maps of a convolutional network do to its zeros and to its accuracy, "
    "and is L1 better than L2 there?",
    source="the usual examples of activity regularization in Keras, which name convolutions beside dense layers; no "
    "published numbers.",
    setting="Two 3 × 3 convolutions with 8 and 16 channels and ReLU, the mean over positions, softmax; the 8 × 8 "
    "digits of scikit-learn, 600 to train and 1197 to test, split anew for each seed; Adam (0.01), batches of 50, "
    "40 epochs. The penalty is on the output of both convolutions, summed over channels and averaged over batch, "
    "height and width.",
    reading="The same sum over every position would be 64 times as large: with feature maps, more than anywhere "
    "else, a coefficient means nothing without its reduction. Keras divides by the batch alone.",
    variants=(
        Variant("baseline", "no penalty"),
        Variant("l1", "L1 on the feature maps", coefficients=_COEFFICIENTS),
        Variant("l2", "L2 on the feature maps", coefficients=_COEFFICIENTS),
    ),
    metrics=(
        Metric("test", "test accuracy (%)", scale=100, digits=2),
        Metric("train", "train accuracy (%)", scale=100, digits=2),
        Metric("zeros", "exact zeros (%)", None, scale=100, digits=1),
        Metric("activation", "mean activation", None, digits=4),
    ),
    task=task,
    measure=measure,
    seeds=6,
)
