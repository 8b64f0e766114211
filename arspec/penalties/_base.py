"""What every penalty has in common: composition, components, and its registration by name."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

from arspec._axes import AXIS_NAMES, Axes
from arspec._errors import SpecError, require_number, shown, unknown
from arspec._namespace import Array, Namespace

# Types of parameters, with the range that the JSON Schema says.
Positive = Annotated[float, {"exclusiveMinimum": 0}]
Proportion = Annotated[float, {"exclusiveMinimum": 0, "exclusiveMaximum": 1}]


class Component(NamedTuple):
    """One simple penalty with the coefficient it carries inside a composition."""

    coefficient: float
    penalty: Any


class Penalty:
    """A function of tensors that *is* its equation: value = coefficient · Σ mean terms(x).

    A subclass is a frozen dataclass whose fields are its parameters. It defines `terms`
    and `terms_gradient` in float64 over the namespace `xp`, and nothing else, unless its
    terms do not line up one to one with x (`elementwise = False`). What it says of its terms by
    `non_negative` and `exact` lets an engine take a quicker way to the same bits.
    """

    __slots__ = ()
    name: ClassVar[str]
    elementwise: ClassVar[bool] = True
    non_negative: ClassVar[bool] = False  # whether every term is >= 0 or NaN
    exact: ClassVar[bool] = False  # whether neither the terms nor their gradient at weight 1 round
    quick: ClassVar[bool] = False  # whether `quick_sum` and `quick_gradient` are there; the terms are then >= 0 or NaN
    __array_ufunc__: ClassVar[None] = None  # np.float64(2) * penalty is ours, not NumPy's, to compute

    def __init_subclass__(cls) -> None:
        # What a class says of its terms does not hold for a subclass that has others.
        if "terms" in cls.__dict__ or "terms_gradient" in cls.__dict__:
            for flag in ("non_negative", "exact", "quick"):
                if flag not in cls.__dict__:
                    setattr(cls, flag, False)
            if "coupled" not in cls.__dict__:
                cls.coupled = Penalty.coupled

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        """Return the terms, with every axis of x (size 1 where one is reduced)."""
        raise NotImplementedError

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        """Return the gradient of Σ weight · terms(x) with respect to x; by default, autodiff's."""
        return xp.pullback(lambda x: self.terms(x, xp=xp, axes=axes), x, weight)

    def components(self) -> "tuple[Component, ...]":
        """Return the simple penalties this one is the sum of, each with its coefficient."""
        return (Component(getattr(self, "coefficient", 1.0), self),)

    def terms_shape(self, shape: tuple[int, ...], *, axes: Axes) -> tuple[int, ...]:
        """Return the shape of the terms for x of `shape`."""
        return shape

    def coupled(self, rank: int, *, axes: Axes) -> tuple[int, ...]:
        """Return the axes along which entries meet; along any other one x may be cut and evaluated piece by piece."""
        return () if self.elementwise else tuple(range(rank))

    def terms_mask(self, mask: Array, *, xp: Namespace, axes: Axes) -> Array:
        """Return which terms are valid, given which positions of x are."""
        return mask

    def quick_sum(self, x: Array, kernels: Any) -> Any:
        """Return Σ terms(x) by the fused operations of an engine (`arspec._quick.Kernels`), in any order."""
        raise NotImplementedError

    def quick_gradient(self, x: Array, weight: Any, kernels: Any, out: Any) -> Any:
        """Write the gradient of weight · Σ terms(x) into `out`, or return it where arrays cannot be written."""
        raise NotImplementedError

    @property
    def subnormal_term(self) -> float:
        """The largest term at a subnormal float32, which the definition counts as 0 and `quick_sum` does not."""
        raise NotImplementedError

    def check_values(self, x: Any) -> None:
        """Raise SpecError where NumPy sees a value outside the domain; compiled code gives NaN."""

    def __add__(self, other: object) -> "Sum":
        if not isinstance(other, Penalty):
            return NotImplemented
        return Sum(_summands(self) + _summands(other))

    def __mul__(self, factor: float) -> "Sum":
        if isinstance(factor, Penalty):
            raise SpecError("penalties can be added and scaled, not multiplied with each other.")
        number = require_number("a penalty", "factor", factor)
        return Sum(tuple((number * old, penalty) for old, penalty in _summands(self)))

    __rmul__ = __mul__


PenaltyClass = TypeVar("PenaltyClass", bound=type[Penalty])


def validated(owner: Penalty, *, non_negative: Mapping[str, object] = {}, positive: Mapping[str, object] = {}) -> None:
    """Check numbers and store them in the fields of `owner` as float (the float64 of Python)."""
    for name, value in {**non_negative, **positive}.items():
        number = require_number(type(owner).__name__, name, value, positive=name in positive)
        object.__setattr__(owner, name, number)


def axis_names(owner: Penalty, field: str, value: object) -> tuple[str, ...]:
    """Check a list of axis names that must not be empty."""
    if not isinstance(value, list | tuple) or not value:
        cure = f" For one axis write {field}=({value!r},)." if value in AXIS_NAMES else ""
        raise SpecError(f"{type(owner).__name__}: {field}={value!r}; expected a tuple of axis names, not empty.{cure}")
    for name in value:
        if name not in AXIS_NAMES:
            raise unknown(f"axis in {field}", name, AXIS_NAMES)
    if len(set(value)) != len(value):
        raise SpecError(f"{type(owner).__name__}: {field}={value!r} names an axis twice.")
    return tuple(value)


def choice(owner: Penalty, field: str, value: object, allowed: tuple[str, ...]) -> str:
    """Check a string that must be one of a few."""
    if value not in allowed:
        raise unknown(f"{field} of {type(owner).__name__}", value, allowed)
    return str(value)


def flag(owner: Penalty, field: str, value: object) -> bool:
    """Check a bool."""
    if not isinstance(value, bool):
        raise SpecError(f"{type(owner).__name__}: {field}={value!r}; expected True or False.")
    return value


def refuse_mask(owner: Penalty) -> SpecError:
    """Build the error for a mask where only a whole matrix makes sense."""
    return SpecError(f"{type(owner).__name__} is a function of a whole matrix; a mask has no meaning for it.")


@dataclass(frozen=True, slots=True)
class Sum(Penalty):
    """Σ factor_i · penalty_i, in the order written: what `a + b` and `k * a` make.

    Parameters
    ----------
    summands : pairs (factor, penalty); factors are finite and >= 0, penalties are simple.

    Example
    -------
    >>> import arspec as ar
    >>> ar.L1(1e-4) + 0.5 * ar.L2(1e-3)
    Sum(summands=((1.0, L1(coefficient=0.0001)), (0.5, L2(coefficient=0.001))))
    """

    name: ClassVar[str] = "sum"
    summands: tuple[tuple[float, Penalty], ...]

    def __post_init__(self) -> None:
        flat: list[tuple[float, Penalty]] = []
        for factor, penalty in _pairs(self.summands):
            if not is_penalty(penalty):
                raise SpecError(f"Sum: {penalty!r} is not a penalty; expected one such as L1(1e-4).")
            number = require_number("Sum", "factor", factor)
            flat += [(number * old, simple) for old, simple in _summands(penalty)]
        object.__setattr__(self, "summands", tuple(flat))
        for component in self.components():
            require_number("Sum", "factor × coefficient", component.coefficient)

    def components(self) -> tuple[Component, ...]:
        return tuple(
            Component(factor * coefficient, part)
            for factor, penalty in self.summands
            for coefficient, part in penalty.components()
        )


def _pairs(summands: Any) -> tuple[Any, ...]:
    pairs = tuple(summands) if isinstance(summands, list | tuple) else ()
    if not pairs or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise SpecError(f"Sum: summands={shown(summands)}; expected at least one pair (factor, penalty).")
    return pairs


def _summands(penalty: Any) -> tuple[tuple[float, Any], ...]:
    return penalty.summands if isinstance(penalty, Sum) else ((1.0, penalty),)


def is_penalty(candidate: object) -> bool:
    """Return whether `candidate` can be evaluated: it has terms and their gradient, or is a Sum."""
    return isinstance(candidate, Penalty)


def components(penalty: Any) -> tuple[Component, ...]:
    """Split a penalty into simple ones, each with the coefficient that multiplies its terms.

    A coefficient of 0 leaves nothing to compute, whatever x holds: 0 · inf would be NaN.
    """
    return tuple(component for component in penalty.components() if component.coefficient != 0)


# The registry is filled while this package is imported and by `register`; a name is bound once.

_REGISTRY: dict[str, type[Penalty]] = {}


def register(cls: PenaltyClass) -> PenaltyClass:
    """Bind the name of a penalty class, so that JSON documents can hold it."""
    if cls.name == Sum.name:
        raise SpecError(f"the penalty name {cls.name!r} is taken by sums of penalties.")
    known = _REGISTRY.setdefault(cls.name, cls)
    if known is not cls:
        raise SpecError(f"the penalty name {cls.name!r} is taken by {known.__module__}.{known.__qualname__}.")
    return cls


def registered() -> dict[str, type[Penalty]]:
    """Return the penalty classes that JSON documents may name."""
    return dict(_REGISTRY)


def to_document(penalty: Penalty) -> dict[str, Any]:
    """Return the JSON form of a penalty: its name and its parameters."""
    if isinstance(penalty, Sum):
        parts = [{"factor": factor, "penalty": to_document(p)} for factor, p in penalty.summands]
        return {"name": Sum.name, "summands": parts}
    parameters = {f.name: getattr(penalty, f.name) for f in fields(penalty)}  # pyright: ignore[reportArgumentType]
    return {"name": penalty.name, **{k: list(v) if isinstance(v, tuple) else v for k, v in parameters.items()}}


def parameter_names(name: object) -> tuple[list[str], list[str]]:
    """Return the required and the allowed parameters of the penalty called `name`."""
    if not isinstance(name, str) or name not in _REGISTRY:
        raise unknown("penalty", name, [*_REGISTRY, Sum.name])
    described = fields(_REGISTRY[name])  # pyright: ignore[reportArgumentType]
    required = [f.name for f in described if f.default is MISSING]
    return required, [f.name for f in described]


def from_parameters(document: Mapping[str, Any]) -> Penalty:
    """Build a simple penalty from its name and parameters, whose keys have been checked."""
    cls: Callable[..., Penalty] = _REGISTRY[document["name"]]
    return cls(**{key: value for key, value in document.items() if key != "name"})
