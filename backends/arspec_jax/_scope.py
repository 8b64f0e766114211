"""A traced function as scopes: one flat list of equations, and one more for every loop body with a name in it.

Nested `jit` calls are dissolved, except activation functions of `jax.nn`, which stay whole
so that they can be recognized. The body of a scan or of a checkpoint in which a tensor is
named is a scope of its own. What is named inside while, cond or a custom rule is out of
reach, and known to be.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jax.extend import core

from arspec_jax._operations import CHECKPOINTS, JAX_NN, TRANSFORMATIONS
from arspec_jax._site import Label, site_p

Array = Any


class Name(NamedTuple):
    """What `site` says about a tensor."""

    layer: str
    placement: str


@dataclass(frozen=True, eq=False)
class Place:
    """One named tensor: a variable of a scope, what is static about it, and what stands beside it."""

    scope: "Scope"
    variable: Any
    label: Label
    beside: dict[str, Any]

    @property
    def name(self) -> Name:
        return Name(self.label.layer, self.label.placement)


class Scope:
    """Equations without `jit` calls, in their order: those of a whole pass, or of a body inside it.

    Attributes
    ----------
    jaxpr : what it was made of.
    invars, constvars, outvars, eqns : as in a jaxpr; constvars are those of the outermost
        scope, further inputs of any other.
    bodies : by position in `eqns`, the scope of a scan or a checkpoint.
    parent, position : where it is a body itself.
    """

    def __init__(self, jaxpr: core.Jaxpr, parent: "Scope | None" = None, position: int = 0) -> None:
        self.jaxpr = jaxpr
        self.parent, self.position = parent, position
        self.invars = list(jaxpr.invars)
        self.constvars: list[core.Var] = list(jaxpr.constvars)
        self.consts: list[Array] = []
        self.outvars: list[Any] = []
        self.eqns: list[core.JaxprEqn] = []
        self.bodies: dict[int, Scope] = {}

    @property
    def is_scan(self) -> bool:
        return self.parent is not None and self.equation.primitive.name == "scan"

    @property
    def equation(self) -> core.JaxprEqn:
        """The equation of the parent whose body this is."""
        assert self.parent is not None
        return self.parent.eqns[self.position]

    @property
    def depth(self) -> int:
        """How many scans it is inside of."""
        return 0 if self.parent is None else self.parent.depth + self.is_scan

    def outside(self, variable: Any) -> Any:
        """Return the parent's name of an input that does not change from step to step, or None."""
        if self.parent is None or variable not in self.invars:
            return None
        index = self.invars.index(variable)
        constant = not self.is_scan or index < self.equation.params["num_consts"]
        return self.equation.invars[index] if constant else None


@dataclass(frozen=True)
class Found:
    """Names in a trace.

    Attributes
    ----------
    named : for each name, one place per call, in order.
    hidden : for each name out of reach, the name of the transformation it is in.
    """

    named: dict[Name, list[Place]]
    hidden: dict[Name, str]


def flatten(closed: core.ClosedJaxpr) -> tuple[Scope, Found]:
    """Write a closed jaxpr as scopes, and what is named in them."""
    found = Found({}, {})
    scope = Scope(closed.jaxpr)
    scope.consts += closed.consts
    _Flattening(scope, found).fill()
    return scope, found


class _Flattening:
    """Fills one scope."""

    def __init__(self, scope: Scope, found: Found) -> None:
        self._scope, self._found = scope, found

    def fill(self) -> None:
        self._scope.outvars = self._add(self._scope.jaxpr, {})

    def _add(self, jaxpr: core.Jaxpr, renamed: dict[core.Var, Any]) -> list[Any]:
        """Add the equations under the scope's names of the variables; return the results."""
        for eqn in jaxpr.eqns:
            inputs = [_renamed(v, renamed) for v in eqn.invars]
            if eqn.primitive is site_p:
                outputs = [self._note(eqn.params["label"], inputs)]
            elif eqn.primitive.name == "jit" and eqn.params["name"] not in JAX_NN:
                outputs = self._dissolve(eqn.params["jaxpr"], inputs)
            else:
                outputs = self._keep(eqn, inputs)
            renamed.update(zip(eqn.outvars, outputs, strict=True))
        return [_renamed(v, renamed) for v in jaxpr.outvars]

    def _note(self, label: Label, inputs: list[Any]) -> Any:
        place = Place(self._scope, inputs[0], label, dict(zip(label.beside, inputs[1:], strict=True)))
        self._found.named.setdefault(place.name, []).append(place)
        return inputs[0]

    def _keep(self, eqn: core.JaxprEqn, inputs: list[Any]) -> list[core.Var]:
        outputs = [v if isinstance(v, core.DropVar) else core.Var(v.aval) for v in eqn.outvars]
        kept, names = eqn.replace(invars=inputs, outvars=outputs), list(_names_inside(eqn))
        self._scope.eqns.append(kept)
        if names and (eqn.primitive.name == "scan" or eqn.primitive.name in CHECKPOINTS):
            self._enter(kept)
        else:
            for name in names:
                self._found.hidden.setdefault(name, TRANSFORMATIONS.get(eqn.primitive.name, eqn.primitive.name))
        return outputs

    def _enter(self, eqn: core.JaxprEqn) -> None:
        """Make a scope of the body; constants in it become inputs, in front."""
        body = eqn.params["jaxpr"]
        inner = body.jaxpr if isinstance(body, core.ClosedJaxpr) else body
        scope = Scope(inner, self._scope, len(self._scope.eqns) - 1)
        scope.consts += body.consts if isinstance(body, core.ClosedJaxpr) else []
        self._scope.bodies[scope.position] = scope
        _Flattening(scope, self._found).fill()
        if scope.constvars:
            constants = [self._constant(v, value) for v, value in zip(scope.constvars, scope.consts, strict=True)]
            params = dict(eqn.params)
            if eqn.primitive.name == "scan":
                params["num_consts"] += len(constants)
            self._scope.eqns[scope.position] = eqn.replace(invars=[*constants, *eqn.invars], params=params)
            scope.invars, scope.constvars, scope.consts = [*scope.constvars, *scope.invars], [], []

    def _constant(self, variable: core.Var, value: Array) -> core.Var:
        copy = core.Var(variable.aval)
        self._scope.constvars.append(copy)
        self._scope.consts.append(value)
        return copy

    def _dissolve(self, closed: core.ClosedJaxpr, inputs: list[Any]) -> list[Any]:
        constvars = [self._constant(v, value) for v, value in zip(closed.jaxpr.constvars, closed.consts, strict=True)]
        names = [*closed.jaxpr.constvars, *closed.jaxpr.invars]
        return self._add(closed.jaxpr, dict(zip(names, [*constvars, *inputs], strict=True)))


def _renamed(atom: Any, renamed: dict[core.Var, Any]) -> Any:
    return atom if isinstance(atom, core.Literal) else renamed.get(atom, atom)


def _names_inside(eqn: core.JaxprEqn) -> Iterator[Name]:
    for jaxpr in core.jaxprs_in_params(eqn.params):
        for inner in jaxpr.eqns:
            if inner.primitive is site_p:
                yield Name(*inner.params["label"][:2])
            yield from _names_inside(inner)


def hoisted(scope: Scope, variable: Any) -> tuple[Scope, Any]:
    """Return the outermost scope in which a variable that stays the same in every step is known."""
    while (outer := scope.outside(variable)) is not None:
        assert scope.parent is not None
        scope, variable = scope.parent, outer
    return scope, variable


def is_used(variable: Any, atoms: Sequence[Any]) -> bool:
    """Return whether a variable is among atoms, some of which may be literals."""
    return any(atom is variable for atom in atoms)
