"""Study: what one experiment is, for every framework alike."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import arspec

Weights = dict[str, np.ndarray]

# Folders with a study, in the order of `arspec study list`.
STUDIES = (
    *("iris", "sparse-autoencoder", "circles-grid", "language-model", "rectifiers"),
    *("encoder-decoder", "cnn", "transformer-features"),
)
FRAMEWORKS = ("torch", "jax", "keras")
# That of Keras, whose Adam the others follow: where it is added matters to small gradients.
ADAM_EPSILON = 1e-7


@dataclass(frozen=True, slots=True)
class Task:
    """What one seed stands for, in NumPy, so that every framework starts from the same numbers.

    Attributes
    ----------
    weights : initial weights by "layer/placement", float32, in the layout of `arspec.layers`.
    x, y : examples to train on; the first axis counts them.
    order : which examples each step sees, integers of shape (steps, batch).
    held_out : what `measure` needs besides, such as a test set.
    """

    weights: Weights
    x: np.ndarray
    y: np.ndarray
    order: np.ndarray
    held_out: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """Runs to train with one spec: a task and a factor of the penalty for each.

    Attributes
    ----------
    tasks : one per run; all their arrays have the same shapes.
    factors : by how much the coefficients of the spec are multiplied.
    report : to be called with the share that is done, from 0 to 1.
    """

    tasks: Sequence[Task]
    factors: Sequence[float]
    report: Callable[[float], None] = lambda share: None


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that `measure` gives, and how it is shown: multiplied by `scale`, with `digits` decimals."""

    name: str
    title: str
    higher_is_better: bool | None = True
    scale: float = 1.0
    digits: int = 3

    def shown(self, value: float) -> str:
        return f"{self.scale * value:.{self.digits}f}"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to regularize.

    Attributes
    ----------
    name : of the variant, and of its spec file unless `file` says another.
    title : in tables.
    published : by metric, what the source reports, in the unit of `measure`.
    on_grid : whether a grid of coefficients applies to it.
    coefficients : where no grid is asked for, beside that of the spec file.
    options : what `task` is told, such as how many units the network has.
    file : the spec file in the study's folder, without ".json", where variants share one.
    against : the variant without a rule that it is compared with; the study's first by default.
    """

    name: str
    title: str
    published: Mapping[str, float] = field(default_factory=dict)
    on_grid: bool = True
    coefficients: tuple[float, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""
    against: str = ""


def _train(module: Any, spec: arspec.Spec, batch: Batch) -> list[Weights]:
    return module.train(spec, batch)


@dataclass(frozen=True, slots=True)
class Study:
    """One experiment.

    Attributes
    ----------
    name, title, question : what it is called and what it asks.
    source : where the experiment comes from.
    setting : what is trained on what; `reading`: how to read the numbers, and why they may
        differ from what was published.
    variants : ways to regularize; the first has no rule.
    metrics : what is measured; the first one is the headline.
    task : (seed, quick, and the options of the variant) -> Task.
    measure : (trained weights, task) -> numbers by metric.
    seeds, quick_seeds : how many by default. `seed` is what one of them stands for.
    show : (trained weights, task) -> anything JSON can hold, kept for the first seed.
    figures : (rows of one framework) -> pairs of an SVG and its caption.
    needs : packages that its data come from, whatever the framework.
    train : how the module of a framework is asked to train.
    """

    name: str
    title: str
    question: str
    source: str
    setting: str
    reading: str
    variants: tuple[Variant, ...]
    metrics: tuple[Metric, ...]
    task: Callable[..., Task]
    measure: Callable[[Weights, Task], dict[str, float]]
    seeds: int
    quick_seeds: int = 2
    seed: str = "seed"
    show: Callable[[Weights, Task], Any] | None = None
    figures: Callable[[Sequence[Any]], list[tuple[str, str]]] | None = None
    needs: tuple[str, ...] = ()
    train: Callable[[Any, arspec.Spec, Batch], list[Weights]] = _train

    @property
    def folder(self) -> Path:
        """Where the spec files stand."""
        return Path(__file__).parent.parent / self.name.replace("-", "_")

    def path(self, variant: str) -> Path:
        """Return the spec file of a variant."""
        return self.folder / f"{self.variant(variant).file or variant}.json"

    def spec(self, variant: str) -> arspec.Spec:
        """Return the spec of a variant."""
        return arspec.load(self.path(variant))

    def variant(self, name: str) -> Variant:
        """Return a variant by name."""
        return next(variant for variant in self.variants if variant.name == name)

    @property
    def baseline(self) -> Variant:
        """The first variant, which has no rule."""
        return self.variants[0]

    def against(self, variant: Variant) -> Variant:
        """Return the variant without a rule that another is compared with."""
        return self.variant(variant.against or self.baseline.name)

    def is_plain(self, variant: Variant) -> bool:
        """Return whether a variant has no rule."""
        return self.against(variant) == variant

    @property
    def headline(self) -> Metric:
        """The metric that comes first."""
        return self.metrics[0]


def load(name: str) -> Study:
    """Import a study by name."""
    return importlib.import_module(f"arspec_studies.{name.replace('-', '_')}.study").STUDY


def coefficient_of(spec: arspec.Spec) -> float:
    """Return the coefficient of the first rule; that of `l1` where a penalty has two, 0 without a rule."""
    if not spec.rules:
        return 0.0
    penalty: Any = spec.rules[0].penalty
    return float(penalty.coefficient if hasattr(penalty, "coefficient") else penalty.l1)


def scaled(spec: arspec.Spec, factor: float) -> arspec.Spec:
    """Return a spec whose coefficients are multiplied by `factor`; the same one for a factor of 1."""
    if factor == 1:
        return spec
    return arspec.Spec(
        arspec.Rule(
            factor * rule.penalty,
            layer=rule.layer,
            placement=rule.placement,
            mean_over=rule.mean_over,
            schedule=rule.schedule,
            numerics=rule.numerics,
            when=rule.when,
            trainable_only=rule.trainable_only,
        )
        for rule in spec.rules
    )
