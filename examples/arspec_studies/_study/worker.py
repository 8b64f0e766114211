"""The process of one framework: reads portions of runs, one JSON line each, trains them, and writes results.

python -m arspec_studies._study.worker iris torch --quick
"""

import argparse
import importlib
import json
import math
import sys
from collections.abc import Mapping

from arspec_studies._study.process import emit, versions
from arspec_studies._study.study import FRAMEWORKS, Batch, Study, Weights, coefficient_of, load

PACKAGES = {"torch": ("torch",), "jax": ("jax", "flax", "optax"), "keras": ("keras",)}


def main() -> None:
    """Train what standard input asks for until it ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study")
    parser.add_argument("framework", choices=FRAMEWORKS)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    study = load(options.study)
    note, packages = _prepare(options.framework)
    module = importlib.import_module(f"arspec_studies.{study.folder.name}.train_{options.framework}")
    emit("start", versions=versions(packages), note=note)
    for line in sys.stdin:
        portion = json.loads(line)
        _train(study, module, portion["variant"], portion["runs"], quick=options.quick)


def _prepare(framework: str) -> tuple[str, tuple[str, ...]]:
    """Return what a reader must know about a framework, and the packages whose versions are told."""
    if framework == "torch":
        import torch

        torch.set_num_threads(1)
    if framework == "keras":
        import keras

        backend = keras.backend.backend()
        return f"Keras backend: {backend}", ("keras", backend, f"{backend}-cpu")
    return "", PACKAGES[framework]


def _train(study: Study, module: object, variant: str, runs: list[tuple[float, int]], *, quick: bool) -> None:
    spec = study.spec(variant)
    own = coefficient_of(spec)
    options = study.variant(variant).options
    tasks = [study.task(seed, quick, **options) for _, seed in runs]
    factors = [coefficient / own if own else 1.0 for coefficient, _ in runs]
    report = Batch(tasks, factors, lambda share: emit("progress", share=share))
    for (coefficient, seed), task, weights in zip(runs, tasks, study.train(module, spec, report), strict=True):
        _require_finite(weights, f"{variant}, coefficient {coefficient}, seed {seed}")
        metrics = study.measure(weights, task)
        _require_finite(metrics, f"{variant}, coefficient {coefficient}, seed {seed}")
        shown = study.show(weights, task) if study.show is not None and seed == 0 else None
        emit("result", variant=variant, coefficient=coefficient, seed=seed, metrics=metrics, shown=shown)
    emit("done")


def _require_finite(numbers: Mapping[str, float] | Weights, where: str) -> None:
    import numpy as np

    for name, value in numbers.items():
        finite = math.isfinite(value) if isinstance(value, float) else np.isfinite(value).all()
        if not finite:
            raise FloatingPointError(f"{where}: {name} is not finite after training.")


if __name__ == "__main__":
    main()
