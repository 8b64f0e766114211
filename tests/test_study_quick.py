"""Every study trains, in one framework each; the others are run by hand (docs/studies.md)."""

import importlib
import math

import numpy as np
import pytest

from arspec_studies._study.study import Batch, load

# One framework per study, each framework several times; two runs, so that batching is exercised.
FRAMEWORKS = {
    "sparse-autoencoder": "torch",
    "circles-grid": "torch",
    "language-model": "torch",
    "rectifiers": "keras",
    "encoder-decoder": "jax",
    "cnn": "torch",
    "transformer-features": "torch",
}


@pytest.mark.parametrize(("name", "framework"), FRAMEWORKS.items())
def test_a_study_trains_and_a_penalty_acts(name: str, framework: str) -> None:
    study = load(name)
    module = importlib.import_module(f"arspec_studies.{study.folder.name}.train_{framework}")
    variant = next(variant for variant in study.variants if variant.on_grid and not study.is_plain(variant))
    tasks = [study.task(seed, True, **variant.options) for seed in (0, 0)]
    shares: list[float] = []
    few = [type(task)(task.weights, task.x, task.y, task.order[:4], task.held_out) for task in tasks]
    trained = study.train(module, study.spec(variant.name), Batch(few, (1.0, 100.0), shares.append))
    assert shares
    assert all(0 <= share <= 1 for share in shares)
    for weights, task in zip(trained, few, strict=True):
        assert {key: array.shape for key, array in weights.items()} == {
            key: array.shape for key, array in task.weights.items()
        }
        assert any(not np.array_equal(weights[key], task.weights[key]) for key in weights)
        assert all(math.isfinite(value) for value in study.measure(weights, task).values())
    mild, strong = trained
    assert any(not np.array_equal(mild[key], strong[key]) for key in mild)
