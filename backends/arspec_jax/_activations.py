"""Which tensor is the output of an affine layer: what its activation function gives.

JAX models apply an activation by a call, `nnx.relu(self.hidden(x))`, so it is found in the
jaxpr. From the result of the layer the equations that compute elementwise with nothing else
form its activation function, if they end in a single tensor. A result that leaves the body
of a checkpoint or a scan is followed outside. Where anything is open to doubt, the answer is
`Unknown`, never a guess.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jax.extend import core

from arspec_jax._operations import CURVED, JAX_NN, LINEAR, SCALING, SHAPING, TRANSFORMATIONS
from arspec_jax._scope import Scope, is_used

Spot = tuple[Scope, Any]  # a variable and where it lives


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why the activation function cannot be told."""

    reason: str


def find_output(scope: Scope, result: Any) -> Spot | Unknown:
    """Return the variable after the activation function of a layer, or `result` if there is none."""
    users = _users(scope.eqns, result)
    named = [eqn for eqn in users if _is_named(eqn, result)]
    if named:
        return _after_named(scope, named[0]) if _only_user(scope, users, result) else _several(users)
    if _leaves(scope, result):
        return _outside(scope, result) if not users else _several(users)
    curve = _Curve(scope, result)
    if curve.ends:
        return _located(scope, curve.end())
    return _located(scope, _if_linear(scope, result, result))


def _located(scope: Scope, found: Any) -> Spot | Unknown:
    return found if isinstance(found, Unknown) else (scope, found)


def _leaves(scope: Scope, variable: Any) -> bool:
    """Return whether a variable is a result of a body."""
    return scope.parent is not None and is_used(variable, scope.outvars)


def _outside(scope: Scope, result: Any) -> Spot | Unknown:
    """Follow a result that leaves a body as it is."""
    positions = [index for index, v in enumerate(scope.outvars) if v is result]
    carried = scope.is_scan and positions[0] < scope.equation.params["num_carry"]
    if carried or len(positions) > 1 or scope.parent is None:
        return Unknown(f"its result goes into the next step of a {_name(scope.equation)}")
    outer = scope.equation.outvars[positions[0]]
    found = find_output(scope.parent, outer)
    # No activation function outside: the tensor inside is the same one.
    return (scope, result) if found == (scope.parent, outer) else found


def _after_named(scope: Scope, eqn: core.JaxprEqn) -> Spot | Unknown:
    output = eqn.outvars[0]
    again = any(_is_named(user, output) for user in _users(scope.eqns, output))
    if again or _Curve(scope, output).ends or _bends_outside(scope, output):
        return Unknown(f"after {_name(eqn)} comes another elementwise function")
    return scope, output


def _bends_outside(scope: Scope, output: Any) -> bool:
    """Return whether an elementwise function follows what leaves a body as one of its results."""
    if not _leaves(scope, output) or scope.parent is None:
        return False
    outer = scope.equation.outvars[next(index for index, v in enumerate(scope.outvars) if v is output)]
    users = _users(scope.parent.eqns, outer)
    return any(_is_named(eqn, outer) for eqn in users) or bool(_Curve(scope.parent, outer).ends)


def _if_linear(scope: Scope, result: Any, variable: Any) -> Any:
    """Return `result` if nothing but linear operations meets `variable`, through changes of shape and scale."""
    if variable is not result and _leaves(scope, variable):
        return Unknown(f"its result leaves {_transformation(scope)} before any activation function")
    for position, eqn in enumerate(scope.eqns):
        if not is_used(variable, eqn.invars):
            continue
        if position in scope.bodies:
            followed = _into_body(scope.bodies[position], eqn, variable)
        elif _is_nonlinear_use(eqn, variable):
            followed = [Unknown(f"its result goes into {_name(eqn)}, which is not a known activation function")]
        else:
            followed = [_if_linear(scope, result, out) for out in eqn.outvars] if _keeps_values(eqn) else []
        unknown = next((one for one in followed if isinstance(one, Unknown)), None)
        if unknown is not None:
            return unknown
    return result


def _into_body(body: Scope, eqn: core.JaxprEqn, variable: Any) -> list[Any]:
    inside = [inner for outer, inner in zip(eqn.invars, body.invars, strict=True) if outer is variable]
    return [_if_linear(body, inner, inner) for inner in inside]


def _keeps_values(eqn: core.JaxprEqn) -> bool:
    alone = sum(not isinstance(v, core.Literal) for v in eqn.invars) == 1
    return eqn.primitive.name in SHAPING or (alone and eqn.primitive.name in SCALING)


def _transformation(scope: Scope) -> str:
    name = scope.equation.primitive.name
    return TRANSFORMATIONS.get(name, name)


def _is_nonlinear_use(eqn: core.JaxprEqn, variable: core.Var) -> bool:
    name, places = eqn.primitive.name, [index for index, v in enumerate(eqn.invars) if v is variable]
    if name == "select_n":
        return 0 in places
    if name in ("div", "gather", "dynamic_slice", "pad"):
        return places != [0]
    if name in ("mul", "dot_general", "conv_general_dilated"):
        return len(places) > 1
    return name not in LINEAR | SHAPING | SCALING


class _Curve:
    """The elementwise equations that depend on one variable and on constants alone."""

    def __init__(self, scope: Scope, start: Any) -> None:
        self._scope = scope
        self._shape = _shape(start)
        self._start = start
        self._steps: list[core.JaxprEqn] = []
        self._inside = {start}
        constant: set[Any] = set()
        for eqn in scope.eqns:
            inputs = [v for v in eqn.invars if not isinstance(v, core.Literal)]
            if all(v in constant for v in inputs) and not eqn.effects:
                constant.update(eqn.outvars)
            elif all(v in constant or v in self._inside for v in inputs) and self._is_elementwise(eqn):
                self._steps.append(eqn)
                self._inside.update(eqn.outvars)
        self.ends = self._closings()

    def _is_elementwise(self, eqn: core.JaxprEqn) -> bool:
        kinds = SCALING | CURVED
        known = eqn.primitive.name in kinds or any(_is_named(eqn, v) for v in eqn.invars)
        return known and all(_shape(v) == self._shape for v in eqn.outvars)

    def _closings(self) -> list[int]:
        """Positions of steps whose result is all that the rest of the model sees, the first curved one on."""
        curved = [self._is_curved(eqn) for eqn in self._steps]
        return [i for i in range(len(self._steps)) if any(curved[: i + 1]) and self._closes(i)]

    def _is_curved(self, eqn: core.JaxprEqn) -> bool:
        name = eqn.primitive.name
        if name not in SCALING:
            return True
        places = [i for i, v in enumerate(eqn.invars) if not isinstance(v, core.Literal) and v in self._inside]
        return (name == "mul" and len(places) > 1) or (name == "div" and places != [0])

    def _closes(self, last: int) -> bool:
        within = self._steps[: last + 1]
        hidden = {self._start, *(v for eqn in within for v in eqn.outvars)} - set(self._steps[last].outvars)
        outside = [eqn for eqn in self._scope.eqns if not any(eqn is step for step in within)]
        seen = any(v in hidden for eqn in outside for v in eqn.invars if not isinstance(v, core.Literal))
        return not seen and not any(v in hidden for v in self._scope.outvars if not isinstance(v, core.Literal))

    def end(self) -> Any:
        """Return the only tensor at which the function can end."""
        if len(self.ends) == 1 or all(not self._changes(self._steps[i]) for i in self.ends[1:]):
            return self._steps[self.ends[0]].outvars[0]
        names = ", ".join(_name(self._steps[i]) for i in self.ends)
        return Unknown(f"its activation function may end at any of {names}")

    def _changes(self, eqn: core.JaxprEqn) -> bool:
        return eqn.primitive.name not in ("copy", "copy_p", "convert_element_type")


def _is_named(eqn: core.JaxprEqn, variable: Any) -> bool:
    """Return whether `eqn` is an activation function by itself: f(variable), of the same shape."""
    name, operands = eqn.primitive.name, [v for v in eqn.invars if not isinstance(v, core.Literal)]
    if operands != [variable] or len(eqn.outvars) != 1:
        return False
    if _shape(eqn.outvars[0]) != _shape(variable):
        return False
    if name == "jit":
        return eqn.params["name"] in JAX_NN
    return name in ("tanh", "logistic", "custom_jvp_call") or (name == "max" and len(eqn.invars) == 2)


def _users(eqns: Iterable[core.JaxprEqn], variable: Any) -> list[core.JaxprEqn]:
    return [eqn for eqn in eqns if is_used(variable, eqn.invars)]


def _only_user(scope: Scope, users: Sequence[core.JaxprEqn], variable: Any) -> bool:
    return len(users) == 1 and not is_used(variable, scope.outvars)


def _several(users: Sequence[core.JaxprEqn]) -> Unknown:
    others = ", ".join(_name(eqn) for eqn in users)
    return Unknown(f"its result goes into {others}" + (" and out of the model" if len(users) == 1 else ""))


def _name(eqn: core.JaxprEqn) -> str:
    if eqn.primitive.name == "jit":
        return eqn.params["name"]
    return str(eqn.params.get("name") or eqn.primitive.name)


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(variable.aval.shape)
