"""A user's own penalty: any class with a name and `terms` becomes a Penalty."""

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from arspec._errors import SpecError, require_number
from arspec.penalties import _base


def register(cls: type) -> Any:
    """Make a penalty of a class with `name` and `terms`, known to JSON documents by its name.

    Parameters
    ----------
    cls : a class (used as a decorator) with a string `name`, annotated fields for its
        parameters (one called `coefficient` multiplies the terms) and a method
        `terms(self, x, *, xp, axes)` that returns the terms of the float64 array x: one per
        entry of x. `xp` has the operations of `arspec.Namespace`; `axes` names the axes.
        Optional: `terms_gradient(self, x, weight, *, xp, axes)`, the gradient of
        Σ weight · terms. Without it the framework differentiates `terms`, and the table of
        sites says "autodiff". Terms that do not line up with x need `elementwise = False`
        and `terms_shape(self, shape, *, axes)`.

    Returns
    -------
    The class as a frozen dataclass that is a `Penalty`: it adds, scales, and works in every
    adapter.

    Raises
    ------
    SpecError: it has no name or no terms, is a dataclass that is not frozen, or the name is
        taken by another class.

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> @ar.register
    ... class Cubic:
    ...     name = "cubic_example"
    ...     coefficient: float
    ...     def terms(self, x, *, xp, axes):
    ...         return xp.power(xp.abs(x), 3)
    >>> float(ar.value(Cubic(0.5) + ar.L1(1.0), np.array([-2.0])))
    6.0
    """
    if not isinstance(cls, type) or not isinstance(getattr(cls, "name", None), str):
        raise SpecError(f"register({cls!r}): expected a class with a string attribute `name`.")
    if not callable(getattr(cls, "terms", None)):
        raise SpecError(f"register({cls.__name__}): expected a method terms(self, x, *, xp, axes).")
    return _base.register(cls if issubclass(cls, _base.Penalty) else _adopt(cls))


def _adopt(cls: type) -> type[_base.Penalty]:
    if is_dataclass(cls) and not cls.__dataclass_params__.frozen:  # pyright: ignore[reportAttributeAccessIssue]
        raise SpecError(f"register({cls.__name__}): the dataclass is not frozen; write @dataclass(frozen=True).")
    inherited = getattr(cls, "__post_init__", None)

    def check(self: Any) -> None:
        if any(field.name == "coefficient" for field in fields(self)):
            number = require_number(cls.__name__, "coefficient", self.coefficient)
            object.__setattr__(self, "coefficient", number)
        if inherited is not None:
            inherited(self)

    body = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__annotations__": dict(getattr(cls, "__annotations__", {})),
        "__post_init__": check,
    }
    return dataclass(frozen=True)(type(cls.__name__, (cls, _base.Penalty), body))


def uses_autodiff(penalty: Any) -> bool:
    """Return whether a part of a penalty leaves its gradient to the framework's autodiff."""
    default = _base.Penalty.terms_gradient
    return any(type(component.penalty).terms_gradient is default for component in _base.components(penalty))
