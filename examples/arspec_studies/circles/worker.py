"""The part of a study that is the same in every framework: arguments, progress, results.

A worker trains every configuration and writes one JSON object per line on its standard
output, with the key "event": "start", "progress", "result" (one per configuration) and
"done". What the frameworks say about agreement goes to `evidence-<framework>.npz`.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import arspec
from arspec_studies._study.process import emit, versions
from arspec_studies.circles import agreement, measures
from arspec_studies.circles.data import CONFIGURATIONS, EPOCHS, Circles, Configuration, circles, initial_weights

RECORDS = 80

Weights = dict[str, np.ndarray]


class Study(NamedTuple):
    """What one framework brings.

    Attributes
    ----------
    framework : its name on the command line.
    packages : distributions whose versions the report names.
    train : (spec, data, initial weights stacked over seeds, epochs at which to report) ->
        iterator over the stacked weights at those epochs.
    penalty_and_gradients : (spec, weights of one network, x) -> penalty of the model and
        its gradient with respect to each parameter, through `attach`.
    value_and_gradient : (penalty, tensor, mean_over) -> value and gradient of the penalty
        of a tensor that is given, through `value`.
    note : what a reader of the results must know, such as the Keras backend.
    """

    framework: str
    packages: tuple[str, ...]
    train: Callable[[arspec.Spec, Circles, Weights, list[int]], Iterator[Weights]]
    penalty_and_gradients: Callable[[arspec.Spec, Weights, np.ndarray], tuple[Any, Weights]]
    value_and_gradient: Callable[[Any, np.ndarray, Any], tuple[Any, np.ndarray]]
    note: str = ""


def main(study: Study, arguments: list[str] | None = None) -> None:
    """Run one framework's study as a process of its own."""
    options = _parser(study.framework).parse_args(arguments)
    epochs = record_epochs(options.epochs)
    emit("start", versions=versions(study.packages), note=study.note, total=options.epochs * len(CONFIGURATIONS))
    if options.output is not None:
        agreement.write_evidence(study, options.output)
    data = circles()
    for index, configuration in enumerate(CONFIGURATIONS):
        _run(study, configuration, data, options.seeds, epochs, done=index * options.epochs)
    emit("done")


def record_epochs(epochs: int) -> list[int]:
    """Return the epochs at which accuracy is recorded: evenly spaced, the last one included."""
    step = -(-epochs // RECORDS)
    return sorted({*range(step, epochs + 1, step), epochs})


def stacked_weights(seeds: int) -> Weights:
    """Stack the initial weights of seeds 0, 1, … along a new first axis."""
    drawn = [initial_weights(seed) for seed in range(seeds)]
    return {name: np.stack([weights[name] for weights in drawn]) for name in drawn[0]}


def _run(
    study: Study, configuration: Configuration, data: Circles, seeds: int, epochs: list[int], *, done: int
) -> None:
    started, curves = time.monotonic(), {"train": [], "test": []}
    weights: Weights = {}
    for epoch, weights in zip(
        epochs, study.train(configuration.spec, data, stacked_weights(seeds), epochs), strict=True
    ):
        _require_finite(weights, configuration, epoch)
        for split, values in measures.accuracies(weights, data).items():
            curves[split].append(values)
        emit("progress", configuration=configuration.name, done=done + epoch)
    emit(
        "result",
        configuration=configuration.name,
        epochs=epochs,
        curves=curves,
        boundary=measures.boundary(weights),
        seconds=round(time.monotonic() - started, 2),
        **measures.hidden_statistics(weights, data),
    )


def _require_finite(weights: Mapping[str, np.ndarray], configuration: Configuration, epoch: int) -> None:
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise FloatingPointError(f"{configuration.name}: {name} is not finite after epoch {epoch}.")


def _parser(framework: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"The two-circles study in {framework}; writes JSON lines.")
    parser.add_argument("--seeds", type=_positive, default=5, help="networks to train per configuration")
    parser.add_argument("--epochs", type=_positive, default=EPOCHS)
    parser.add_argument("--output", type=Path, help="folder with weights.npz, for the evidence of agreement")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number >= 1")
    return number
