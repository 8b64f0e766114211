"""Fused loops have the bits of the definition: every penalty, shape, dtype, special value and number of threads."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import arspec as ar
from arspec import _evaluate, _fused, _fused_loops, _fusion
from arspec._fused_loops import reduce_axis, total, tree_total
from arspec._fusion import FusedNamespace
from arspec._numpy import NumpyNamespace
from arspec._recorded import Expression, Pieces, Unfusable
from arspec_torch import _eager
from arspec_torch import value as torch_value
from bits import assert_same_bits
from cases import special_arrays
from family import FAMILY, PROBABILITIES

pytest.importorskip("numba")

# What needs whole matrices, or a function that NumPy computes faster.
NO_VALUE = {"tanh", "decov"} | {name for name in FAMILY if "orthogonal" in name}
NO_GRADIENT = NO_VALUE - {"tanh"} | {"total_variation"}
SHAPES = {"time": (5, 7, 300), "plain": (37, 300)}


@pytest.fixture(autouse=True)
def _from_the_first_entry_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fused, "SMALLEST", 0)


def numbers(shape: tuple[int, ...], *, probabilities: bool = False, dtype: str = "float32") -> np.ndarray:
    rng = np.random.default_rng(3)
    if probabilities:
        return (rng.random(shape) * 0.8 + 0.1).astype(dtype)
    x = (rng.standard_normal(shape) * np.exp2(rng.integers(-4, 4, shape))).astype(dtype)
    x.flat[:3] = (0.0, 1e-40, -0.0)
    return x


def compare(penalty: ar.Penalty, x: np.ndarray, *, threads: int = 1, **options: Any) -> tuple[bool, bool]:
    """Compare both numbers with the definition; return which of them had a fused form."""
    axes = _evaluate.prepare(penalty, x, xp=NumpyNamespace(), axes=options.get("axes"), mean_over=options["mean_over"])
    known: _fused.Known = {}
    found = _fused.value(penalty, x, axes, threads, known)
    slope = _fused.gradient(penalty, x, -0.75, axes, threads, known)
    if found is not None:
        dtype = np.float64 if x.dtype == np.float64 else np.float32
        assert_same_bits(dtype(found), ar.value(penalty, x, **options), "value")
    if slope is not None:
        assert_same_bits(slope, ar.gradient(penalty, x, cotangent=-0.75, **options), "gradient")
    return found is not None, slope is not None


@pytest.mark.parametrize("name", FAMILY)
def test_every_penalty_has_the_bits_of_the_definition(name: str) -> None:
    x = numbers(SHAPES["time"], probabilities=name in PROBABILITIES)
    for mean_over in ((), ("batch",), "mean"):
        fused = compare(FAMILY[name], x, mean_over=mean_over)
        if mean_over == ("batch",):  # over all axes some penalties are a number of few entries
            assert fused == (name not in NO_VALUE, name not in NO_GRADIENT)


@pytest.mark.parametrize("name", ["l1", "l1_l2", "lp 0.5", "huber", "group_lasso", "hoyer", "linf"])
def test_float64(name: str) -> None:
    x = numbers(SHAPES["time"], dtype="float64")
    x.flat[4] = 1e-310
    assert compare(FAMILY[name], x, mean_over=("batch",)) == (True, True)


@pytest.mark.parametrize(
    "name", ["l1", "l2", "l1_l2", "huber", "lp 1.3", "linf", "l2_norm", "group_lasso", "temporal_difference"]
)
def test_special_values(name: str) -> None:
    for x in special_arrays("float32").values():
        if x.size and "temporal" in name:
            x = np.broadcast_to(x.reshape(-1)[:, None], (x.size, 2)).reshape(1, -1, 2).copy()
        if x.size:
            fused = compare(FAMILY[name], np.ascontiguousarray(x), mean_over=())
            assert fused == (True, True) or "temporal" in name  # it has none for some of them


def test_a_sum_of_penalties_is_one_loop() -> None:
    ar_and_tar = ar.L2(2e-3) + ar.TemporalDifference(1e-3)
    assert compare(ar_and_tar, numbers(SHAPES["time"]), mean_over="mean") == (True, True)
    assert compare(ar.L1(1e-3) + 0.5 * ar.L2(1e-3), numbers(SHAPES["plain"]), mean_over=("batch",)) == (True, True)


@pytest.mark.parametrize("name", ["l1", "group_lasso", "kl_sparsity"])
def test_threads_share_the_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fused_loops, "SHARED", 64)
    x = numbers((50, 41), probabilities=name in PROBABILITIES)
    for threads in (2, 3, 64):
        assert compare(FAMILY[name], x, threads=threads, mean_over=("batch",)) == (True, True)


shapes = st.lists(st.integers(1, 19), min_size=1, max_size=3).map(tuple)


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 2), st.data())
def test_reductions_have_one_order(shape: tuple[int, ...], axis: int, data: st.DataObject) -> None:
    axis = axis % len(shape)
    x = numbers(shape)
    strip = data.draw(st.sampled_from([1, 2, 8, 512]))
    large = Expression.of(x)
    before = _fused_loops.STRIP
    _fused_loops.STRIP = strip
    try:
        summed, most = reduce_axis(abs(large), axis, "sum", 1, {}), reduce_axis(abs(large), axis, "max", 1, {})
        whole = tree_total(abs(large))
    finally:
        _fused_loops.STRIP = before
    wide, reference = np.abs(x.astype(np.float64)), NumpyNamespace()
    np.testing.assert_array_equal(summed, reference.halve(wide, axis))
    np.testing.assert_array_equal(most, wide.max(axis, keepdims=True))
    assert whole == reference.sum(wide)
    assert total(abs(large)) == pytest.approx(wide.sum(), rel=1e-14)


def test_a_total_stays_within_its_bound() -> None:
    """What `roundings` says of a sum of many entries is no less than what the loop does."""
    x = np.full(3 * _fused_loops.SEGMENT + 5, 1 / 3)
    exact = float(np.float64(1 / 3)) * x.size
    error = abs(total(abs(Expression.of(x))) - exact) / exact
    assert 0 < _fused_loops.roundings(x.size) <= x.size
    assert error <= _fused_loops.roundings(x.size) * 2.0**-53


def test_parts_along_an_axis() -> None:
    x = Expression.of(numbers((3, 5, 4)))
    step = x[:, 1:] - x[:, :-1]
    assert step.shape == (3, 4, 4)
    both = FusedNamespace().concat([x[:, :1], step], 1)
    assert isinstance(both, Pieces)
    expected = np.concatenate([x.source[:, :1], np.diff(x.source, axis=1)], 1)
    np.testing.assert_array_equal(_fused_loops.fill(both * 1.0), expected)


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: bool(x > 0),
        list,
        lambda x: x[0],
        lambda x: x[:, ::2],
        lambda x: x + np.ones(3),
        lambda x: x[:, 1:] + x,
        lambda x: (x * 2.0).flat((12,)),
        lambda x: FusedNamespace().raw_matmul(x, x),
        lambda x: FusedNamespace().permute(x, (1, 0)),
    ],
)
def test_what_has_no_form_is_refused(ask: Any) -> None:
    with pytest.raises(Unfusable):
        ask(Expression.of(numbers((3, 4))))


class Peculiar(ar.Penalty):
    """A penalty that asks its argument for what only an array can do."""

    name = "peculiar"
    __slots__ = ()

    def terms(self, x: Any, *, xp: Any, axes: Any) -> Any:
        return xp.abs(x) if x.sum() > 0 else xp.square(x)

    def terms_gradient(self, x: Any, weight: Any, *, xp: Any, axes: Any) -> Any:
        return xp.multiply(weight, xp.sign(x) if x.sum() > 0 else xp.double(x))


def test_a_penalty_without_a_fused_form_takes_the_definition() -> None:
    x = torch.tensor(numbers((3, 4)), requires_grad=True)
    found = torch_value(Peculiar(), x)
    found.backward()
    assert found.item() == ar.value(Peculiar(), x.detach().numpy())
    np.testing.assert_array_equal(x.grad, ar.gradient(Peculiar(), x.detach().numpy()))


def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record which of the two fused functions answered."""
    answers: list[str] = []
    for name in ("value", "gradient"):
        function = getattr(_fused, name)

        def spy(*arguments: Any, name: str = name, function: Any = function) -> Any:
            found = function(*arguments)
            if found is not None:
                answers.append(name)
            return found

        monkeypatch.setattr(_fused, name, spy)
    return answers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_eager_torch_takes_the_loops(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = seen(monkeypatch)
    x = torch.tensor(numbers((6, 40)), dtype=dtype).t().requires_grad_()  # not contiguous
    found = torch_value(ar.L1L2(0.3, 0.7), x, mean_over=("batch",))
    found.backward()
    assert answers == ["value", "gradient"]
    fused, x.grad = x.grad, None
    monkeypatch.setattr(_eager._fusion, "available", lambda: False)
    assert torch_value(ar.L1L2(0.3, 0.7), x, mean_over=("batch",)).item() == found.item()
    torch_value(ar.L1L2(0.3, 0.7), x, mean_over=("batch",)).backward()
    assert torch.equal(fused, x.grad)
    assert len(answers) == 2


def test_the_gradient_reuses_the_sums_of_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    x = numbers(SHAPES["plain"], probabilities=True)
    axes = _evaluate.prepare(FAMILY["kl_sparsity"], x, xp=NumpyNamespace(), axes=None, mean_over=("batch",))
    known: _fused.Known = {}
    _fused.value(FAMILY["kl_sparsity"], x, axes, 1, known)
    assert len(known) == 1
    monkeypatch.setattr(_fused_loops.Prepared, "reduce", None)  # not asked again
    assert _fused.gradient(FAMILY["kl_sparsity"], x, 1.0, axes, 1, known) is not None


def test_a_tensor_changed_in_between_is_noticed() -> None:
    x = torch.tensor(numbers((6, 40)), requires_grad=True)
    y = x * 1.0
    found = torch_value(ar.L2Norm(1.0), y)
    y.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.backward()


def test_numba_is_imported_by_the_first_loop_only() -> None:
    assert _fusion.available()
    assert "numba" not in vars(_fused_loops)
