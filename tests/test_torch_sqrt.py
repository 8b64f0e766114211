"""The eager square root of the torch engine is correctly rounded over the whole range of float64."""

import numpy as np
import torch

from arspec_torch._namespace import XP


def numbers() -> np.ndarray:
    """Every power of two and its neighbours, squares, and random numbers of every magnitude."""
    rng = np.random.default_rng(0)
    random = np.ldexp(1 + rng.random(300_000), rng.integers(-1074, 1024, 300_000))
    powers = np.ldexp(1.0, np.arange(-1074, 1024))
    squares = np.square(rng.integers(1, 2**26, 100_000).astype(np.float64))
    near = [np.nextafter(held, side) for held in (powers, squares) for side in (0.0, np.finfo(np.float64).max)]
    special = np.array([0.0, -0.0, np.inf, np.nan, np.finfo(np.float64).max])
    return np.concatenate([random, powers, squares, *near, special])


def test_it_is_numpys() -> None:
    x = numbers()
    found, expected = XP.sqrt(torch.from_numpy(x)).numpy(), np.sqrt(x)
    wrong = (found != expected) & ~np.isnan(expected)
    assert x[wrong].tolist() == []
    assert np.isnan(found[np.isnan(x)]).all()
