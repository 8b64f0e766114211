"""Penalties of groups, means and steps, cut along an axis they do not couple: the same bits as whole."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch

import arspec as ar
import arspec_torch
from arspec import _blocks, _evaluate
from arspec._numpy import NumpyNamespace
from arspec_torch import _kernels, _plain
from bits import assert_same_bits

COUPLED = {
    "kl_sparsity": ar.KLSparsity(0.3, target=0.05),
    "l2_norm": ar.L2Norm(0.3),
    "hoyer": ar.Hoyer(0.3),
    "hoyer_square": ar.HoyerSquare(0.3),
    "group_lasso": ar.GroupLasso(0.3, norm_over=("feature",), size_scaled=True),
    "group_lasso_in_time": ar.GroupLasso(0.3, norm_over=("time",)),
    "temporal_difference": ar.TemporalDifference(0.3),
    "total_variation": ar.TotalVariation(0.3, over=("time", "feature")),
    "norm_stabilizer": ar.NormStabilizer(0.3),
    "ar_and_tar": ar.L2(2.0) + ar.TemporalDifference(1.0),
}
SHAPE = (19, 23, 29)


class Whole(NumpyNamespace):
    """The reference without any block."""

    mutable_arrays = False

    def block_size(self, x: Any) -> None:
        return None


WHOLE = Whole()


def whole(penalty: ar.Penalty, x: np.ndarray, mean_over: str) -> tuple[Any, Any]:
    axes = _evaluate.prepare(penalty, x, xp=WHOLE, axes=None, mean_over=mean_over)
    upstream = np.float64(np.float32(-0.37)) if x.dtype == np.float32 else np.float64(-0.37)
    with np.errstate(all="ignore"):
        value = _evaluate.value(penalty, x, xp=WHOLE, axes=axes)
        return value, _evaluate.gradient(penalty, x, upstream, xp=WHOLE, axes=axes)


def examples(dtype: Any) -> list[np.ndarray]:
    x = np.random.default_rng(0).random(SHAPE).astype(dtype)
    special = x.copy()
    special[3, 4, 5], special[7, 8, 9], special[10, 11, :] = np.nan, np.inf, 0.0
    return [x, special, x - np.asarray(0.5, dtype)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mean_over", ["sum", "batchmean", "mean"])
@pytest.mark.parametrize("label", COUPLED)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_the_same_bits_as_whole(
    library: str, label: str, mean_over: str, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_blocks, "SMALLEST", 700)
    monkeypatch.setattr("arspec._numpy.BLOCK", 256)
    monkeypatch.setattr(_kernels, "BLOCK", 256)
    if library == "torch":
        monkeypatch.setattr(_plain, "SMALL", 0)
        monkeypatch.setattr(_plain, "FEW_THREADS", 0)
    penalty = COUPLED[label]
    for x in examples(dtype):
        value, gradient = whole(penalty, x, mean_over)
        tensor = torch.from_numpy(x.copy()).requires_grad_()
        found = arspec_torch.value(penalty, tensor, mean_over=mean_over)
        found.backward(torch.tensor(-0.37, dtype=found.dtype))
        assert tensor.grad is not None
        assert_same_bits(found.detach().numpy(), value, "value in torch")
        assert_same_bits(tensor.grad.numpy(), gradient, "gradient in torch")


def test_where_a_tensor_is_cut() -> None:
    x, xp = np.zeros((1 << 10, 3, 1 << 9), np.float32), NumpyNamespace()

    def cut_of(penalty: ar.Penalty, mean_over: str = "sum") -> _blocks.Blocks | None:
        axes = _evaluate.prepare(penalty, x, xp=xp, axes=None, mean_over=mean_over)
        return _blocks.blocks_of(penalty.components(), x, axes, xp)

    assert cut_of(ar.TemporalDifference(1.0)) == _blocks.Blocks(axis=0, length=170, size=1 << 10)
    assert cut_of(ar.GroupLasso(1.0, norm_over=("batch",))) == _blocks.Blocks(axis=2, length=85, size=1 << 9)
    assert cut_of(ar.KLSparsity(1.0, target=0.5), "batchmean") == _blocks.Blocks(axis=2, length=85, size=1 << 9)
    assert cut_of(ar.GroupLasso(1.0, norm_over=("batch",)) + ar.GroupLasso(1.0, norm_over=("feature",))) == (
        _blocks.Blocks(axis=1, length=1, size=3)
    )
    assert cut_of(ar.L2Norm(1.0)) is None  # one norm of everything
    assert cut_of(ar.LInf(1.0), "batchmean") is None  # says nothing of its axes


def test_memory_stays_that_of_a_block() -> None:
    x = np.random.default_rng(0).random((1 << 11, 1 << 11), np.float32)
    for penalty, options in (
        (ar.KLSparsity(1.0, target=0.5), {"mean_over": "batchmean"}),
        (ar.GroupLasso(1.0, norm_over=("feature",)), {}),
        (ar.Hoyer(1.0), {"mean_over": "batchmean"}),
    ):
        tensor = torch.from_numpy(x).requires_grad_()
        tracemalloc.start()
        arspec_torch.value(penalty, tensor, **options).backward()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # The gradient, of the size of x, and a few blocks of float64.
        assert peak <= x.nbytes + 10 * 8 * _blocks.SMALLEST
        assert peak < 3 * x.nbytes


def test_a_subclass_with_other_terms_inherits_no_promise() -> None:
    class Mine(ar.GroupLasso):
        def terms(self, x: Any, *, xp: Any, axes: Any) -> Any:
            return xp.square(x)

    class Square(ar.L1):
        def terms(self, x: Any, *, xp: Any, axes: Any) -> Any:
            return xp.square(x)

    axes = _evaluate.named_axes(2, "float32", None, "sum", "identical")
    assert Mine(1.0, norm_over=("feature",)).coupled(2, axes=axes) == (0, 1)
    assert ar.GroupLasso(1.0, norm_over=("feature",)).coupled(2, axes=axes) == (1,)
    assert not Mine.non_negative
    assert [Square.quick, Square.exact, Square.non_negative] == [False] * 3
    assert [ar.L1.quick, ar.L1.exact, ar.L1.non_negative] == [True] * 3
    assert arspec_torch.value(Square(1.0), torch.tensor([3.0])).item() == 9.0
