"""The data, the initial weights and the specs that all frameworks share."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import arspec

HIDDEN = 500
LEARNING_RATE = 1e-3
EPOCHS = 4000


@dataclass(frozen=True, slots=True)
class Configuration:
    """One way to regularize the network.

    Attributes
    ----------
    name : the spec file beside this module, without ".json".
    title : how the tables call it.
    published : train and test accuracy of the tutorial, one seed on Keras 2.3, whose
        activity losses were summed over the batch; None where it has no such row.
    """

    name: str
    title: str
    published: tuple[float, float] | None

    @property
    def path(self) -> Path:
        """The spec file."""
        return Path(__file__).with_name(f"{self.name}.json")

    @property
    def spec(self) -> arspec.Spec:
        """The spec in that file."""
        return arspec.load(self.path)


CONFIGURATIONS = (
    Configuration("baseline", "no penalty", (1.000, 0.786)),
    Configuration("pre_activation_sum", "L1 before ReLU, sum", (0.967, 0.829)),
    Configuration("post_activation_sum", "L1 after ReLU, sum", (1.000, 0.743)),
    Configuration("pre_activation_batchmean", "L1 before ReLU, batch mean", None),
    Configuration("post_activation_batchmean", "L1 after ReLU, batch mean", None),
)


@dataclass(frozen=True, slots=True)
class Circles:
    """Points in the plane, float32 of shape (points, 2), and their labels, float32 of 0 and 1."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def circles() -> Circles:
    """Make the data set of the tutorial: 100 points, the first 30 to train, 70 to test."""
    from sklearn.datasets import make_circles

    x, y = make_circles(n_samples=100, noise=0.1, random_state=1)
    x, y = x.astype(np.float32), y.astype(np.float32)
    return Circles(x[:30], y[:30], x[30:], y[30:])


def initial_weights(seed: int) -> dict[str, np.ndarray]:
    """Draw the weights of a network as Keras would: Glorot-uniform kernels, zero biases.

    Returns
    -------
    Float32 arrays "hidden/kernel" (2, 500), "hidden/bias" (500,), "output/kernel" (500, 1)
    and "output/bias" (1,), kernels with the input axis first. The same seed starts every
    framework and every configuration from the same numbers.
    """
    rng = np.random.default_rng(seed)
    return {
        "hidden/kernel": _glorot_uniform(rng, 2, HIDDEN),
        "hidden/bias": np.zeros(HIDDEN, np.float32),
        "output/kernel": _glorot_uniform(rng, HIDDEN, 1),
        "output/bias": np.zeros(1, np.float32),
    }


def _glorot_uniform(rng: np.random.Generator, inputs: int, outputs: int) -> np.ndarray:
    limit = np.sqrt(6 / (inputs + outputs))
    return rng.uniform(-limit, limit, (inputs, outputs)).astype(np.float32)


GRID_SIDE = 48
GRID_EXTENT = 1.5


def grid() -> np.ndarray:
    """Points of a square lattice over the plane, shape (GRID_SIDE², 2), for the decision boundary."""
    ticks = np.linspace(-GRID_EXTENT, GRID_EXTENT, GRID_SIDE, dtype=np.float32)
    return np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
