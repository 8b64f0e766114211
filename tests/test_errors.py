"""Every error of the core's public functions: its class, its whole text, its cure."""

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pytest

import arspec as ar
from arspec._numpy import BLOCK

REWARD = " A penalty that rewards is a negative coefficient; arspec does not define one."
BIG = 10**400

x = np.ones((2, 3))


def text_of(error: type[Exception], function: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(error) as caught:
        function(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("coefficient", "shown", "cure"),
    [
        (-1, "-1", REWARD),
        (-1e-300, "-1e-300", REWARD),
        (-BIG, f"-{str(BIG)[:56]}...", REWARD),
        (float("nan"), "nan", ""),
        (float("inf"), "inf", ""),
        (BIG, f"{str(BIG)[:57]}...", ""),
        (True, "True", ""),
        (np.True_, "np.True_", ""),
        (None, "None", ""),
        ("0.1", "'0.1'", ""),
        (np.str_("0.1"), "np.str_('0.1')", ""),
        (Decimal("0.1"), "Decimal('0.1')", ""),
        (1j, "1j", ""),
        ([0.1], "[0.1]", ""),
        (np.array([0.1]), "array([0.1])", ""),
        (np.array("a"), "array('a', dtype='<U1')", ""),
        (np.float16("inf"), "np.float16(inf)", ""),
    ],
)
@pytest.mark.parametrize("cls", [ar.L1, ar.L2])
def test_a_coefficient_is_a_finite_number_that_is_not_negative(
    cls: Any, coefficient: object, shown: str, cure: str
) -> None:
    text = text_of(ar.SpecError, cls, coefficient)
    assert text == f"{cls.__name__}: coefficient={shown}; expected a finite number >= 0.{cure}"


def test_both_coefficients_of_the_elastic_net_are_checked_and_needed() -> None:
    assert text_of(ar.SpecError, ar.L1L2, -1, 0) == f"L1L2: l1=-1; expected a finite number >= 0.{REWARD}"
    assert text_of(ar.SpecError, ar.L1L2, 0, "a") == "L1L2: l2='a'; expected a finite number >= 0."
    assert "l2" in text_of(TypeError, ar.L1L2, 1e-4)


@pytest.mark.parametrize("number", [0, 1, 2**53 + 1, 0.1, -0.0, Fraction(1, 3), np.float32(0.1), np.int8(3), 5e-324])
def test_every_real_number_becomes_the_float_it_is(number: Any) -> None:
    coefficient = ar.L2(number).coefficient
    assert type(coefficient) is float
    assert coefficient == float(number)
    assert np.copysign(1.0, coefficient) == 1.0


def test_penalties_are_added_and_scaled_only() -> None:
    l1, l2 = ar.L1(1.0), ar.L2(1.0)
    multiplied = "penalties can be added and scaled, not multiplied with each other."
    assert text_of(ar.SpecError, lambda: l1 * l2) == multiplied
    assert text_of(ar.SpecError, lambda: (l1 + l2) * l2) == multiplied
    assert text_of(ar.SpecError, lambda: -2 * l1) == f"a penalty: factor=-2; expected a finite number >= 0.{REWARD}"
    assert text_of(ar.SpecError, lambda: l1 * "2") == "a penalty: factor='2'; expected a finite number >= 0."
    assert text_of(ar.SpecError, lambda: np.ones(2) * l1) == (
        "a penalty: factor=array([1., 1.]); expected a finite number >= 0."
    )
    assert "L1" in text_of(TypeError, lambda: l1 + 3)


@pytest.mark.parametrize("summands", [(), [], None, 3, [3], [(1.0,)], [(1.0, ar.L1(1.0), 2)]])
def test_a_sum_needs_pairs(summands: Any) -> None:
    expected = f"Sum: summands={summands!r}; expected at least one pair (factor, penalty)."
    assert text_of(ar.SpecError, ar.Sum, summands) == expected


def test_the_pairs_of_a_sum_are_checked() -> None:
    assert text_of(ar.SpecError, ar.Sum, [(1.0, 3)]) == "Sum: 3 is not a penalty; expected one such as L1(1e-4)."
    assert text_of(ar.SpecError, ar.Sum, [("a", ar.L1(1.0))]) == "Sum: factor='a'; expected a finite number >= 0."


def test_products_of_factors_stay_finite() -> None:
    """An infinite coefficient would make every zero a NaN."""
    expected = "Sum: factor × coefficient=inf; expected a finite number >= 0."
    assert text_of(ar.SpecError, lambda: 1e308 * ar.L1(1e308)) == expected
    half = ar.Sum([(1e308, ar.L1L2(0.1, 0.1))])
    assert text_of(ar.SpecError, lambda: ar.Sum([(1e308, half)])) == expected


@pytest.mark.parametrize("function", [ar.value, ar.gradient])
class TestEvaluation:
    """`value` and `gradient` refuse alike."""

    @pytest.mark.parametrize("given", [3, None, ar.L1, "l1"])
    def test_not_a_penalty(self, function: Any, given: Any) -> None:
        assert text_of(ar.SpecError, function, given, x) == (
            f"{given!r} is not a penalty; expected one such as L1(1e-4)."
        )

    @pytest.mark.parametrize("dtype", ["int8", "int64", "uint8", "bool", "longdouble", "object", "datetime64[s]"])
    def test_not_floating_point(self, function: Any, dtype: str) -> None:
        name = np.dtype(dtype).name
        assert text_of(ar.SpecError, function, ar.L1(1.0), np.zeros(3, dtype)) == (
            f"x is {name}; expected one of float16, bfloat16, float32, float64. Convert it, for example to float32."
        )

    @pytest.mark.parametrize("dtype", ["complex64", "complex128"])
    def test_complex(self, function: Any, dtype: str) -> None:
        assert text_of(ar.UnsupportedError, function, ar.L1(1.0), np.zeros(3, dtype)) == (
            f"x is {dtype}; penalties of complex tensors are not defined. Penalize abs(x), say."
        )

    def test_masked_array(self, function: Any) -> None:
        masked = np.ma.masked_array([1.0, 2.0], [False, True])
        assert text_of(ar.SpecError, function, ar.L1(1.0), masked) == (
            "x is a NumPy masked array; pass its parts: value(penalty, x.data, mask=~x.mask)."
        )
        assert ar.value(ar.L1(1.0), masked.data, mask=~masked.mask) == 1.0

    def test_not_an_array(self, function: Any) -> None:
        text = text_of(ar.SpecError, function, ar.L1(1.0), [[1.0], [1.0, 2.0]])
        assert text.startswith("x is a list that NumPy cannot read: ")
        assert text.endswith(" For a framework's tensor call the `value` of its adapter.")

    def test_mask_of_another_dtype(self, function: Any) -> None:
        assert text_of(ar.SpecError, function, ar.L1(1.0), x, mask=np.ones(2)) == (
            "mask has dtype float64; expected bool, true where x is valid."
        )

    @pytest.mark.parametrize("shape", [(3,), (0,), (2, 2), (2, 3, 1)])
    def test_mask_of_another_shape(self, function: Any, shape: tuple[int, ...]) -> None:
        assert text_of(ar.SpecError, function, ar.L1(1.0), x, mask=np.ones(shape, bool)) == (
            f"mask has shape {shape}; expected the leading axes of x, whose shape is (2, 3)."
        )


@pytest.mark.parametrize("cotangent", ["1", None, [1.0, 2.0], True, 1j, np.ones(1)])
def test_a_cotangent_is_one_number(cotangent: Any) -> None:
    assert text_of(ar.SpecError, ar.gradient, ar.L1(1.0), x, cotangent=cotangent) == (
        f"cotangent={cotangent!r}; expected one number, such as a loss scale."
    )


@dataclass(frozen=True)
class Summed(ar.Penalty):
    """A user's mistake: it sums by itself."""

    name: ClassVar[str] = "summed"

    def terms(self, x: Any, *, xp: Any, axes: Any) -> Any:
        return xp.sum(x)

    def terms_gradient(self, x: Any, weight: Any, *, xp: Any, axes: Any) -> Any:
        return weight * x


@dataclass(frozen=True)
class SummedToOne(Summed):
    """The same with a term per example, which could pass for a block of x."""

    def terms(self, x: Any, *, xp: Any, axes: Any) -> Any:
        return xp.sum(x, (0,))


@pytest.mark.parametrize(
    ("penalty", "x", "got"),
    [
        (Summed(), np.ones((2, 3)), "()"),
        (SummedToOne(), np.ones((2, 3)), "(1, 3)"),
        (Summed() + ar.L1(1.0), np.ones((2, 3)), "()"),
    ],
)
def test_a11_terms_of_another_shape_are_named(penalty: Any, x: np.ndarray, got: str) -> None:
    name = "SummedToOne" if isinstance(penalty, SummedToOne) else "Summed"
    assert text_of(ar.SpecError, ar.value, penalty, x) == (
        f"{name}.terms returned {got} for x of shape (2, 3); expected (2, 3). "
        "Terms keep every axis of x; arspec does the summing. If they really reduce one (to size 1), "
        "set elementwise = False and define terms_shape."
    )


def test_a11_terms_of_another_shape_are_named_in_a_block_too() -> None:
    text = text_of(ar.SpecError, ar.value, SummedToOne(), np.ones(2 * BLOCK))
    assert text.startswith(f"SummedToOne.terms returned (1,) for x of shape ({BLOCK},); expected ({BLOCK},).")


def test_a_number_instead_of_terms() -> None:
    class Constant(Summed):
        def terms(self, x: Any, *, xp: Any, axes: Any) -> Any:
            return 1.0

    assert text_of(ar.SpecError, ar.value, Constant(), x).startswith("Constant.terms returned float for x of shape")


class TestRegister:
    """A name stands for one class."""

    def test_a_taken_name(self) -> None:
        @dataclass(frozen=True)
        class Other(Summed):
            name: ClassVar[str] = "l1"

        assert text_of(ar.SpecError, ar.register, Other) == (
            "the penalty name 'l1' is taken by arspec.penalties.l1.L1."
        )

    def test_the_name_of_sums(self) -> None:
        @dataclass(frozen=True)
        class Other(Summed):
            name: ClassVar[str] = "sum"

        assert text_of(ar.SpecError, ar.register, Other) == "the penalty name 'sum' is taken by sums of penalties."

    @pytest.mark.parametrize("given", [3, int, ar.L1(1.0), ar.Penalty])
    def test_not_a_penalty_class(self, given: Any) -> None:
        assert text_of(ar.SpecError, ar.register, given) == (
            f"register({given!r}): expected a class with a string attribute `name`."
        )

    def test_registering_again_changes_nothing(self) -> None:
        assert ar.register(ar.L1) is ar.L1
