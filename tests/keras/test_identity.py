"""Value and gradient through Keras have the same bits as in the reference, on the running backend.

The engines' own tests run every shape and mode; these show that Keras changes nothing.
"""

import numpy as np
import pytest

import arspec as ar
import keras
from arspec_conformance.family import FAMILY, Member
from arspec_conformance.identity import SAMPLE, measure
from arspec_keras import value
from cases import DTYPES
from modes.keras_modes import ADAPTER


@pytest.mark.parametrize("member", FAMILY, ids=lambda member: member.label)
def test_every_penalty(member: Member) -> None:
    cells = list(measure(ADAPTER, [member], list(DTYPES), "cpu", "quick"))
    assert [cell.to_document() for cell in cells if not cell.holds] == []
    modes = {"eager", "compiled", "train"} if member.label in SAMPLE else {"eager"}
    assert {cell.mode for cell in cells if cell.dtype == "float32"} == modes
    assert min(cell.gradient.compared for cell in cells) > 1500


def test_a_keras_variable_is_read() -> None:
    found = value(ar.L1(0.5), keras.Variable(np.array([1.0, -2.0], np.float32)))
    assert float(keras.ops.convert_to_numpy(found)) == 1.5


def test_what_has_no_numbers_is_an_error() -> None:
    with pytest.raises(ar.SpecError, match=r"x is a symbolic KerasTensor.*attach a rule to the layer"):
        value(ar.L1(1.0), keras.Input((2,)))
    with pytest.raises(ar.SpecError, match=r"x is int32; expected one of float16"):
        value(ar.L1(1.0), keras.ops.convert_to_tensor(np.array([1, 2], np.int32)))
