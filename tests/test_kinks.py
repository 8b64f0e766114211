"""The kink table is true: its gradients are subgradients, the shortest where it says so, everywhere."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

import arspec as ar
from arspec.kinks import KINKS, Kink
from bits import assert_same_bits
from cases import DTYPES
from modes import jax_modes, tensorflow_modes, torch_modes

MODES = {
    "torch_eager": torch_modes.MODES["torch_eager"],
    "tf_eager": tensorflow_modes.MODES["tf_eager"],
    "jax_jit": jax_modes.MODES["jax_jit"],
}
kinks = pytest.mark.parametrize("kink", KINKS, ids=lambda kink: kink.id)
convex_kinks = pytest.mark.parametrize("kink", [k for k in KINKS if k.lower is not None], ids=lambda kink: kink.id)


def point(kink: Kink, dtype: str = "float64") -> np.ndarray:
    return np.array(kink.x, np.float64).astype(DTYPES[dtype])


def options(kink: Kink) -> dict[str, Any]:
    return {"axes": kink.axes, "mean_over": kink.mean_over}


def value(kink: Kink, x: np.ndarray) -> float:
    return float(ar.value(kink.penalty, x, **options(kink)))


def assert_defined(kink: Kink, found: Any, gradient: Any, dtype: str) -> None:
    """Assert the value and the gradient of the table, with their dtypes."""
    expected = np.array(kink.value).astype("float64" if dtype == "float64" else "float32")
    compared = assert_same_bits(found, expected, f"{kink.id} value")
    expected = np.array(kink.gradient, np.float64).astype(DTYPES[dtype])
    assert compared + assert_same_bits(gradient, expected, f"{kink.id} gradient") > 1


@kinks
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_reference_gives_what_the_table_says(kink: Kink, dtype: str) -> None:
    x = point(kink, dtype)
    gradient = ar.gradient(kink.penalty, x, **options(kink))
    assert_defined(kink, ar.value(kink.penalty, x, **options(kink)), gradient, dtype)


@kinks
@pytest.mark.parametrize("mode", MODES)
def test_every_engine_gives_what_the_table_says(kink: Kink, mode: str) -> None:
    assert_defined(kink, *MODES[mode](kink.penalty, point(kink, "float32"), **options(kink)), "float32")


@convex_kinks
def test_bounds_hold_the_gradient(kink: Kink) -> None:
    lower, gradient, upper = (np.array(part) for part in (kink.lower, kink.gradient, kink.upper))
    assert lower.shape == gradient.shape == upper.shape == point(kink).shape
    assert (lower <= gradient).all()
    assert (gradient <= upper).all()


@convex_kinks
def test_bounds_are_those_of_the_subdifferential(kink: Kink) -> None:
    """One entry at a time, they are the slopes of the penalty to either side."""
    x, step = point(kink), 2.0**-30
    for position in np.ndindex(x.shape):
        for sign, bound in ((-1, kink.lower), (1, kink.upper)):
            moved = x.copy()
            moved[position] += sign * step
            slope = sign * (value(kink, moved) - value(kink, x)) / step
            assert slope == pytest.approx(np.array(bound)[position], abs=1e-4)


@convex_kinks
def test_gradients_are_subgradients(kink: Kink) -> None:
    """A convex function lies above each of its supporting planes."""
    x, slope, rng = point(kink), np.array(kink.gradient), np.random.default_rng(0)
    for scale in (1e-3, 1.0, 10.0):
        for _ in range(50):
            y = x + scale * rng.standard_normal(x.shape)
            y = np.clip(y, 0, 1) if kink.penalty.name == "kl_sparsity" else y
            assert value(kink, y) >= value(kink, x) + (slope * (y - x)).sum() - 1e-12


@convex_kinks
def test_gradients_are_the_shortest_subgradients(kink: Kink) -> None:
    """Down the shortest subgradient g, and no other, the penalty falls at the rate ‖g‖²."""
    x, slope, step = point(kink), np.array(kink.gradient), 2.0**-30
    rate = (value(kink, x) - value(kink, x - step * slope)) / step
    falls_as_it_should = math.isclose(rate, np.square(slope).sum(), rel_tol=1e-4, abs_tol=1e-6)
    assert falls_as_it_should == kink.minimum_norm


def test_every_penalty_that_has_a_kink_is_in_the_table() -> None:
    without = {"l2", "soft_orthogonal"}
    listed = {kink.penalty.name for kink in KINKS}
    assert {name for name, cls in ar.registered().items() if cls.__module__.startswith("arspec.")} - listed == without


def test_the_table_is_data() -> None:
    assert len({kink.id for kink in KINKS}) == len(KINKS) > 40
    for kink in KINKS:
        assert hash(kink) == hash(dataclasses.replace(kink))
        assert (kink.lower is None) == (kink.upper is None)
        assert kink.note
    assert ar.kinks.KINKS is KINKS
