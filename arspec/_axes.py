"""Names for the axes of a tensor, and what a penalty may ask about them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from arspec._errors import SpecError, did_you_mean, unknown

ACTIVATION_AXES = ("batch", "time", "depth", "height", "width", "feature")
KERNEL_AXES = ("input", "output")
AXIS_NAMES = ACTIVATION_AXES + KERNEL_AXES
SPATIAL_AXES = {1: "time", 2: "height width", 3: "depth height width"}  # by how many a convolution moves along
SHORTHANDS = {"sum": (), "batchmean": ("batch",)}
MEAN = "mean"
NUMERICS = ("identical", "bounded")

_BY_RANK = {
    0: (),
    1: ("feature",),
    2: ("batch", "feature"),
    3: ("batch", "time", "feature"),
    4: ("batch", "height", "width", "feature"),
    5: ("batch", "depth", "height", "width", "feature"),
}

MeanOver = tuple[str, ...] | str


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of one tensor: their names, those averaged over, and where it is valid.

    Attributes
    ----------
    names : one name per axis of x, in order.
    mean_over : the names averaged over; every other axis is summed.
    mask : boolean array with the rank of x (size 1 where it does not vary), or None.
    dtype : the dtype x had before it was lifted to float64.
    numerics : "identical" or "bounded".
    averaged : positions of the axes averaged over.
    """

    names: tuple[str, ...]
    mean_over: tuple[str, ...] = ()
    mask: Any = field(default=None, compare=False)
    dtype: str = "float32"
    numerics: str = "identical"
    averaged: tuple[int, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # Found once: an eager engine asks for them at every evaluation.
        object.__setattr__(self, "averaged", self.indices(self.mean_over))

    def index(self, name: str) -> int:
        """Return the position of the axis called `name`."""
        if name not in self.names:
            raise SpecError(
                f"axis {name!r} is not an axis of this tensor, whose axes are {_listed(self.names)}."
                f"{did_you_mean(name, self.names)}"
            )
        return self.names.index(name)

    def indices(self, names: Iterable[str]) -> tuple[int, ...]:
        """Return the positions of several axes, in the order of the tensor."""
        return tuple(sorted(self.index(name) for name in names))

    @property
    def summed(self) -> tuple[int, ...]:
        """Positions of the axes that are summed."""
        return tuple(i for i, name in enumerate(self.names) if name not in self.mean_over)


def parse_mean_over(mean_over: object) -> MeanOver:
    """Normalize `mean_over` to a tuple of names, or to "mean" (every axis).

    Raises
    ------
    SpecError: an unknown axis or shorthand, a name twice, or another type.
    """
    if isinstance(mean_over, str):
        if mean_over == MEAN:
            return MEAN
        if mean_over in SHORTHANDS:
            return SHORTHANDS[mean_over]
        if mean_over in AXIS_NAMES:
            cure = f" For one axis write mean_over=({mean_over!r},)."
            raise SpecError(f"mean_over={mean_over!r} is an axis, not a shorthand.{cure}")
        raise unknown("mean_over shorthand", mean_over, [*SHORTHANDS, MEAN])
    if not isinstance(mean_over, list | tuple):
        raise SpecError(f"mean_over={mean_over!r}; expected a tuple of axis names, 'sum', 'batchmean' or 'mean'.")
    for name in mean_over:
        if name not in AXIS_NAMES:
            raise unknown("axis", name, AXIS_NAMES)
    if len(set(mean_over)) != len(mean_over):
        raise SpecError(f"mean_over={mean_over!r} names an axis twice.")
    return tuple(mean_over)


def parse_numerics(numerics: object) -> str:
    """Return `numerics` if it is "identical" or "bounded", or raise SpecError."""
    if numerics not in NUMERICS:
        raise unknown("numerics", numerics, NUMERICS)
    return str(numerics)


def resolve_axes(rank: int, axes: object = None, mean_over: object = ()) -> Axes:
    """Name the axes of a tensor of `rank` and check `mean_over` against them.

    Parameters
    ----------
    rank : number of axes of the tensor.
    axes : None for the channels-last names of that rank, one string of names separated
        by spaces, or a sequence of names.
    mean_over : see `parse_mean_over`.
    """
    names = _BY_RANK.get(rank) if axes is None else _names(axes)
    if names is None:
        raise SpecError(f"x has {rank} axes, for which there are no default names; say axes='batch ... feature'.")
    if len(names) != rank:
        raise SpecError(f"axes={axes!r} names {len(names)} axes, but x has {rank}.")
    parsed = parse_mean_over(mean_over)
    averaged = tuple(names) if isinstance(parsed, str) else parsed
    for name in averaged:
        if name not in names:
            raise SpecError(
                f"mean_over names {name!r}, but x has the axes {_listed(names)}. "
                "Say axes=... if they are called otherwise, or leave it out."
            )
    return Axes(names, averaged)


def _names(axes: object) -> tuple[str, ...]:
    names = tuple(axes.split()) if isinstance(axes, str) else axes
    if not isinstance(names, list | tuple):
        raise SpecError(f"axes={axes!r}; expected names separated by spaces, such as 'batch time feature'.")
    for name in names:
        if name not in AXIS_NAMES:
            raise unknown("axis", name, AXIS_NAMES)
    if len(set(names)) != len(names):
        raise SpecError(f"axes={axes!r} names an axis twice.")
    return tuple(names)


def _listed(names: Iterable[str]) -> str:
    return "(" + ", ".join(names) + ")"
