"""The proof that frameworks agree: same weights, same penalty, same gradients.

Two questions are asked of every framework and every spec.

On a given tensor. All frameworks get the same hidden tensor. Value and gradient of the
penalty must have the same bits as the NumPy reference: no tolerance.

Through the model. All frameworks get the same weights and points, and compute the hidden
tensor, the penalty and its gradient with respect to each parameter themselves. Matrix
products may round differently, so the difference from the reference is compared with the
bound that the rounding of float32 allows (N. J. Higham, Accuracy and Stability of
Numerical Algorithms, 2002, chapter 3): a sum of n products, added in any order, is off by
at most γ(n) · Σ |products| with γ(n) = n·u / (1 − n·u), u = 2⁻²⁴.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import arspec
from arspec_studies.circles.data import CONFIGURATIONS, HIDDEN, circles

WEIGHTS = "weights.npz"
PENALIZED = tuple(configuration for configuration in CONFIGURATIONS if configuration.spec.rules)
UNIT_ROUNDOFF = 2.0**-24


def gamma(n: int) -> float:
    """Return Higham's γ(n) for float32."""
    return n * UNIT_ROUNDOFF / (1 - n * UNIT_ROUNDOFF)


def prepare(folder: Path) -> None:
    """Save the weights, points and hidden tensors that every framework is given; drop old evidence."""
    for stale in folder.glob("evidence-*.npz"):
        stale.unlink()
    rng = np.random.default_rng(2026)
    weights = {
        "hidden/kernel": rng.uniform(-0.1, 0.1, (2, HIDDEN)),
        "hidden/bias": rng.uniform(-0.1, 0.1, HIDDEN),
        "output/kernel": rng.uniform(-0.1, 0.1, (HIDDEN, 1)),
        "output/bias": rng.uniform(-0.1, 0.1, 1),
    }
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    x = circles().x_train
    pre_activation = x @ weights["hidden/kernel"] + weights["hidden/bias"]
    pre_activation[:, :7] = 0  # the kink of |x|, where frameworks differ on their own
    given = {"given/pre_activation": pre_activation, "given/output": np.maximum(pre_activation, 0)}
    np.savez(folder / WEIGHTS, x=x, **weights, **given)


def read_weights(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]:
    """Return weights, points, and the given tensor of each placement."""
    with np.load(folder / WEIGHTS) as stored:
        arrays = dict(stored)
    x = arrays.pop("x")
    given = {name.removeprefix("given/"): arrays.pop(name) for name in list(arrays) if name.startswith("given/")}
    return arrays, x, given


def write_evidence(study: Any, folder: Path) -> None:
    """Ask one framework both questions and save its answers; runs in the worker."""
    weights, x, given = read_weights(folder)
    answers = {}
    for configuration in PENALIZED:
        (rule,) = configuration.spec.rules
        value, gradient = study.value_and_gradient(rule.penalty, given[rule.placement], rule.mean_over)
        answers[f"{configuration.name}/given/value"] = np.asarray(value)
        answers[f"{configuration.name}/given/gradient"] = gradient
        value, gradients = study.penalty_and_gradients(configuration.spec, weights, x)
        answers[f"{configuration.name}/model/value"] = np.asarray(value)
        answers.update({f"{configuration.name}/model/{name}": array for name, array in gradients.items()})
    np.savez(evidence_path(folder, study.framework), **answers)


def evidence_path(folder: Path, framework: str) -> Path:
    """Return where one framework leaves its answers."""
    return folder / f"evidence-{framework}.npz"


@dataclass(frozen=True, slots=True)
class Row:
    """How one number (or array) of one framework compares with the reference.

    Attributes
    ----------
    framework, configuration, quantity : what is compared, such as "given/value".
    elements : how many numbers; none of them agrees where dtype or shape is wrong.
    identical : how many of them have the same bits.
    difference : largest difference, relative to the largest magnitude of the reference.
    of_bound : largest difference as a fraction of the bound; 0 or inf where it is exact.
    shown, reference : the number itself and what the reference gives, for a value.
    """

    framework: str
    configuration: str
    quantity: str
    elements: int
    identical: int
    difference: float
    of_bound: float
    shown: float | None = None
    reference: float | None = None

    @property
    def exact(self) -> bool:
        """Whether equal bits are asked for."""
        return self.quantity.startswith("given/")

    @property
    def agrees(self) -> bool:
        """Whether the comparison holds."""
        return self.identical == self.elements if self.exact else self.of_bound <= 1


def compare(folder: Path, framework: str) -> list[Row]:
    """Compare the evidence of one framework with the NumPy reference."""
    weights, x, given = read_weights(folder)
    with np.load(evidence_path(folder, framework)) as stored:
        evidence = dict(stored)
    rows = []
    for configuration in PENALIZED:
        expected = {**_given_reference(configuration, given), **_model_reference(configuration, weights, x)}
        for quantity, (reference, bound) in expected.items():
            got = evidence[f"{configuration.name}/{quantity}"]
            rows.append(_row(framework, configuration.name, quantity, got, reference, bound))
    return rows


def _row(framework: str, name: str, quantity: str, got: np.ndarray, reference: np.ndarray, bound: Any) -> Row:
    if got.shape != reference.shape or got.dtype != np.float32:
        return Row(framework, name, quantity, reference.size, 0, float("inf"), float("inf"))
    is_value = reference.shape == ()
    difference = np.abs(got.astype(np.float64) - reference)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_bound = np.where(difference == 0, 0.0, difference / bound)
    return Row(
        framework,
        name,
        quantity,
        got.size,
        int(np.sum(_bits(got) == _bits(reference))),
        float(difference.max() / max(np.abs(reference).max(), np.finfo(np.float32).tiny)),
        float(of_bound.max()),
        float(got) if is_value else None,
        float(reference) if is_value else None,
    )


def _bits(x: np.ndarray) -> np.ndarray:
    """Bits of float32 numbers; -0 counts as +0."""
    return (np.asarray(x, np.float32) + np.float32(0)).view(np.uint32)


Expected = dict[str, tuple[np.ndarray, Any]]


def _given_reference(configuration: Any, given: dict[str, np.ndarray]) -> Expected:
    (rule,) = configuration.spec.rules
    tensor = given[rule.placement]
    value = arspec.value(rule.penalty, tensor, mean_over=rule.mean_over)
    gradient = arspec.gradient(rule.penalty, tensor, mean_over=rule.mean_over)
    return {"given/value": (np.asarray(value), 0.0), "given/gradient": (gradient, 0.0)}


def _model_reference(configuration: Any, weights: dict[str, np.ndarray], x: np.ndarray) -> Expected:
    """Return penalty and parameter gradients in float64, each with its bound.

    z = x·K + b has an error of at most δ = γ(3)·(|x|·|K| + |b|). |z| and relu(z) pass it on
    unchanged, and the penalty weighs every entry by c. Its gradient at z is ±c or 0, rounded
    to float32; where |z| <= δ the sign may differ, by at most 2c.
    """
    (rule,) = configuration.spec.rules
    kernel, bias, points = (a.astype(np.float64) for a in (weights["hidden/kernel"], weights["hidden/bias"], x))
    z = points @ kernel + bias
    delta = gamma(3) * (np.abs(points) @ np.abs(kernel) + np.abs(bias))
    tensor = z if rule.placement == "pre_activation" else np.maximum(z, 0)
    at_tensor = arspec.gradient(rule.penalty, tensor, mean_over=rule.mean_over).astype(np.float32).astype(np.float64)
    at_z = at_tensor if rule.placement == "pre_activation" else at_tensor * (z > 0)
    slope = np.abs(at_tensor).max()
    unsure = np.where(np.abs(z) <= delta, 2 * slope, 0.0)
    value = np.asarray(arspec.value(rule.penalty, tensor, mean_over=rule.mean_over))
    n = len(points)
    per_product = gamma(n + 1) * np.abs(at_z) + unsure
    return {
        "model/value": (value, slope * delta.sum() + UNIT_ROUNDOFF * abs(float(value))),
        "model/hidden/kernel": (points.T @ at_z, np.abs(points).T @ per_product),
        "model/hidden/bias": (at_z.sum(axis=0), per_product.sum(axis=0)),
        "model/output/kernel": (np.zeros((HIDDEN, 1)), 0.0),
        "model/output/bias": (np.zeros(1), 0.0),
    }
