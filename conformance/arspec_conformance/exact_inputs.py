"""Penalties and inputs on which every partial result is a small binary fraction.

Float32 arithmetic makes no rounding on them, whatever the order of the sums and whether or
not products are fused: a right engine has every bit, on any device. Groups hold patterns
whose Euclidean norm is a power of two, so that even x/‖x‖ is such a fraction.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

import arspec as ar
from arspec.penalties import Penalty

SHAPE = (4, 3, 7)  # batch, time, feature: a mean over the batch divides by a power of two
Pattern = tuple[int, ...]
PATTERNS: tuple[Pattern, ...] = ((1,), (1, 1, 1, 1), (3, 2, 1, 1, 1), (2, 2, 2, 1, 1, 1, 1), ())
LENGTHS = (1, 2, 4, 4, 0)


@dataclass(frozen=True, slots=True)
class ExactInput:
    """One penalty with dyadic parameters, and how integers become its input.

    Attributes
    ----------
    penalty : from a coefficient.
    numbers : from an int array of the shape SHAPE, of entries within ±8, to x.
    gradient_too : whether the gradient is a binary fraction as well.
    axes, mean_over : as in `arspec.value`.
    """

    penalty: Callable[[float], Penalty]
    numbers: Callable[[np.ndarray], np.ndarray]
    gradient_too: bool = True
    axes: str | None = None
    mean_over: str = "batchmean"


def eighths(k: np.ndarray) -> np.ndarray:
    return k / 8


def halves(k: np.ndarray) -> np.ndarray:
    return k / 2


def groups(k: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Fill every group over `axes` with a pattern, moved, signed and scaled as the integers say."""
    kept = [i for i in range(k.ndim) if i not in axes]
    moved = np.transpose(k, (*kept, *axes))
    flat = moved.reshape(*moved.shape[: len(kept)], -1)
    filled = np.zeros(flat.shape)
    for index in product(*map(range, flat.shape[:-1])):
        row = flat[index]
        which, shift, scale = int(row[0]) % len(PATTERNS), int(row[1]), 2.0 ** (int(row[2]) % 3 - 1)
        pattern = PATTERNS[which] if len(PATTERNS[which]) <= len(row) else (1,)
        padded = np.zeros(len(row))
        padded[: len(pattern)] = pattern
        filled[index] = scale * np.roll(padded, shift) * np.where(row < 0, -1, 1)
    return np.transpose(filled.reshape(moved.shape), np.argsort((*kept, *axes)))


def _largest_shared(k: np.ndarray) -> np.ndarray:
    """One, two or four entries of each example have the largest magnitude."""
    x = k / 8
    for example in x.reshape(len(x), -1):
        for i in range(1 << (int(example[0] * 8) % 3)):
            example[3 * i + 1] = 2.0 if i % 2 else -2.0
    return x


def _at_target(k: np.ndarray) -> np.ndarray:
    """Probabilities whose mean over the batch of four is one quarter."""
    step = np.abs(k[0]) / 64
    return np.stack([0.25 + step, 0.25 - step, 0.25 + step / 2, 0.25 - step / 2])


def _two_rows(k: np.ndarray) -> np.ndarray:
    """Two rows with one entry each: parallel, or at a right angle."""
    rows = np.zeros((2, 7))
    for row, given in zip(rows, k[0], strict=False):
        row[int(given[0]) % 2] = (-1 if given[1] < 0 else 1) * 2.0 ** (int(given[2]) % 3)
    return rows


def _integers(k: np.ndarray) -> np.ndarray:
    return (k[0] // 3).astype(float)


BY_PENALTY: Mapping[str, tuple[ExactInput, ...]] = {
    "l1": (ExactInput(ar.L1, eighths),),
    "l2": (ExactInput(ar.L2, eighths),),
    "l1_l2": (ExactInput(lambda c: ar.L1L2(c, c / 2), eighths),),
    "lp": (ExactInput(lambda c: ar.Lp(c, p=2), eighths), ExactInput(lambda c: ar.Lp(c, p=1), eighths)),
    "group_lasso": (
        ExactInput(lambda c: ar.GroupLasso(c, norm_over=("feature",)), lambda k: groups(k, (2,))),
        ExactInput(
            lambda c: ar.GroupLasso(c, norm_over=("batch",), size_scaled=True),
            lambda k: groups(k, (0,)),
            mean_over="sum",
        ),
    ),
    "l2_norm": (ExactInput(ar.L2Norm, lambda k: groups(k, (1, 2))),),
    "linf": (ExactInput(ar.LInf, _largest_shared),),
    "hoyer": (ExactInput(ar.Hoyer, lambda k: groups(k, (1, 2))),),
    "hoyer_square": (ExactInput(ar.HoyerSquare, lambda k: groups(k, (1, 2))),),
    "huber": (ExactInput(lambda c: ar.Huber(c, delta=0.5), eighths),),
    "pseudo_huber": (ExactInput(lambda c: ar.PseudoHuber(c, delta=4), lambda k: 3 * np.sign(k), False),),
    "smooth_l1": (ExactInput(lambda c: ar.SmoothL1(c, epsilon=16), lambda k: 3 * np.sign(k), False),),
    "tanh": (ExactInput(ar.Tanh, lambda k: 1000.0 * k),),
    "kl_sparsity": (ExactInput(lambda c: ar.KLSparsity(c, target=0.25), _at_target),),
    "binarize": (ExactInput(ar.Binarize, halves),),
    "temporal_difference": (ExactInput(ar.TemporalDifference, eighths),),
    "norm_stabilizer": (ExactInput(ar.NormStabilizer, lambda k: groups(k, (2,))),),
    "total_variation": (ExactInput(lambda c: ar.TotalVariation(c, over=("time", "feature")), eighths),),
    "orthogonal": (ExactInput(ar.Orthogonal, _two_rows, axes="input output", mean_over="sum"),),
    "soft_orthogonal": (
        ExactInput(ar.SoftOrthogonal, _integers, axes="input output", mean_over="sum"),
        ExactInput(lambda c: ar.SoftOrthogonal(c, mode="rows"), _integers, axes="input output", mean_over="sum"),
    ),
    "decov": (ExactInput(ar.DeCov, lambda k: (k[:, 0] // 2).astype(float), mean_over="sum"),),
    "l0_step": (ExactInput(lambda c: ar.L0Step(c, threshold=0.5, bandwidth=0.25), eighths),),
    "sum": (ExactInput(lambda c: ar.L1(c) + 2 * ar.Huber(c, delta=1), eighths),),
}
