"""Deep sparse rectifiers: the description of the study."""

from arspec_studies._study.study import Metric, Study, Variant
from arspec_studies.rectifiers.data import measure, task

_COEFFICIENTS = (3e-2, 1e-2, 3e-3, 3e-4)

STUDY = Study(
    name="rectifiers",
    title="Deep sparse rectifiers: what L1 on the activations does",
    question="A network of rectifiers is sparse by itself. How much sparser does an L1 penalty of 0.001 on its "
    "activations make it, and what does that cost?",
    source="X. Glorot, A. Bordes, Y. Bengio, Deep sparse rectifier neural networks, AISTATS 2011: on MNIST, with L1 "
    "0.001 on the activations, test error 1.43 % (rectifier) and 1.57 % (tanh) without pre-training, and 83.4 % "
    "exact zeros in the hidden layers of the rectifier.",
    setting="A network of 64–200–200–200–10 units classifies the 8 × 8 digits of scikit-learn: 1200 to train, 597 to "
    "test, split anew for each seed; plain SGD (0.1), batches of 60, 40 epochs. The penalty is L1 on the output of all "
    "three hidden layers, summed over units and averaged over the batch.",
    reading="The paper's images are those of MNIST, its layers have 1000 units, its coefficient and learning rate were "
    "searched for; 1200 small digits cannot repeat its error rates, and none is claimed. What can be compared is the "
    "direction: zeros in a rectifier without any penalty, more of them with one, hardly any loss of accuracy up to a "
    "point, and no zeros at all with tanh, whose activations the penalty only makes smaller.",
    variants=(
        Variant("relu", "rectifier, no penalty", options={"activation": "relu"}, file="baseline"),
        Variant("relu_l1", "rectifier, L1", coefficients=_COEFFICIENTS, options={"activation": "relu"}, file="l1"),
        Variant("tanh", "tanh, no penalty", options={"activation": "tanh"}, file="baseline", against="tanh"),
        Variant("tanh_l1", "tanh, L1", options={"activation": "tanh"}, file="l1", against="tanh"),
    ),
    metrics=(
        Metric("test", "test accuracy (%)", scale=100, digits=2),
        Metric("train", "train accuracy (%)", scale=100, digits=2),
        Metric("zeros", "exact zeros (%)", None, scale=100, digits=1),
        Metric("dead", "dead units (%)", None, scale=100, digits=1),
        Metric("activation", "mean |activation|", None),
    ),
    task=task,
    measure=measure,
    seeds=10,
)
