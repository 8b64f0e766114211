"""Which tensor is the output of an affine layer: what its activation function gives.

JAX models apply an activation by a call, `nnx.relu(self.hidden(x))`, so it is found in the
jaxpr. From the result of the layer the equations that compute elementwise with nothing else
form its activation function, if they end in a single tensor. Where that is open to doubt,
the answer is `Unknown`, never a guess.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jax.extend import core

from arspec_jax._operations import CURVED, JAX_NN, LINEAR, SCALING, SHAPING


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why the activation function cannot be told."""

    reason: str


def find_output(jaxpr: core.Jaxpr, result: core.Var) -> core.Var | Unknown:
    """Return the variable after the activation function of a layer, or `result` if there is none."""
    users = _users(jaxpr.eqns, result)
    named = [eqn for eqn in users if _is_named(eqn, result)]
    if named:
        return _after_named(jaxpr, named[0]) if _only_user(jaxpr, users, result) else _several(users)
    curve = _Curve(jaxpr, result)
    if curve.ends:
        return curve.end()
    return _if_linear(jaxpr, result, result)


def _after_named(jaxpr: core.Jaxpr, eqn: core.JaxprEqn) -> core.Var | Unknown:
    output = eqn.outvars[0]
    if any(_is_named(user, output) for user in _users(jaxpr.eqns, output)) or _Curve(jaxpr, output).ends:
        return Unknown(f"after {_name(eqn)} comes another elementwise function")
    return output


def _if_linear(jaxpr: core.Jaxpr, result: core.Var, variable: core.Var) -> core.Var | Unknown:
    """Return `result` if nothing but linear operations meets `variable`, through changes of shape and scale."""
    for eqn in _users(jaxpr.eqns, variable):
        if _is_nonlinear_use(eqn, variable):
            return Unknown(f"its result goes into {_name(eqn)}, which is not a known activation function")
        alone = sum(not isinstance(v, core.Literal) for v in eqn.invars) == 1
        if eqn.primitive.name in SHAPING or (alone and eqn.primitive.name in SCALING):
            followed = [_if_linear(jaxpr, result, out) for out in eqn.outvars]
            unknown = next((one for one in followed if isinstance(one, Unknown)), None)
            if unknown is not None:
                return unknown
    return result


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

    def __init__(self, jaxpr: core.Jaxpr, start: core.Var) -> None:
        self._jaxpr = jaxpr
        self._shape = _shape(start)
        self._start = start
        self._steps: list[core.JaxprEqn] = []
        self._inside = {start}
        constant: set[Any] = set()
        for eqn in jaxpr.eqns:
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
        outside = [eqn for eqn in self._jaxpr.eqns if not any(eqn is step for step in within)]
        seen = any(v in hidden for eqn in outside for v in eqn.invars if not isinstance(v, core.Literal))
        return not seen and not any(v in hidden for v in self._jaxpr.outvars if not isinstance(v, core.Literal))

    def end(self) -> core.Var | Unknown:
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


def _users(eqns: Iterable[core.JaxprEqn], variable: core.Var) -> list[core.JaxprEqn]:
    return [eqn for eqn in eqns if any(v is variable for v in eqn.invars)]


def _only_user(jaxpr: core.Jaxpr, users: Sequence[core.JaxprEqn], variable: core.Var) -> bool:
    return len(users) == 1 and not any(v is variable for v in jaxpr.outvars)


def _several(users: Sequence[core.JaxprEqn]) -> Unknown:
    others = ", ".join(_name(eqn) for eqn in users)
    return Unknown(f"its result goes into {others}" + (" and out of the model" if len(users) == 1 else ""))


def _name(eqn: core.JaxprEqn) -> str:
    if eqn.primitive.name == "jit":
        return eqn.params["name"]
    return str(eqn.params.get("name") or eqn.primitive.name)


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(variable.aval.shape)
