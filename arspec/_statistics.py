"""Statistics of activations: what tutorials tell people to look at, batch by batch.

An adapter hands every batch of every site to an `Accumulator`; `result()` is a table.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, overload

import numpy as np

from arspec._errors import SpecError, UnsupportedError
from arspec._placements import ACTIVATIONS
from arspec._rule import Rule
from arspec._spec import Spec
from arspec._table import aligned


@dataclass(frozen=True, slots=True)
class SiteStatistics:
    """What the activations of one layer were like over all the data.

    Attributes
    ----------
    layer, placement : where.
    units : how many features there are.
    count : how many positions (examples, steps, pixels) were seen; padded ones are none.
    mean : of all entries.
    zeros : fraction of the entries that are exactly 0.
    dead : how many units were exactly 0 at every position.
    hoyer : (√n − ‖x‖₁ / ‖x‖₂) / (√n − 1) over the n units of a position, averaged over the
        positions: 0 where all units are equally active, 1 where one is. Positions without
        any activity are left out; None where there is no other, or one unit only.
    unit_means : mean of each unit.
    """

    layer: str
    placement: str
    units: int
    count: int
    mean: float
    zeros: float
    dead: int
    hoyer: float | None
    unit_means: tuple[float, ...]


class Statistics(Sequence[SiteStatistics]):
    """The statistics of every site; prints as a table."""

    def __init__(self, sites: Iterable[SiteStatistics]) -> None:
        self._sites = tuple(sites)

    def __len__(self) -> int:
        return len(self._sites)

    @overload
    def __getitem__(self, index: int) -> SiteStatistics: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[SiteStatistics, ...]: ...

    def __getitem__(self, index: Any) -> Any:
        return self._sites[index]

    def __repr__(self) -> str:
        rows = [("layer", "placement", "units", "positions", "mean", "zeros", "dead", "hoyer")]
        for site in self._sites:
            shown = (f"{site.mean:.6g}", f"{site.zeros:.2%}", f"{site.dead} of {site.units}")
            hoyer = "-" if site.hoyer is None else f"{site.hoyer:.4f}"
            rows.append((site.layer, site.placement, str(site.units), str(site.count), *shown, hoyer))
        return aligned(rows)

    def to_document(self) -> list[dict[str, Any]]:
        """Return plain lists, dicts and numbers, as JSON writes them; what is not finite is None."""
        return [{f.name: _plain(getattr(site, f.name)) for f in fields(SiteStatistics)} for site in self._sites]

    def metrics(self) -> dict[str, float]:
        """Return the numbers that a log takes: "<layer>/<placement>/mean", "zeros", "dead" and, if defined, "hoyer"."""
        found = {}
        for site in self._sites:
            numbers = {"mean": site.mean, "zeros": site.zeros, "dead": float(site.dead), "hoyer": site.hoyer}
            where = f"{site.layer}/{site.placement}"
            found.update({f"{where}/{name}": number for name, number in numbers.items() if number is not None})
        return found

    def plot(self) -> Any:
        """Return a matplotlib figure: per site, how the means of its units are distributed.

        Raises
        ------
        UnsupportedError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise UnsupportedError("a plot needs matplotlib: pip install matplotlib.") from None
        figure = Figure(figsize=(5, 2.5 * max(len(self), 1)), layout="constrained")
        for place, site in enumerate(self._sites, start=1):
            axes = figure.add_subplot(len(self), 1, place)
            axes.hist(np.asarray(site.unit_means), bins=min(50, max(site.units, 1)))
            axes.set_title(f"{site.layer}/{site.placement}: {site.dead} of {site.units} units dead")
            axes.set_xlabel("mean activation of a unit")
            axes.set_ylabel("units")
        return figure


def rules_at_activations(spec: Spec) -> list[Rule]:
    """Return the rules that say where to look.

    Raises
    ------
    SpecError: there is none.
    """
    rules = [rule for rule in spec.rules if rule.placement in ACTIVATIONS]
    if not rules:
        raise SpecError("no rule of the spec is at an activation, so there is nothing to look at.")
    return rules


class _Sums:
    """The running sums of one site; every unit has its own."""

    def __init__(self, units: int) -> None:
        self.count = 0
        self.total = np.zeros(units)
        self.zeros = np.zeros(units, np.int64)
        self.hoyer, self.active = 0.0, 0

    def add(self, rows: np.ndarray) -> None:
        self.count += len(rows)
        self.total += rows.sum(0)
        self.zeros += np.count_nonzero(rows == 0, axis=0)
        found = _hoyer(rows)
        self.hoyer += float(found.sum())
        self.active += len(found)

    def result(self, layer: str, placement: str) -> SiteStatistics:
        units, entries = len(self.total), self.count * len(self.total)
        with np.errstate(all="ignore"):
            unit_means = self.total / self.count if self.count else np.zeros(units)
        return SiteStatistics(
            layer,
            placement,
            units,
            self.count,
            float(self.total.sum() / entries) if entries else 0.0,
            float(self.zeros.sum() / entries) if entries else 0.0,
            int(np.count_nonzero(self.zeros == self.count)) if self.count else 0,
            self.hoyer / self.active if self.active and units > 1 else None,
            tuple(unit_means.tolist()),
        )


class Accumulator:
    """Adds up batches of activations; nothing of a batch is kept.

    Example
    -------
    >>> import numpy as np
    >>> found = Accumulator()
    >>> found.add("hidden", "output", np.array([[0.0, 3.0], [0.0, 1.0]]), ("batch", "feature"))
    >>> print(found.result())
    layer   placement  units  positions  mean  zeros   dead    hoyer
    hidden  output     2      2          1     50.00%  1 of 2  1.0000
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], _Sums] = {}

    def add(self, layer: str, placement: str, x: Any, names: tuple[str, ...], mask: Any = None) -> None:
        """Add one batch of one site.

        Parameters
        ----------
        layer, placement : the site.
        x : array of real numbers.
        names : of its axes; every axis but "feature" counts positions.
        mask : boolean array that broadcasts to x, true where valid, the same for all features.

        Raises
        ------
        SpecError: x has no axis "feature", or another number of units than before.
        """
        array = np.asarray(x, np.float64)
        if "feature" not in names:
            raise SpecError(
                f"{layer}/{placement} has the axes ({', '.join(names)}); statistics need an axis 'feature'."
            )
        axis = names.index("feature")
        rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
        if mask is not None:
            valid = np.broadcast_to(np.asarray(mask, bool), array.shape)
            rows = rows[np.moveaxis(valid, axis, -1).reshape(rows.shape)[:, :1].ravel()]
        sums = self._sums.setdefault((layer, placement), _Sums(rows.shape[1]))
        if len(sums.total) != rows.shape[1]:
            raise SpecError(
                f"{layer}/{placement} had {len(sums.total)} units in one batch and {rows.shape[1]} in another."
            )
        sums.add(rows)

    def result(self) -> Statistics:
        """Return the statistics of what was added, in the order in which sites came."""
        return Statistics(sums.result(*where) for where, sums in self._sums.items())


def _hoyer(rows: np.ndarray) -> np.ndarray:
    """Return the Hoyer sparsity of every row that is not all 0."""
    units = rows.shape[1]
    rows = rows[np.any(rows != 0, axis=1)]
    if units < 2:
        return np.zeros(len(rows))
    with np.errstate(all="ignore"):
        scaled = rows / np.max(np.abs(rows), axis=1, keepdims=True)
        ratio = np.abs(scaled).sum(1) / np.sqrt(np.square(scaled).sum(1))
    return (np.sqrt(units) - ratio) / (np.sqrt(units) - 1)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
