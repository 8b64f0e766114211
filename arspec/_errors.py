"""The two errors arspec raises, and the helpers that keep their texts alike."""

from collections.abc import Iterable
from numbers import Real
from typing import Any


class SpecError(ValueError):
    """Something written by a person is wrong: a name, a number, a shape, a document."""


class UnsupportedError(NotImplementedError):
    """The request is well formed, but this adapter, dtype or device cannot serve it."""


def did_you_mean(name: object, allowed: Iterable[str]) -> str:
    """Return " Did you mean 'kernel'?" for a near miss, else an empty string."""
    import difflib  # only where something went wrong: it would be a tenth of `import arspec`

    close = difflib.get_close_matches(str(name), list(allowed), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def unknown(kind: str, name: object, allowed: Iterable[str]) -> SpecError:
    """Build the error for a name outside a closed set, with the set and a suggestion."""
    names = sorted(allowed)
    listed = ", ".join(names) if names else "none"
    return SpecError(f"unknown {kind} {name!r}; allowed: {listed}.{did_you_mean(name, names)}")


def require_number(owner: str, name: str, value: object, *, positive: bool = False) -> float:
    """Return `value` as a finite float that is ≥ 0 (> 0 if `positive`), or raise SpecError."""
    bound = "> 0" if positive else ">= 0"
    expected = f"expected a finite number {bound}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise SpecError(f"{owner}: {name}={shown(value)}; {expected}.")
    number = _as_float(value)
    in_range = number > 0 if positive else number >= 0
    if not (in_range and number < float("inf")):
        cure = " A penalty that rewards is a negative coefficient; arspec does not define one." if number < 0 else ""
        raise SpecError(f"{owner}: {name}={shown(value)}; {expected}.{cure}")
    return abs(number)  # -0.0 is 0.0, in a document too


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer or a fraction beyond the range of float64
        return float("inf") if value > 0 else float("-inf")


def shown(value: object) -> str:
    """Return `repr(value)`, cut to a length that fits a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
