"""Names of axes, mean_over with its shorthands, and what is refused."""

import numpy as np
import pytest

import arspec as ar
from arspec._axes import Axes, parse_mean_over, resolve_axes

DEFAULT_NAMES = {
    0: (),
    1: ("feature",),
    2: ("batch", "feature"),
    3: ("batch", "time", "feature"),
    4: ("batch", "height", "width", "feature"),
    5: ("batch", "depth", "height", "width", "feature"),
}


@pytest.mark.parametrize(("rank", "names"), DEFAULT_NAMES.items())
def test_default_names_are_channels_last(rank: int, names: tuple[str, ...]) -> None:
    assert resolve_axes(rank).names == names


def test_names_may_be_a_string_or_a_sequence() -> None:
    names = ("batch", "feature", "height", "width")
    for given in ("batch feature height width", "  batch feature  height width ", names, list(names)):
        assert resolve_axes(4, given).names == names


@pytest.mark.parametrize(
    ("shorthand", "names"),
    [("sum", ()), ("batchmean", ("batch",)), ("mean", ("batch", "time", "feature")), (["time"], ("time",))],
)
def test_mean_over(shorthand: object, names: tuple[str, ...]) -> None:
    resolved = resolve_axes(3, None, shorthand)
    assert resolved.mean_over == names
    assert [resolved.names[i] for i in resolved.averaged] == list(names)
    assert sorted((*resolved.averaged, *resolved.summed)) == [0, 1, 2]


def test_positions_follow_the_tensor_whatever_the_order_of_the_names() -> None:
    axes = resolve_axes(4, "batch feature height width", ("width", "batch"))
    assert axes.averaged == (0, 3)
    assert axes.summed == (1, 2)
    assert axes.index("feature") == 1
    assert axes.indices(("width", "feature")) == (1, 3)


def test_an_axis_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ar.SpecError) as error:
        Axes(("batch", "height")).index("heigth")
    assert str(error.value) == (
        "axis 'heigth' is not an axis of this tensor, whose axes are (batch, height). Did you mean 'height'?"
    )


@pytest.mark.parametrize(
    ("mean_over", "text"),
    [
        ("batch", "mean_over='batch' is an axis, not a shorthand. For one axis write mean_over=('batch',)."),
        (
            "bachmean",
            "unknown mean_over shorthand 'bachmean'; allowed: batchmean, mean, sum. Did you mean 'batchmean'?",
        ),
        (
            ("heigth",),
            "unknown axis 'heigth'; allowed: batch, depth, feature, height, input, output, time, width. "
            "Did you mean 'height'?",
        ),
        ([1], "unknown axis 1; allowed: batch, depth, feature, height, input, output, time, width."),
        ([[0]], "unknown axis [0]; allowed: batch, depth, feature, height, input, output, time, width."),
        (("batch", "time", "batch"), "mean_over=('batch', 'time', 'batch') names an axis twice."),
        (None, "mean_over=None; expected a tuple of axis names, 'sum', 'batchmean' or 'mean'."),
        (0, "mean_over=0; expected a tuple of axis names, 'sum', 'batchmean' or 'mean'."),
        ({"batch"}, "mean_over={'batch'}; expected a tuple of axis names, 'sum', 'batchmean' or 'mean'."),
    ],
)
def test_wrong_mean_over(mean_over: object, text: str) -> None:
    with pytest.raises(ar.SpecError) as error:
        parse_mean_over(mean_over)
    assert str(error.value) == text


def test_an_array_of_names_is_refused_whatever_its_size() -> None:
    """Comparing an array with a string must not end in NumPy's own error."""
    for names in (["batch"], ["batch", "time"]):
        with pytest.raises(ar.SpecError, match="expected a tuple of axis names"):
            parse_mean_over(np.array(names))
        with pytest.raises(ar.SpecError, match="expected names separated by spaces"):
            resolve_axes(len(names), np.array(names))


@pytest.mark.parametrize(
    ("axes", "text"),
    [
        ("batch time", "axes='batch time' names 2 axes, but x has 3."),
        ("", "axes='' names 0 axes, but x has 3."),
        ("batch time time", "axes='batch time time' names an axis twice."),
        (
            "batch tine feature",
            "unknown axis 'tine'; allowed: batch, depth, feature, height, input, output, time, width. "
            "Did you mean 'time'?",
        ),
        (("batch", 1, "time"), "unknown axis 1; allowed: batch, depth, feature, height, input, output, time, width."),
        (3, "axes=3; expected names separated by spaces, such as 'batch time feature'."),
        ({0}, "axes={0}; expected names separated by spaces, such as 'batch time feature'."),
    ],
)
def test_wrong_axes(axes: object, text: str) -> None:
    with pytest.raises(ar.SpecError) as error:
        resolve_axes(3, axes)
    assert str(error.value) == text


def test_a_rank_without_default_names_must_be_named() -> None:
    with pytest.raises(ar.SpecError) as error:
        ar.value(ar.L1(1.0), np.ones((1,) * 6))
    assert str(error.value) == "x has 6 axes, for which there are no default names; say axes='batch ... feature'."
    names = "batch time depth height width feature"
    assert ar.value(ar.L1(1.0), np.ones((1,) * 6), axes=names) == 1.0


def test_mean_over_an_axis_that_x_does_not_have() -> None:
    with pytest.raises(ar.SpecError) as error:
        ar.value(ar.L1(1.0), np.ones((2, 3)), mean_over=("batch", "time"))
    assert str(error.value) == (
        "mean_over names 'time', but x has the axes (batch, feature). "
        "Say axes=... if they are called otherwise, or leave it out."
    )


def test_axes_that_were_resolved_elsewhere_are_not_taken_for_names() -> None:
    """Their mean_over would be dropped without a word."""
    with pytest.raises(ar.SpecError, match="expected names separated by spaces"):
        ar.value(ar.L1(1.0), np.ones((2, 3)), axes=Axes(("batch", "feature"), ("batch",)))
