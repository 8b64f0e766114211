"""Three spec files, each for a model that stands in every framework with the same weights.

`MODELS` holds the NumPy network of each: its layers, an input, a mask. A framework's test
gives its model the weights of the network, attaches the file, and compares.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import arspec as ar
from arspec.layers import Network, Penalties
from reference_layers import IMAGE, SEQUENCE, Array, convolution, lstm

SPECS = Path(__file__).parents[1] / "examples" / "specs"
LENGTHS = (7, 3, 1)
VALID = np.arange(SEQUENCE.shape[1]) < np.array(LENGTHS)[:, None]
# Rounding in float64: at most a few hundred roundings, each relative to the largest number of its kind.
ROUNDINGS = 500 * float(np.finfo(np.float64).eps)


class Model(NamedTuple):
    """A network of reference layers and what it is given."""

    network: Network
    x: Array
    mask: Any = None

    def expected(self, name: str) -> Penalties:
        return self.network.penalties(load(name), self.x, mask=self.mask)


def load(name: str) -> ar.Spec:
    """Read one of the files."""
    return ar.load(SPECS / f"{name}.json")


def _channels() -> Model:
    first = convolution(3, 3, activation="relu")
    second = convolution(3, 3, inputs=first.kernel.shape[-1], outputs=3)
    return Model(Network({"conv0": first, "conv1": second}), IMAGE)


MODELS = {
    "ar_tar": Model(Network({"lstm": lstm()}), SEQUENCE),
    "lstm_states": Model(Network({"lstm": lstm(zero_output_for_mask=True)}), SEQUENCE, VALID),
    "channels": _channels(),
}


def close(found: Any, expected: Any, what: str) -> None:
    """Assert equality within the rounding of float64."""
    largest = float(np.max(np.abs(expected), initial=0.0))
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=ROUNDINGS * largest, err_msg=what)
