"""A forward pass as a trace, in which named tensors can be read.

A tensor in the body of a checkpoint comes out as one more result; one in the body of a scan
as one more sequence, whose first axis is that of the scan. Equations that nothing needs are
left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend import core

from arspec_jax._scope import Found, Name, Place, Scope, flatten

Array = Any
Key = tuple[int, int]  # of a scope, and of a variable in it


@dataclass(frozen=True)
class Trace:
    """The scopes of a pass and the places named in them."""

    scope: Scope
    found: Found

    @property
    def named(self) -> dict[Name, list[Place]]:
        return self.found.named

    @property
    def hidden(self) -> dict[Name, str]:
        return self.found.hidden

    def run(self, leaves: Sequence[Array], wanted: Sequence[tuple[Scope, Any]]) -> tuple[list[Array], list[Array]]:
        """Evaluate; return the outputs, and the wanted variables with an axis in front for every scan around them."""
        lifting = _Lifting(wanted)
        eqns = lifting.lift(self.scope)
        outvars = [*self.scope.outvars, *(lifting.at(scope, variable) for scope, variable in wanted)]
        jaxpr = self.scope.jaxpr.replace(
            constvars=self.scope.constvars,
            outvars=outvars,
            eqns=_needed(eqns, outvars),
            debug_info=self.scope.jaxpr.debug_info.with_unknown_names(),
        )
        values = core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, self.scope.consts))(*leaves)
        split = len(self.scope.outvars)
        return values[:split], values[split:]

    def is_unchanged(self, output: int, leaf: int) -> bool:
        """Return whether an output is an input, passed through."""
        return self.scope.outvars[output] is self.scope.invars[leaf]


def trace(function: Callable[..., Sequence[Array]], leaves: Sequence[Array]) -> Trace:
    """Trace a function of arrays to a list of arrays."""
    return Trace(*flatten(jax.make_jaxpr(function)(*leaves)))


class _Lifting:
    """Brings wanted variables out of the bodies they stand in."""

    def __init__(self, wanted: Sequence[tuple[Scope, Any]]) -> None:
        self._wanted: dict[int, list[Any]] = {}
        self._outside: dict[Key, Any] = {}
        for scope, variable in wanted:
            own = self._wanted.setdefault(id(scope), [])
            if not any(v is variable for v in own):
                own.append(variable)

    def at(self, scope: Scope, variable: Any) -> Any:
        """Return the name of a variable in the outermost scope, after `lift`."""
        while scope.parent is not None:
            variable = self._outside[id(scope), id(variable)]
            scope = scope.parent
        return variable

    def lift(self, scope: Scope) -> list[core.JaxprEqn]:
        """Return the equations of a scope, whose bodies give what is wanted of them."""
        return [
            self._extended(eqn, scope.bodies[position]) if position in scope.bodies else eqn
            for position, eqn in enumerate(scope.eqns)
        ]

    def _extended(self, eqn: core.JaxprEqn, body: Scope) -> core.JaxprEqn:
        eqns = self.lift(body)
        extra = self._wanted.get(id(body), [])
        for inner in body.bodies.values():
            extra = [*extra, *(self._outside[id(inner), id(v)] for v in self._wanted.get(id(inner), []))]
        self._wanted[id(body)] = extra
        results = [core.Var(_stacked(v.aval, eqn.params["length"]) if body.is_scan else v.aval) for v in extra]
        self._outside |= {(id(body), id(v)): result for v, result in zip(extra, results, strict=True)}
        outvars = [*body.outvars, *extra]
        jaxpr = body.jaxpr.replace(
            constvars=[],
            invars=body.invars,
            outvars=outvars,
            eqns=_needed(eqns, outvars),
            debug_info=body.jaxpr.debug_info.with_unknown_names(),
        )
        inner_jaxpr = core.ClosedJaxpr(jaxpr, ()) if isinstance(eqn.params["jaxpr"], core.ClosedJaxpr) else jaxpr
        params = {**eqn.params, "jaxpr": inner_jaxpr}
        return eqn.replace(outvars=[*eqn.outvars, *results], params=params)


def _stacked(aval: Any, length: int) -> Any:
    return aval.update(shape=(length, *aval.shape))


def _needed(eqns: Sequence[core.JaxprEqn], outvars: Sequence[Any]) -> list[core.JaxprEqn]:
    """Leave out equations whose results nobody uses."""
    used = {v for v in outvars if not isinstance(v, core.Literal)}
    kept = []
    for eqn in reversed(eqns):
        if eqn.effects or any(v in used for v in eqn.outvars):
            kept.append(eqn)
            used.update(v for v in eqn.invars if not isinstance(v, core.Literal))
    return kept[::-1]
