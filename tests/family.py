"""Every penalty of the family with ordinary parameters, and inputs on which a formula may fail."""

from typing import Any

import ml_dtypes
import numpy as np

import arspec as ar
from cases import DTYPES

# Not decimals: 7x/10 of a float32 x lies half-way between two others one time in ten, and then
# the float64 next to 0.7 decides by its last digit, where float64 arithmetic has none to spare.
C, D = 0.3141592653589793, 0.7071067811865476

FAMILY: dict[str, ar.Penalty] = {
    "l1": ar.L1(C),
    "l2": ar.L2(D),
    "l1_l2": ar.L1L2(C, D),
    "lp 0.5": ar.Lp(D, p=0.5),
    "lp 1.3": ar.Lp(D, p=1.3),
    "lp 3": ar.Lp(D, p=3),
    "group_lasso": ar.GroupLasso(D, norm_over=("feature",)),
    "group_lasso scaled": ar.GroupLasso(D, norm_over=("batch", "feature"), size_scaled=True),
    "l2_norm": ar.L2Norm(C),
    "linf": ar.LInf(C),
    "hoyer": ar.Hoyer(C),
    "hoyer_square": ar.HoyerSquare(C),
    "huber": ar.Huber(C, delta=0.7),
    "pseudo_huber": ar.PseudoHuber(C, delta=0.7),
    "smooth_l1": ar.SmoothL1(C, epsilon=0.01),
    "student_t": ar.StudentT(C, scale=0.7),
    "tanh": ar.Tanh(C, scale=1.7),
    "kl_sparsity": ar.KLSparsity(C, target=0.05),
    "binary_entropy": ar.BinaryEntropy(C),
    "binarize": ar.Binarize(C),
    "temporal_difference": ar.TemporalDifference(C),
    "norm_stabilizer": ar.NormStabilizer(C),
    "total_variation": ar.TotalVariation(C, over=("time", "feature")),
    "orthogonal rows": ar.Orthogonal(C),
    "orthogonal columns": ar.Orthogonal(C, mode="columns"),
    "soft_orthogonal columns": ar.SoftOrthogonal(C),
    "soft_orthogonal rows": ar.SoftOrthogonal(C, mode="rows"),
    "decov": ar.DeCov(C),
    "l0_step": ar.L0Step(C, threshold=0.2, bandwidth=0.1),
    "sum": ar.L1(C) + 2 * ar.Huber(D, delta=1),
}
MATRIX = {name for name in FAMILY if "orthogonal" in name}  # they refuse a mask
ELEMENTWISE = {name for name, penalty in FAMILY.items() if penalty.elementwise and name != "sum"} | {"sum"}
PROBABILITIES = {"kl_sparsity", "binary_entropy"}
SHAPE, NAMES = (2, 3, 4), ("batch", "time", "feature")


def ordinary(name: str, dtype: str, seed: int = 0) -> np.ndarray:
    """Random numbers that the penalty is made for, over a few magnitudes."""
    rng = np.random.default_rng(seed)
    if name in PROBABILITIES:
        return (rng.random(SHAPE) * 0.8 + 0.1).astype(DTYPES[dtype])
    return (rng.standard_normal(SHAPE) * np.exp2(rng.integers(-4, 4, SHAPE))).astype(DTYPES[dtype])


def ulps(center: float, dtype: str, steps: range) -> np.ndarray:
    """The numbers of a dtype around `center`, in units of its last place."""
    near = np.array(center).astype(DTYPES[dtype])
    eps = float(ml_dtypes.finfo(DTYPES[dtype]).eps)
    return np.array([float(near) * (1 + step * eps) for step in steps])


def extremes(dtype: str) -> np.ndarray:
    """The largest and smallest numbers of a dtype and some between, of both signs."""
    info = ml_dtypes.finfo(DTYPES[dtype])
    largest, smallest = float(info.max), float(info.smallest_normal)
    if dtype == "float64":  # sums and lengths stay below the largest number
        largest, smallest = 1e300, 1e-300
    return np.array([largest, -smallest, largest**0.5, -(smallest**0.5), 1.0, 0.25 * largest])


def near_orthogonal() -> np.ndarray:
    """A 4 × 3 matrix with orthonormal columns, as far as its dtype can hold it."""
    return np.linalg.qr(np.random.default_rng(1).standard_normal((4, 3)))[0]


def hard(name: str, dtype: str) -> dict[str, np.ndarray]:
    """Inputs where a formula cancels, overflows or underflows unless it is written with care."""
    tiny = np.array([1e-2, -1e-4, 3e-5, 1e-3, -2e-4, 7e-5])
    rows = np.array([[1.0, 2, 3], [2, 4, 6.25], [3, 0, -1], [1, -2, 1.0625]])
    inputs: dict[str, dict[str, np.ndarray]] = {
        "hoyer": {"equal": np.full(7, 0.3), "one": np.array([0, -3.3, 0, 0]), "nearly": 1 + 1e-3 * tiny},
        "pseudo_huber": {"tiny": tiny, "tinier": 1e-3 * tiny, "delta": ulps(0.7, dtype, range(-3, 4))},
        "huber": {"tiny": tiny, "delta": ulps(0.7, dtype, range(-3, 4))},
        "smooth_l1": {"tiny": tiny, "root of epsilon": ulps(0.1, dtype, range(-3, 4))},
        "student_t": {"tiny": tiny, "scale": ulps(0.7, dtype, range(-3, 4))},
        "tanh": {"tails": np.array([1.0, -3, 5, -8, 10, 20, 40]), "tiny": tiny},
        "binary_entropy": {
            "half": ulps(0.5, dtype, range(-4, 5)),
            "zero": np.array([1e-2, 1e-3, 1e-4, 6.2e-5]),
            "one": np.minimum(ulps(1.0, dtype, range(-8, -1)), 1 - 2.0**-53),
            "quarters": ulps(0.25, dtype, range(-2, 3)) * [[1], [3]],
        },
        "kl_sparsity": {
            "target": ulps(0.05, dtype, range(-3, 4)).reshape(1, 7),
            "mean at target": np.array([[0.1, 0.0625], [0.0, 0.0375]]),
            "one step away": np.array([[0.05, 0.05], [0.05, ulps(0.05, dtype, range(1, 2))[0]]]),
            "edges": np.array([[1e-4, 0.99], [7e-5, 0.98]]),
        },
        "binarize": {"zero": tiny, "half": ulps(0.5, dtype, range(-3, 4)), "one": ulps(1.0, dtype, range(-3, 4))},
        "temporal_difference": {"ramp": np.arange(12.0).reshape(1, 4, 3) / 8, "offset": 100 + tiny.reshape(1, 3, 2)},
        "norm_stabilizer": {"offset": 100 + tiny.reshape(1, 3, 2)},
        "orthogonal": {"rows": rows, "nearly": near_orthogonal(), "exactly": np.array([[1.0, 2, 3], [3, 0, -1]])},
        "soft_orthogonal": {"rows": rows, "nearly": near_orthogonal(), "exactly": np.eye(3)},
        "decov": {"offset": 100 + tiny.reshape(3, 2), "rows": rows},
    }
    inputs["hoyer_square"] = inputs["hoyer"]
    found = inputs.get(FAMILY[name].name, {})
    safe_at_any_magnitude = {"l1", "lp", "group_lasso", "l2_norm", "linf", "hoyer", "hoyer_square", "huber"}
    safe_at_any_magnitude |= {"pseudo_huber", "smooth_l1", "student_t", "tanh"}
    if FAMILY[name].name in safe_at_any_magnitude:
        found = {
            **found,
            "extremes": extremes(dtype).reshape(2, 1, 3) if name == "group_lasso scaled" else extremes(dtype),
        }
    return {label: x.astype(DTYPES[dtype]) for label, x in found.items()}


def options_for(x: np.ndarray, **options: Any) -> dict[str, Any]:
    """Name the axes of an input of `hard` by its rank, and average KL over the batch."""
    names = {1: ("feature",), 2: ("batch", "feature"), 3: NAMES}[x.ndim]
    return {"axes": names, "mean_over": ("batch",) if "batch" in names else (), **options}
