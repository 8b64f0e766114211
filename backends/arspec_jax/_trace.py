"""A forward pass as one flat jaxpr, in which named tensors can be read.

Nested `jit` calls are dissolved, except activation functions of `jax.nn`, which stay whole
so that they can be recognized. What is named inside scan, remat, cond or a custom rule is
out of reach, and known to be.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax.extend import core

from arspec_jax._operations import JAX_NN, TRANSFORMATIONS
from arspec_jax._site import site_p

Array = Any


class Name(NamedTuple):
    """What `site` says about a tensor."""

    layer: str
    placement: str


@dataclass(frozen=True)
class Trace:
    """A flat jaxpr and the named variables in it.

    Attributes
    ----------
    jaxpr : without `jit` calls, but for activation functions.
    consts : values of its constvars.
    named : for each name, one variable per call, in order.
    hidden : for each name inside a transformation, the name of that transformation.
    """

    jaxpr: core.Jaxpr
    consts: tuple[Array, ...]
    named: dict[Name, list[core.Var]]
    hidden: dict[Name, str]

    def run(self, leaves: Sequence[Array], wanted: Sequence[core.Var]) -> tuple[list[Array], list[Array]]:
        """Evaluate and return the outputs and the `wanted` variables."""
        extended = self.jaxpr.replace(outvars=[*self.jaxpr.outvars, *wanted])
        values = core.jaxpr_as_fun(core.ClosedJaxpr(extended, self.consts))(*leaves)
        split = len(self.jaxpr.outvars)
        return values[:split], values[split:]

    def is_unchanged(self, output: int, leaf: int) -> bool:
        """Return whether an output is an input, passed through."""
        return self.jaxpr.outvars[output] is self.jaxpr.invars[leaf]


def trace(function: Callable[..., Sequence[Array]], leaves: Sequence[Array]) -> Trace:
    """Trace a function of arrays to a list of arrays."""
    closed = jax.make_jaxpr(function)(*leaves)
    return _Flattening(closed).result()


class _Flattening:
    """Writes the equations of a closed jaxpr in one list, and what it finds named on the way."""

    def __init__(self, closed: core.ClosedJaxpr) -> None:
        self._closed = closed
        self._constvars, self._consts = list(closed.jaxpr.constvars), list(closed.consts)
        self._eqns: list[core.JaxprEqn] = []
        self._named: dict[Name, list[core.Var]] = {}
        self._hidden: dict[Name, str] = {}

    def result(self) -> Trace:
        outvars = self._add(self._closed.jaxpr, {})
        jaxpr = self._closed.jaxpr.replace(constvars=self._constvars, outvars=outvars, eqns=self._eqns)
        return Trace(jaxpr, tuple(self._consts), self._named, self._hidden)

    def _add(self, jaxpr: core.Jaxpr, renamed: dict[core.Var, Any]) -> list[Any]:
        """Add the equations under the caller's names of the variables; return the results."""
        for eqn in jaxpr.eqns:
            inputs = [_renamed(v, renamed) for v in eqn.invars]
            if eqn.primitive is site_p:
                self._named.setdefault(Name(**eqn.params), []).append(inputs[0])
                outputs = inputs
            elif eqn.primitive.name == "jit" and eqn.params["name"] not in JAX_NN:
                outputs = self._dissolve(eqn.params["jaxpr"], inputs)
            else:
                outputs = self._keep(eqn, inputs)
            renamed.update(zip(eqn.outvars, outputs, strict=True))
        return [_renamed(v, renamed) for v in jaxpr.outvars]

    def _keep(self, eqn: core.JaxprEqn, inputs: list[Any]) -> list[core.Var]:
        for name in _names_inside(eqn):
            self._hidden.setdefault(name, TRANSFORMATIONS.get(eqn.primitive.name, eqn.primitive.name))
        outputs = [v if isinstance(v, core.DropVar) else core.Var(v.aval) for v in eqn.outvars]
        self._eqns.append(eqn.replace(invars=inputs, outvars=outputs))
        return outputs

    def _dissolve(self, closed: core.ClosedJaxpr, inputs: list[Any]) -> list[Any]:
        constvars = [core.Var(v.aval) for v in closed.jaxpr.constvars]
        self._constvars += constvars
        self._consts += closed.consts
        names = [*closed.jaxpr.constvars, *closed.jaxpr.invars]
        return self._add(closed.jaxpr, dict(zip(names, [*constvars, *inputs], strict=True)))


def _renamed(atom: Any, renamed: dict[core.Var, Any]) -> Any:
    return atom if isinstance(atom, core.Literal) else renamed.get(atom, atom)


def _names_inside(eqn: core.JaxprEqn) -> Iterator[Name]:
    for jaxpr in core.jaxprs_in_params(eqn.params):
        for inner in jaxpr.eqns:
            if inner.primitive is site_p:
                yield Name(**inner.params)
            yield from _names_inside(inner)
