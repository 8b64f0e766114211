"""Weights and rules between models that exist, in five frameworks: there and back to the bit."""

from collections.abc import Callable, Iterator

import jax
import numpy as np
import pytest

import arspec as ar
import keras
from arspec.port import Transfer, transfer
from port_zoo import Held, equinox_model, keras_model, linen_model, nnx_model, randomized, torch_model

RING: tuple[tuple[str, Callable[[str], Held]], ...] = (
    ("torch", torch_model),
    ("NNX", nnx_model),
    ("Equinox", equinox_model),
    ("Linen", linen_model),
)
SPECS = {
    "image": [
        ar.Rule(ar.L2(1e-2), layer="**", placement="kernel"),
        ar.Rule(ar.L1(1e-3), layer="wide", placement="depthwise_kernel"),
        ar.Rule(ar.GroupLasso(1e-2, norm_over=("input",)), layer="deep", placement="kernel"),
        ar.Rule(ar.GroupLasso(1e-2, norm_over=("height", "width")), layer="up", placement="kernel"),
        ar.Rule(ar.L1(1e-2), layer="norm", placement="scale", mean_over="mean"),
    ],
    "sequence": [
        ar.Rule(ar.L2(1e-2), layer="**", placement="recurrent_kernel"),
        ar.Rule(ar.L1(1e-3), layer="both/*", placement="bias"),
        ar.Rule(ar.GroupLasso(1e-2, norm_over=("input",)), layer="attention", placement="value_kernel"),
        ar.Rule(ar.L1(1e-2), layer="table", placement="embeddings"),
        ar.Rule(ar.L2(1e-2), layer="**", placement="shift"),
    ],
}


pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="how weights are kept does not depend on the backend of Keras"
)


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def moved(source: Held, target: Held, spec: ar.Spec) -> Transfer:
    """Move a model, with what differs between these by design."""
    found = transfer(source.layers(), target.layers(), spec, by_order=True, accept=("unbiased", "padding"))
    target.assign(dict(found.weights))
    return found


def _rounded(values: list[float]) -> list[float]:
    """Return what a float32 model gets: sums in float64, which follow the layout, rounded once."""
    return [float(np.float32(value)) for value in values]


@pytest.mark.parametrize("kind", ["image", "sequence"])
def test_a_model_comes_home_through_five_frameworks_with_its_weights_and_penalties(kind: str) -> None:
    home = keras_model(kind, keras)
    home.assign(randomized(home.layers().weights, seed=1))
    start, output = home.layers().weights, home.run()
    spec = ar.Spec(SPECS[kind])
    values = home.penalties(spec)
    assert min(values) > 0
    here = home
    for name, make in RING:
        there = make(kind)
        spec = moved(here, there, spec).spec
        # The attention of NNX computes its softmax in float32.
        rounding = np.finfo(np.float32 if (name, kind) == ("NNX", "sequence") else np.float64).eps
        assert np.abs(there.run() - output).max() < 16 * rounding * np.abs(output).max(), name
        assert _rounded(there.penalties(spec)) == _rounded(values), name
        here = there
    new = keras_model(kind, keras)
    moved(here, new, spec)
    end = new.layers().weights
    assert end.keys() == start.keys()
    assert all(np.array_equal(end[name], start[name]) for name in start)
