"""Value and gradient of every penalty have the same bits in every engine and mode as in the reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import arspec as ar
from arspec_conformance.family import FAMILY, Member
from arspec_conformance.identity import count, measure
from bits import assert_same_bits
from cases import DTYPES, PENALTIES, dyadic_arrays, float_arrays
from modes import jax_modes, tensorflow_modes, torch_modes

ADAPTERS = {module.ADAPTER.name: module.ADAPTER for module in (torch_modes, tensorflow_modes, jax_modes)}
MODES = {**torch_modes.MODES, **tensorflow_modes.MODES, **jax_modes.MODES}
COTANGENTS = (1.0, -0.37)
DYADIC = ar.L1(0.25) + 2 * ar.L2(0.5)

modes = pytest.mark.parametrize("mode", MODES)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def test_the_family_is_whole() -> None:
    ours = {name for name, cls in ar.registered().items() if cls.__module__.startswith("arspec.")}
    assert {member.penalty.name for member in FAMILY} == {*ours, "sum"}
    assert len({member.label for member in FAMILY}) == len(FAMILY)


def test_every_engine_is_here() -> None:
    assert {name.split("_")[0] for name in MODES} == {"torch", "tf", "jax"}
    assert len(MODES) >= 9


@pytest.mark.parametrize("member", FAMILY, ids=lambda member: member.label)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_every_penalty(adapter: str, member: Member) -> None:
    """The identity matrix: special values, ties, masks, reductions, sizes beyond one block."""
    asked = (ADAPTERS[adapter], [member], list(DTYPES), "cpu", "standard")
    cells = list(measure(*asked))
    assert [cell.to_document() for cell in cells if not cell.holds] == []
    assert len(cells) == count(*asked)
    assert {cell.dtype for cell in cells} == set(DTYPES)
    assert min(cell.gradient.compared for cell in cells) > 1500


def compare(mode: str, penalty: ar.Penalty, x: np.ndarray, cotangent: float = 1.0) -> np.ndarray:
    """Run one penalty in one mode, compare with NumPy, and return the value."""
    value, gradient = MODES[mode](penalty, x, cotangent=cotangent)
    assert_same_bits(value, ar.value(penalty, x), f"{mode} value")
    assert_same_bits(gradient, ar.gradient(penalty, x, cotangent=cotangent), f"{mode} gradient")
    return value


# One shape in both tests: a slow compiler then runs once per penalty and dtype, not per example.


@modes
@dtypes
@pytest.mark.parametrize("penalty", [*PENALTIES.values(), DYADIC], ids=[*PENALTIES, "dyadic"])
@settings(max_examples=20)
@given(data=st.data())
def test_dyadic_numbers_are_exact(mode: str, dtype: str, penalty: ar.Penalty, data: st.DataObject) -> None:
    x = data.draw(dyadic_arrays((4, 3), dtype))
    value = compare(mode, penalty, x)
    if penalty is DYADIC:
        wide = x.astype(np.float64)
        assert float(value) == 0.25 * np.abs(wide).sum() + np.square(wide).sum()


@modes
@dtypes
@settings(max_examples=40)
@given(data=st.data())
def test_any_float(mode: str, dtype: str, data: st.DataObject) -> None:
    penalty = PENALTIES[data.draw(st.sampled_from(sorted(PENALTIES)))]
    compare(mode, penalty, data.draw(float_arrays((4, 3), dtype)), data.draw(st.sampled_from(COTANGENTS)))
