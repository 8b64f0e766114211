"""Two circles over a grid: the description of the study."""

from arspec_studies._study.study import Metric, Study, Variant
from arspec_studies.circles_grid.data import measure, task

_COEFFICIENTS = (1e-2, 1e-3, 1e-4, 1e-5)
_OF_KERNELS = (1e-1, *_COEFFICIENTS)

STUDY = Study(
    name="circles-grid",
    title="Two circles: which penalty, where, and how much?",
    question="After the tutorial on activity regularization readers ask: does a coefficient of 0 change nothing? L1, "
    "L2 or both? Before or after the ReLU? Activations or weights? Which coefficient?",
    source="the two-circles tutorial on activity regularization, one seed on Keras 2.3, whose penalties were summed: "
    "train / test 1.000 / 0.786 without, 0.967 / 0.829 with L1 0.0001 before the ReLU, 1.000 / 0.743 after it. "
    "arspec demo repeats that table.",
    setting="Thirty noisy points train a network of 2–500–1 units with a ReLU, by Adam, 4000 full-batch epochs; "
    "seventy points test it. Data are the same for every seed, initial weights differ. Penalties are summed over the "
    "batch, as in the tutorial; L1L2 has the coefficient at both.",
    reading="Published numbers are those of one seed. Test accuracy rests on the same seventy points for every seed: "
    "the intervals speak about initial weights, not about other data. The line with coefficient 0 must equal the one "
    "without a penalty in every seed.",
    variants=(
        Variant("baseline", "no penalty", {"train": 1.0, "test": 0.786}),
        Variant("pre_l1_zero", "L1 before ReLU, coefficient 0", on_grid=False),
        Variant("pre_l1", "L1 before ReLU", {"train": 0.967, "test": 0.829}, coefficients=_COEFFICIENTS),
        Variant("post_l1", "L1 after ReLU", {"train": 1.0, "test": 0.743}, coefficients=_COEFFICIENTS),
        Variant("pre_l2", "L2 before ReLU", coefficients=_COEFFICIENTS),
        Variant("post_l2", "L2 after ReLU", coefficients=_COEFFICIENTS),
        Variant("pre_l1l2", "L1L2 before ReLU", coefficients=_COEFFICIENTS),
        Variant("kernel_l1", "L1 on the kernel", coefficients=_OF_KERNELS),
        Variant("kernel_l2", "L2 on the kernel", coefficients=_OF_KERNELS),
    ),
    metrics=(
        Metric("test", "test accuracy (%)", scale=100, digits=1),
        Metric("train", "train accuracy (%)", scale=100, digits=1),
        Metric("activation", "mean activation", None),
        Metric("zeros", "exact zeros (%)", None, scale=100, digits=1),
    ),
    task=task,
    measure=measure,
    seeds=10,
)
