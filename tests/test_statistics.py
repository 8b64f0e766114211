"""Statistics of activations: what they count, batch by batch."""

import json

import numpy as np
import pytest

import arspec as ar
from arspec._statistics import Accumulator
from reference_layers import IMAGE, MASKS, SEQUENCE, random


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def one(*batches: np.ndarray, names: str = "batch feature", mask: np.ndarray | None = None) -> object:
    found = Accumulator()
    for batch in batches:
        found.add("hidden", "output", batch, tuple(names.split()), mask)
    return found.result()[0]


def test_what_is_counted() -> None:
    x = np.array([[0.0, 3.0, 4.0], [0.0, 0.0, 1.0]])
    site = one(x)
    assert (site.units, site.count, site.dead) == (3, 2, 1)
    assert site.mean == pytest.approx(8 / 6, rel=1e-15)
    assert site.zeros == 0.5
    assert site.unit_means == (0.0, 1.5, 2.5)
    first = (np.sqrt(3) - 7 / 5) / (np.sqrt(3) - 1)
    assert site.hoyer == pytest.approx((first + 1) / 2, rel=1e-15)


def test_hoyer_sparsity_is_that_of_the_penalty() -> None:
    """The penalty is ‖x‖₁ / ‖x‖₂, from 1 to √n; the measure goes from 1 to 0."""
    assert one(np.ones((2, 5))).hoyer == pytest.approx(0, abs=1e-15)
    assert one(np.array([[0.0, -3.0, 0.0]])).hoyer == 1
    assert one(np.array([[0.0, 1e-300, 1e-300]])).hoyer == pytest.approx(one(np.array([[0.0, 1.0, 1.0]])).hoyer)
    x = random(1, 7)
    ratio = float(ar.value(ar.Hoyer(1.0), x))
    assert one(x).hoyer == pytest.approx((np.sqrt(7) - ratio) / (np.sqrt(7) - 1), rel=1e-14)


def test_batches_add_up() -> None:
    x = relu(random(12, 7))
    whole, parts = one(x), one(x[:5], x[5:6], x[6:])
    assert (parts.units, parts.count, parts.dead, parts.zeros) == (whole.units, whole.count, whole.dead, whole.zeros)
    np.testing.assert_allclose(parts.unit_means, whole.unit_means, rtol=1e-14)
    assert parts.hoyer == pytest.approx(whole.hoyer, rel=1e-14)


def test_a_unit_is_dead_if_it_is_so_in_all_the_data() -> None:
    first, second = np.array([[0.0, 0.0, 1.0]]), np.array([[2.0, 0.0, 0.0]])
    assert one(first).dead == 2
    assert one(first, second).dead == 1


def test_features_stand_where_the_names_say() -> None:
    last = one(relu(IMAGE), names="batch height width feature")
    second = one(relu(np.moveaxis(IMAGE, -1, 1)), names="batch feature height width")
    assert last == second
    assert last.count == np.prod(IMAGE.shape[:-1])


@pytest.mark.parametrize("mask", MASKS)
def test_padded_positions_are_none(mask: str) -> None:
    valid = MASKS[mask]
    shaped = valid.reshape(valid.shape + (1,) * (3 - valid.ndim))
    masked = one(relu(SEQUENCE), names="batch time feature", mask=shaped)
    assert masked == one(relu(SEQUENCE[valid]).reshape(-1, SEQUENCE.shape[-1]))


def test_nothing_seen_and_nothing_active() -> None:
    empty = one(np.zeros((0, 3)))
    assert (empty.count, empty.mean, empty.zeros, empty.dead, empty.hoyer) == (0, 0.0, 0.0, 0, None)
    silent = one(np.zeros((2, 3)))
    assert (silent.dead, silent.zeros, silent.hoyer) == (3, 1.0, None)
    assert one(np.ones((2, 1))).hoyer is None


def test_table_and_document() -> None:
    found = Accumulator()
    found.add("a", "output", np.array([[0.0, 1.0]]), ("batch", "feature"))
    found.add("b", "pre_activation", np.array([[np.nan]]), ("batch", "feature"))
    statistics = found.result()
    assert repr(statistics).splitlines() == [
        "layer  placement       units  positions  mean  zeros   dead    hoyer",
        "a      output          2      1          0.5   50.00%  1 of 2  1.0000",
        "b      pre_activation  1      1          nan   0.00%   0 of 1  -",
    ]
    document = statistics.to_document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document[1]["mean"] is None
    assert document[0]["unit_means"] == [0.0, 1.0]
    assert [site.layer for site in statistics] == ["a", "b"]


def test_plot_shows_every_site() -> None:
    pytest.importorskip("matplotlib")
    found = Accumulator()
    for layer in "ab":
        found.add(layer, "output", relu(random(5, 7)), ("batch", "feature"))
    figure = found.result().plot()
    assert [axes.get_title() for axes in figure.axes] == [f"{x}/output: 0 of 7 units dead" for x in "ab"]


def test_what_is_refused() -> None:
    found = Accumulator()
    with pytest.raises(ar.SpecError, match="statistics need an axis 'feature'"):
        found.add("a", "output", np.ones((2, 3)), ("batch", "time"))
    found.add("a", "output", np.ones((2, 3)), ("batch", "feature"))
    with pytest.raises(ar.SpecError, match="a/output had 3 units in one batch and 4 in another"):
        found.add("a", "output", np.ones((2, 4)), ("batch", "feature"))
