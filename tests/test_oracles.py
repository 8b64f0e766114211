"""The whole family against its published equations in mpmath, and against what peers publish."""

import math
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import mpmath as mp
import numpy as np
import pytest
import torch
from scipy import special

import arspec as ar
import summands
from bits import canonical
from cases import DTYPES
from equations import cells, gradient, value
from family import FAMILY, MATRIX, NAMES, hard, options_for, ordinary

MASK = np.array([[1, 1, 0], [0, 1, 1]], bool)
REDUCTIONS = ((), ("batch",), ("batch", "time"), ("feature",), NAMES)

names = pytest.mark.parametrize("name", FAMILY)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def digits_for(x: np.ndarray) -> int:
    """Digits that hold the square of the smallest number beside that of the largest, and a step of it."""
    size = np.abs(x.astype(np.float64))
    size = size[np.isfinite(size)]
    span = math.log10(size.max()) - math.log10(size[size > 0].min()) if size.any() else 0
    return 500 + int(4 * span + 4 * abs(math.log10(size[size > 0].min()))) if size.any() else 500


def operations(x: np.ndarray) -> int:
    """Roundings on the way to a number: those of its terms, and one per level of a sum."""
    return 8 + max(x.size, 1).bit_length()


def nearest(exact: Any, dtype: np.dtype[Any]) -> np.ndarray:
    """Round once to float32 or float64, and from float32 on to half precision (rule R1)."""
    wide = np.float64 if dtype == np.float64 else np.float32
    with mp.workprec(53 if wide is np.float64 else 24), np.errstate(over="ignore"):
        return np.array(float(+exact)).astype(wide).astype(dtype)


def compared(penalty: ar.Penalty, x: np.ndarray, **options: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yield what NumPy gives, the exact number and its scale: for the value, then for the gradients."""
    with mp.workdps(digits_for(x)):
        exact = cells(x, options["axes"], options["mean_over"], options.get("mask"))
        yield ar.value(penalty, x, **options), value(penalty, exact), summands.of_value(penalty, exact)
        slopes = ar.gradient(penalty, x, **options)
        for position in exact.numbers:
            slope = gradient(penalty, exact, position)
            yield slopes[position], slope, summands.of_gradient(penalty, exact, position, slope)


def check(penalty: ar.Penalty, x: np.ndarray, **options: Any) -> int:
    """Assert that every number is right, and return how many there were.

    Narrower than float64 it must be the nearest number. In float64 each of the operations on
    the way may err by half a unit in the last place of what is summed.
    """
    count = 0
    for got, exact, scale in compared(penalty, x, **options):
        largest = float(ml_dtypes.finfo(got.dtype).max)
        if got.dtype != np.float64 or abs(exact) > largest:
            assert canonical(got) == canonical(nearest(exact, got.dtype)), (got, mp.nstr(exact, 20))
        else:
            bound = operations(x) * scale * mp.mpf(2) ** -53 + mp.mpf(2) ** -1022
            assert abs(mp.mpf(float(got)) - exact) <= bound, (got, mp.nstr(exact, 20))
        count += 1
    return count


@names
@dtypes
def test_every_reduction(name: str, dtype: str) -> None:
    for seed, mean_over in enumerate(REDUCTIONS):
        x = ordinary(name, dtype, seed)
        assert check(FAMILY[name], x, axes=NAMES, mean_over=mean_over) == x.size + 1


@pytest.mark.parametrize("name", sorted(FAMILY.keys() - MATRIX))
@dtypes
def test_every_reduction_with_a_mask(name: str, dtype: str) -> None:
    """What is masked holds NaN and contributes nothing; denominators count what is valid."""
    mask = np.array([True, True, False]) if name == "decov" else MASK
    for seed, mean_over in enumerate(REDUCTIONS):
        x = np.concatenate([ordinary(name, dtype, seed), ordinary(name, dtype, seed + 9)])[: len(mask)]
        x[~mask] = np.nan
        assert check(FAMILY[name], x, axes=NAMES, mean_over=mean_over, mask=mask) == 1 + 4 * MASK.sum() + 8 * (
            name == "decov"
        )
        assert not ar.gradient(FAMILY[name], x, mask=mask)[~mask].any()


@names
@dtypes
def test_hard_inputs(name: str, dtype: str) -> None:
    for label, x in hard(name, dtype).items():
        assert check(FAMILY[name], x, **options_for(x)) == x.size + 1, label


@names
def test_slopes_by_numerical_differentiation(name: str) -> None:
    """A second check, of the gradient against the value that NumPy itself gives."""
    penalty, step = FAMILY[name], 1e-6
    for seed, mean_over in enumerate(REDUCTIONS):
        x = ordinary(name, "float64", seed)
        options: dict[str, Any] = {"mean_over": mean_over}
        numeric = np.zeros_like(x)
        for position in np.ndindex(x.shape):
            moved = [x.copy(), x.copy()]
            for sign, array in zip((-1, 1), moved, strict=True):
                array[position] += sign * step
            low, high = (float(ar.value(penalty, array, **options)) for array in moved)
            numeric[position] = (high - low) / (2 * step)
        slopes = ar.gradient(penalty, x, **options)
        assert np.abs(slopes - numeric).max() <= 1e-6 * max(np.abs(slopes).max(), 1e-3)


class TestPeers:
    """Closed forms that others publish, on their own inputs."""

    x = ordinary("l1", "float32")

    def test_keras(self) -> None:
        import keras
        from keras import regularizers

        kernel = self.x.reshape(6, 4)
        pairs: list[tuple[Any, ar.Penalty]] = [
            (regularizers.L1(0.3), ar.L1(0.3)),
            (regularizers.L2(0.7), ar.L2(0.7)),
            (regularizers.L1L2(0.2, 0.45), ar.L1L2(0.2, 0.45)),
            (regularizers.OrthogonalRegularizer(0.3, mode="rows"), ar.Orthogonal(0.3)),
            (regularizers.OrthogonalRegularizer(0.3, mode="columns"), ar.Orthogonal(0.3, mode="columns")),
        ]
        for theirs, ours in pairs:
            assert float(ar.value(ours, kernel, axes="input output")) == pytest.approx(
                float(theirs(keras.ops.convert_to_tensor(kernel))), rel=1e-5
            )

    def test_awd_lstm(self) -> None:
        """AR and TAR as its code has them: means of squares, time first."""
        states = torch.from_numpy(self.x.astype(np.float64))
        options: dict[str, Any] = {"axes": "time batch feature", "mean_over": "mean"}
        assert ar.value(ar.L2(2.0), states.numpy(), **options) == pytest.approx((2.0 * states.pow(2).mean()).item())
        theirs = (states[1:] - states[:-1]).pow(2).mean().item()
        assert ar.value(ar.TemporalDifference(1.0), states.numpy(), **options) == pytest.approx(theirs)

    def test_sparse_autoencoders(self) -> None:
        """Sum over features, mean over tokens: the L1, tanh and step losses of SAELens."""
        acts = np.maximum(self.x.reshape(6, 4), 0).astype(np.float64)
        for ours, theirs in (
            (ar.L1(1.0), acts.sum(-1).mean()),
            (ar.Tanh(1.0), np.tanh(acts).sum(-1).mean()),
            (ar.L0Step(1.0, threshold=0.1, bandwidth=0.01), (acts > 0.1).sum(-1).mean()),
        ):
            assert ar.value(ours, acts, mean_over="batchmean") == pytest.approx(theirs)

    @pytest.mark.parametrize("n", [1, 2, 9, 64])
    def test_hoyer_between_its_extremes(self, n: int) -> None:
        one, equal = np.eye(1, n)[0] * -7, np.full(n, 0.25)
        assert ar.value(ar.Hoyer(1.0), one) == 1.0
        assert ar.value(ar.Hoyer(1.0), equal) == pytest.approx(math.sqrt(n), rel=2**-52)
        assert ar.value(ar.HoyerSquare(1.0), equal) == n
        assert not ar.gradient(ar.Hoyer(1.0), equal).any()
        sparseness = (math.sqrt(n) - ar.value(ar.Hoyer(1.0), one)) / (math.sqrt(n) - 1) if n > 1 else 1.0
        assert sparseness == 1.0  # Hoyer's own measure

    def test_torch(self) -> None:
        x = torch.from_numpy(self.x).double()
        zero, total = torch.zeros_like(x), {"reduction": "sum"}
        functional = torch.nn.functional
        huber = functional.huber_loss(x, zero, delta=0.7, **total).item()
        assert ar.value(ar.Huber(1.0, delta=0.7), x.numpy()) == pytest.approx(huber)
        smooth = functional.smooth_l1_loss(x, zero, beta=0.7, **total).item()
        assert ar.value(ar.Huber(1 / 0.7, delta=0.7), x.numpy()) == pytest.approx(smooth)
        mean = torch.tensor([0.2, 0.5, 0.05], dtype=torch.float64)
        both = torch.stack([mean, 1 - mean]).log(), torch.tensor([[0.05], [0.95]], dtype=torch.float64).expand(2, 3)
        divergence = functional.kl_div(*both, **total).item()
        ours = ar.value(ar.KLSparsity(1.0, target=0.05), mean.numpy()[None], mean_over="batchmean")
        assert ours == pytest.approx(divergence)

    def test_scipy(self) -> None:
        x = self.x.astype(np.float64)
        assert ar.value(ar.PseudoHuber(1.0, delta=0.7), x) == pytest.approx(special.pseudo_huber(0.7, x).sum())
        p = ordinary("binary_entropy", "float64")
        assert ar.value(ar.BinaryEntropy(1.0), p) == pytest.approx((special.entr(p) + special.entr(1 - p)).sum())

    def test_numpy(self) -> None:
        matrix = ordinary("l1", "float64").reshape(6, 4)
        assert ar.value(ar.L2Norm(1.0), matrix) == pytest.approx(np.linalg.norm(matrix))
        off_diagonal = ~np.eye(4, dtype=bool)
        covariance = np.cov(matrix, rowvar=False, bias=True)
        assert ar.value(ar.DeCov(1.0), matrix) == pytest.approx(np.square(covariance[off_diagonal]).sum() / 2)
        gram = matrix.T @ matrix
        assert ar.value(ar.SoftOrthogonal(1.0), matrix) == pytest.approx(np.linalg.norm(gram - np.eye(4)) ** 2)
