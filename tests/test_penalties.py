"""Every class of the family: construction and its errors, JSON, schema, equality, composition."""

import copy
import dataclasses
import json
import pickle
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import arspec as ar
from cases import DTYPES
from documents import with_penalty
from family import FAMILY, MATRIX, SHAPE, ordinary
from test_schema import accepts, changed, reads

names = pytest.mark.parametrize("name", FAMILY)
simple_names = pytest.mark.parametrize("name", sorted(FAMILY.keys() - {"sum"}))
COEFFICIENTS = sorted(FAMILY.keys() - {"sum", "l1_l2"})
POSITIVE = {
    ar.Lp: "p",
    ar.Huber: "delta",
    ar.PseudoHuber: "delta",
    ar.SmoothL1: "epsilon",
    ar.StudentT: "scale",
    ar.Tanh: "scale",
    ar.KLSparsity: "target",
    ar.L0Step: "bandwidth",
}
AXES = {ar.GroupLasso: "norm_over", ar.TotalVariation: "over"}
FINITE = "expected a finite number"


def replaced(name: str, **changes: Any) -> ar.Penalty:
    return dataclasses.replace(FAMILY[name], **changes)  # pyright: ignore[reportArgumentType]


def member(cls: type) -> str:
    return next(name for name, penalty in FAMILY.items() if type(penalty) is cls)


class TestConstruction:
    def test_the_whole_family_is_here(self) -> None:
        ours = {name for name, cls in ar.registered().items() if cls.__module__.startswith("arspec.")}
        assert {penalty.name for penalty in FAMILY.values()} == ours | {"sum"}

    @pytest.mark.parametrize("name", COEFFICIENTS)
    @pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf"), True, None, "1", [1.0], 1j])
    def test_coefficients(self, name: str, wrong: Any) -> None:
        cls = type(FAMILY[name]).__name__
        with pytest.raises(ar.SpecError) as caught:
            replaced(name, coefficient=wrong)
        assert str(caught.value).startswith(f"{cls}: coefficient={wrong!r}; {FINITE} >= 0.")

    @pytest.mark.parametrize("cls", POSITIVE)
    @pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), float("inf"), False, None, "1", (1.0,)])
    def test_parameters_that_must_be_positive(self, cls: type, wrong: Any) -> None:
        with pytest.raises(ar.SpecError) as caught:
            replaced(member(cls), **{POSITIVE[cls]: wrong})
        assert str(caught.value).startswith(f"{cls.__name__}: {POSITIVE[cls]}={wrong!r}; {FINITE} > 0.")

    def test_thresholds(self) -> None:
        assert ar.L0Step(1.0, threshold=0, bandwidth=1).threshold == 0.0
        with pytest.raises(ar.SpecError, match=r"L0Step: threshold=-0\.5; expected a finite number >= 0\."):
            ar.L0Step(1.0, threshold=-0.5, bandwidth=1.0)

    @pytest.mark.parametrize("target", [1, 1.5])
    def test_targets(self, target: float) -> None:
        with pytest.raises(ar.SpecError, match=rf"KLSparsity: target={target!r}; .*0 < target < 1\."):
            ar.KLSparsity(1.0, target=target)

    @pytest.mark.parametrize("cls", AXES)
    @pytest.mark.parametrize(
        ("wrong", "text"),
        [
            (
                "feature",
                "='feature'; expected a tuple of axis names, not empty. For one axis write FIELD=('feature',).",
            ),
            ((), "=(); expected a tuple of axis names, not empty."),
            (None, "=None; expected a tuple of axis names, not empty."),
            ({"time"}, "={'time'}; expected a tuple of axis names, not empty."),
            (("time", "time"), "=('time', 'time') names an axis twice."),
        ],
    )
    def test_axes(self, cls: type, wrong: Any, text: str) -> None:
        with pytest.raises(ar.SpecError) as caught:
            replaced(member(cls), **{AXES[cls]: wrong})
        assert str(caught.value) == f"{cls.__name__}: {AXES[cls]}" + text.replace("FIELD", AXES[cls])

    @pytest.mark.parametrize("cls", AXES)
    def test_unknown_axes(self, cls: type) -> None:
        with pytest.raises(ar.SpecError, match=rf"unknown axis in {AXES[cls]} 'tyme'; .* Did you mean 'time'\?"):
            replaced(member(cls), **{AXES[cls]: ("tyme",)})
        with pytest.raises(ar.SpecError, match=rf"unknown axis in {AXES[cls]} \['time'\];"):
            replaced(member(cls), **{AXES[cls]: [["time"]]})

    @pytest.mark.parametrize("name", sorted(MATRIX))
    @pytest.mark.parametrize("wrong", ["row", None, 1, ["rows"]])
    def test_modes(self, name: str, wrong: Any) -> None:
        cls = type(FAMILY[name]).__name__
        with pytest.raises(ar.SpecError) as caught:
            replaced(name, mode=wrong)
        assert str(caught.value).startswith(f"unknown mode of {cls} {wrong!r}; allowed: columns, rows.")

    @pytest.mark.parametrize("wrong", [1, "yes", None])
    def test_flags(self, wrong: Any) -> None:
        with pytest.raises(ar.SpecError) as caught:
            ar.GroupLasso(1.0, norm_over=("input",), size_scaled=wrong)
        assert str(caught.value) == f"GroupLasso: size_scaled={wrong!r}; expected True or False."

    @pytest.mark.parametrize("cls", [*POSITIVE, *AXES, ar.Orthogonal, ar.SoftOrthogonal])
    def test_all_but_the_coefficient_is_keyword_only(self, cls: type) -> None:
        with pytest.raises(TypeError, match="positional"):
            cls(1.0, 0.5)
        with pytest.raises(TypeError, match="coefficient"):
            cls()

    @simple_names
    def test_numbers_become_floats_and_lists_tuples(self, name: str) -> None:
        penalty = FAMILY[name]
        for field in dataclasses.fields(penalty):  # pyright: ignore[reportArgumentType]
            held = getattr(penalty, field.name)
            assert type(held) in (float, bool, str, tuple)
            if type(held) is float:
                changes = {field.name: np.float32(0.5)}
                assert type(getattr(replaced(name, **changes), field.name)) is float
            if type(held) is tuple:
                assert replaced(name, **{field.name: list(held)}) == penalty


class TestAxesThatAreNotThere:
    @pytest.mark.parametrize(
        ("penalty", "axis"),
        [
            (ar.TemporalDifference(1.0), "time"),
            (ar.NormStabilizer(1.0), "time"),
            (ar.TotalVariation(1.0, over=("height",)), "height"),
            (ar.GroupLasso(1.0, norm_over=("input",)), "input"),
        ],
    )
    def test_are_named(self, penalty: ar.Penalty, axis: str) -> None:
        for function in (ar.value, ar.gradient):
            with pytest.raises(
                ar.SpecError, match=rf"axis '{axis}' is not an axis of this tensor, .*\(batch, feature\)"
            ):
                function(penalty, np.ones((2, 3)))

    def test_no_batch(self) -> None:
        with pytest.raises(ar.SpecError, match="axis 'batch' is not an axis of this tensor"):
            ar.value(ar.DeCov(1.0), np.ones(3))


class TestDocuments:
    @names
    def test_json_gives_back_the_penalty(self, name: str) -> None:
        spec = ar.Spec([ar.Rule(FAMILY[name], layer="hidden", placement="kernel")])
        again = ar.Spec.from_json(spec.to_json())
        assert again == spec
        assert hash(again) == hash(spec)
        assert repr(again) == repr(spec)
        assert again.to_json() == spec.to_json()

    @simple_names
    def test_parameters_with_a_default_may_be_left_out(self, name: str) -> None:
        penalty = FAMILY[name]
        described = dataclasses.fields(penalty)  # pyright: ignore[reportArgumentType]
        required = [f.name for f in described if f.default is dataclasses.MISSING]
        parameters = {key: getattr(penalty, key) for key in required}
        document = with_penalty({"name": penalty.name, **json.loads(json.dumps(parameters))})
        assert ar.Spec.from_document(document).rules[0].penalty == type(penalty)(**parameters)
        assert accepts(document)

    @names
    def test_the_schema_agrees_with_the_reader_on_every_single_change(self, name: str) -> None:
        spec = ar.Spec([ar.Rule(FAMILY[name], layer="hidden", placement="kernel")])
        penalty = spec.to_document()["rules"][0]["penalty"]
        documents = [with_penalty(penalty), *map(with_penalty, changed(penalty))]
        judged = [(accepts(document), reads(document)) for document in documents]
        wrong = [document for document, (schema, reader) in zip(documents, judged, strict=True) if schema != reader]
        assert wrong == []
        assert judged[0] == (True, True)
        assert sum(not reader for _, reader in judged) > 5


class TestValues:
    @names
    def test_equality_hash_repr_and_copies(self, name: str) -> None:
        penalty = FAMILY[name]
        for twin in (copy.copy(penalty), copy.deepcopy(penalty), pickle.loads(pickle.dumps(penalty))):
            assert twin == penalty
            assert hash(twin) == hash(penalty)
            assert repr(twin) == repr(penalty)
        assert eval(repr(penalty), vars(ar)) == penalty
        assert sum(penalty == other for other in FAMILY.values()) == 1

    @simple_names
    def test_penalties_do_not_change(self, name: str) -> None:
        field = dataclasses.fields(FAMILY[name])[0].name  # pyright: ignore[reportArgumentType]
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(FAMILY[name], field, 1.0)

    @names
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_a_factor_multiplies(self, name: str, dtype: str) -> None:
        """Powers of two do not round, so the bits say that nothing else happened."""
        x, penalty = ordinary(name, dtype), FAMILY[name]
        value, gradient = ar.value(penalty, x), ar.gradient(penalty, x)
        assert ar.value(0.25 * penalty, x) == value * value.dtype.type(0.25)
        quarter = ar.gradient(penalty * 0.25, x).astype(np.float64)
        normal = np.abs(quarter) >= float(ml_dtypes.finfo(DTYPES[dtype]).smallest_normal)
        assert (quarter == gradient.astype(np.float64) / 4)[normal].all()

    @names
    def test_a_sum_adds(self, name: str) -> None:
        x, penalty = ordinary(name, "float64"), FAMILY[name]
        both = ar.L2(0.5) + 2 * penalty
        for mean_over in ((), ("batch",)):
            parts = ar.value(ar.L2(0.5), x, mean_over=mean_over) + 2 * ar.value(penalty, x, mean_over=mean_over)
            assert ar.value(both, x, mean_over=mean_over) == pytest.approx(parts, rel=1e-14)
            slopes = ar.gradient(ar.L2(0.5), x, mean_over=mean_over)
            slopes = slopes + 2 * ar.gradient(penalty, x, mean_over=mean_over)
            np.testing.assert_allclose(ar.gradient(both, x, mean_over=mean_over), slopes, rtol=1e-12, atol=1e-15)

    def test_total_variation_is_a_sum_over_its_axes(self) -> None:
        x = np.random.default_rng(0).standard_normal(SHAPE)
        both = ar.TotalVariation(0.5, over=("time", "feature"))
        apart = ar.TotalVariation(0.5, over=("time",)) + ar.TotalVariation(0.5, over=("feature",))
        for mean_over in ("sum", "batchmean", "mean"):
            assert ar.value(both, x, mean_over=mean_over) == ar.value(apart, x, mean_over=mean_over)
            assert (ar.gradient(both, x, mean_over=mean_over) == ar.gradient(apart, x, mean_over=mean_over)).all()
        assert ar.value(both, x) == pytest.approx(sum(np.abs(np.diff(x, axis=i)).sum() for i in (1, 2)) / 2)

    def test_the_straight_through_slope_of_a_threshold(self) -> None:
        from arspec._axes import Axes
        from arspec._reference import _NUMPY

        penalty = ar.L0Step(1.0, threshold=0.5, bandwidth=0.25)
        x = np.array([0.374, 0.375, 0.5, 0.625, 0.626, np.nan])
        slope = penalty.threshold_gradient(x, 2.0, xp=_NUMPY, axes=Axes(("feature",)))
        np.testing.assert_array_equal(slope, [0.0, -8.0, -8.0, -8.0, 0.0, np.nan])
