"""Running a function in pieces that are compiled once each, however often they recur.

XLA takes seconds for a whole model, and a check runs many that are nearly the same: the
target in several modes, and once more for each planted fault. So a function is traced as a
whole, and its equations are cut at convolutions and products. Pieces with the same equations
on the same shapes (of repeated blocks, of a fault's layers before and after the fault)
share one executable.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend import core

# Each is run a few times, so that compiling is most of it, unless there is much to compute.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_parallel_codegen_split_count": 1}
THOROUGH = {"xla_backend_optimization_level": 1}
LARGE = 1 << 17  # entries
LONGEST = 64  # equations in a piece; a call of more stays whole
_HEAVY = ("conv_general_dilated", "dot_general")
_CALLS = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}
Executable = Callable[..., Sequence[Any]]


class Pieces:
    """Executables by what they compute; `compiled` makes functions that share them."""

    def __init__(self) -> None:
        self._executables: dict[Hashable, Executable] = {}
        self._named: dict[int, tuple[Any, Hashable]] = {}  # id of a jaxpr -> the jaxpr, so that it lives, and its key

    def __len__(self) -> int:
        return len(self._executables)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, to be called with pytrees of arrays; like `jax.jit`, but run piece by piece."""
        programs: dict[Hashable, _Program] = {}

        def run(*args: Any) -> Any:
            leaves, tree = jax.tree.flatten(args)
            shapes = tuple((np.shape(leaf), np.result_type(leaf).name) for leaf in leaves)
            if (tree, shapes) not in programs:
                programs[tree, shapes] = self._program(function, args)
            return programs[tree, shapes].run(leaves)

        return run

    def _program(self, function: Callable[..., Any], args: Sequence[Any]) -> "_Program":
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        flat = _Flat(closed)
        eqns = _needed(flat.eqns, flat.outvars)
        cuts = list(_cut(eqns))
        last = _last_reads(cuts, flat.outvars)
        parts = []
        for position, own in enumerate(cuts):
            made = dict.fromkeys(v for eqn in own for v in eqn.outvars)
            invars = [v for v in _read(own) if v not in made]
            outvars = [v for v in made if last.get(v, 0) > position]
            executable = self._executable(closed.jaxpr, own, invars, outvars)
            parts.append(_Part(executable, invars, outvars, [v for v in invars if last[v] == position]))
        return _Program(flat, parts, jax.tree.structure(shapes))

    def _executable(
        self, jaxpr: core.Jaxpr, eqns: Sequence[core.JaxprEqn], invars: Sequence[Any], outvars: Sequence[Any]
    ) -> Executable:
        key = self._key(invars, outvars, eqns)
        if key not in self._executables:
            piece = jaxpr.replace(
                constvars=[],
                invars=list(invars),
                outvars=list(outvars),
                eqns=list(eqns),
                debug_info=jaxpr.debug_info.with_unknown_names(),
            )
            function = core.jaxpr_as_fun(core.ClosedJaxpr(piece, ()))
            much = sum(v.aval.size for v in (*invars, *outvars)) > LARGE or any(_is_heavy(eqn) for eqn in eqns)
            self._executables[key] = jax.jit(function, compiler_options=THOROUGH if much else QUICK)
        return self._executables[key]

    # What a piece computes, but for the names of its variables.

    def _key(self, invars: Sequence[Any], outvars: Sequence[Any], eqns: Sequence[core.JaxprEqn]) -> Hashable:
        numbers: dict[Any, int] = {}
        for variable in (*invars, *(v for eqn in eqns for v in eqn.outvars)):
            numbers[variable] = len(numbers)

        def name(atom: Any) -> Hashable:
            return (atom.aval, _bits(atom.val)) if isinstance(atom, core.Literal) else numbers[atom]

        return (
            tuple(variable.aval for variable in invars),
            tuple(
                (
                    eqn.primitive,
                    self._parameter(_own_parameters(eqn)),
                    tuple(map(name, eqn.invars)),
                    tuple(v.aval for v in eqn.outvars),
                )
                for eqn in eqns
            ),
            tuple(map(name, outvars)),
        )

    def _parameter(self, value: Any) -> Hashable:
        """Return a key for a parameter of an equation; equal ones compute the same."""
        if isinstance(value, core.ClosedJaxpr):
            return (self._parameter(value.jaxpr), tuple(map(_bits, value.consts)))
        if isinstance(value, core.Jaxpr):
            if id(value) not in self._named:
                invars = (*value.constvars, *value.invars)
                self._named[id(value)] = value, self._key(invars, value.outvars, value.eqns)
            return self._named[id(value)][1]
        if isinstance(value, Mapping):
            return tuple((key, self._parameter(value[key])) for key in sorted(value))
        if isinstance(value, tuple | list):
            return (type(value), *map(self._parameter, value))
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return _bits(value)
        return (type(value), repr(value) if isinstance(value, float | complex) else value)


@dataclass(frozen=True, slots=True)
class _Part:
    executable: Executable
    invars: Sequence[Any]
    outvars: Sequence[Any]
    finished: Sequence[Any]  # read here for the last time


@dataclass(frozen=True, slots=True)
class _Program:
    """A function as a sequence of executables."""

    flat: "_Flat"
    parts: Sequence[_Part]
    tree: Any

    def run(self, leaves: Sequence[Any]) -> Any:
        """Run the pieces; what nobody reads any more is freed at once."""
        held = dict(zip((*self.flat.constvars, *self.flat.invars), (*self.flat.consts, *leaves), strict=True))
        for part in self.parts:
            results = part.executable(*(held[v] for v in part.invars))
            for variable in part.finished:
                del held[variable]
            held.update(zip(part.outvars, results, strict=True))
        found = [atom.val if isinstance(atom, core.Literal) else held[atom] for atom in self.flat.outvars]
        return jax.tree.unflatten(self.tree, found)


class _Flat:
    """A closed jaxpr whose short calls are dissolved."""

    def __init__(self, closed: core.ClosedJaxpr) -> None:
        self.invars = list(closed.jaxpr.invars)
        self.constvars, self.consts = list(closed.jaxpr.constvars), list(closed.consts)
        self.eqns: list[core.JaxprEqn] = []
        self.outvars = self._add(closed.jaxpr, {})

    def _add(self, jaxpr: core.Jaxpr, renamed: dict[Any, Any]) -> list[Any]:
        def named(atom: Any) -> Any:
            return atom if isinstance(atom, core.Literal) else renamed.get(atom, atom)

        for eqn in jaxpr.eqns:
            inputs = [named(atom) for atom in eqn.invars]
            inner = eqn.params.get(_CALLS.get(eqn.primitive.name, ""))
            if inner is not None and not (eqn.primitive.name == "jit" and _is_long(inner.jaxpr)):
                outputs = self._dissolved(inner, inputs)
            else:
                outputs = [v if isinstance(v, core.DropVar) else core.Var(v.aval) for v in eqn.outvars]
                self.eqns.append(eqn.replace(invars=inputs, outvars=outputs))
            renamed.update(zip(eqn.outvars, outputs, strict=True))
        return [named(atom) for atom in jaxpr.outvars]

    def _dissolved(self, inner: core.ClosedJaxpr, inputs: list[Any]) -> list[Any]:
        copies = [core.Var(v.aval) for v in inner.jaxpr.constvars]
        self.constvars += copies
        self.consts += inner.consts
        names = (*inner.jaxpr.constvars, *inner.jaxpr.invars)
        return self._add(inner.jaxpr, dict(zip(names, (*copies, *inputs), strict=True)))


def _is_heavy(eqn: core.JaxprEqn) -> bool:
    return eqn.primitive.name in _HEAVY


def _is_long(jaxpr: core.Jaxpr) -> bool:
    """Return whether a call is a piece of its own: it is long, and without what pieces are cut at."""
    eqns = list(_within(jaxpr))
    return len(eqns) > LONGEST and not any(map(_is_heavy, eqns))


def _within(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    for eqn in jaxpr.eqns:
        inner = eqn.params.get(_CALLS.get(eqn.primitive.name, ""))
        if inner is None:
            yield eqn
        else:
            yield from _within(inner.jaxpr)


def _needed(eqns: Sequence[core.JaxprEqn], outvars: Sequence[Any]) -> list[core.JaxprEqn]:
    """Leave out equations whose results nobody uses."""
    used = {v for v in outvars if not isinstance(v, core.Literal)}
    kept = []
    for eqn in reversed(eqns):
        if eqn.effects or any(v in used for v in eqn.outvars):
            kept.append(eqn)
            used.update(v for v in eqn.invars if not isinstance(v, core.Literal))
    return kept[::-1]


def _cut(eqns: Sequence[core.JaxprEqn]) -> Iterator[list[core.JaxprEqn]]:
    """Begin a piece at what takes long to compile, and at calls that stay whole."""
    piece: list[core.JaxprEqn] = []
    for eqn in eqns:
        alone = any(True for _ in core.jaxprs_in_params(eqn.params)) or eqn.primitive.name.startswith("arspec")
        if piece and (alone or _is_heavy(eqn) or len(piece) >= LONGEST):
            yield piece
            piece = []
        piece.append(eqn)
        if alone:
            yield piece
            piece = []
    if piece:
        yield piece


def _own_parameters(eqn: core.JaxprEqn) -> Mapping[str, Any]:
    """Return the parameters that say what an equation computes, without its rules of differentiation."""
    body = _CALLS.get(eqn.primitive.name)
    return eqn.params if body is None else {body: eqn.params[body]}


def _read(eqns: Sequence[core.JaxprEqn]) -> dict[Any, None]:
    return dict.fromkeys(v for eqn in eqns for v in eqn.invars if not isinstance(v, core.Literal))


def _last_reads(cuts: Sequence[Sequence[core.JaxprEqn]], outvars: Sequence[Any]) -> dict[Any, int]:
    """Return for each variable the last piece that reads it; for a result, one behind the last."""
    last = {v: position for position, piece in enumerate(cuts) for v in _read(piece)}
    return last | {v: len(cuts) for v in outvars if not isinstance(v, core.Literal)}


def _bits(value: Any) -> Hashable:
    """Return a key for numbers that tells -0.0 from 0.0."""
    array = np.asarray(value)
    return (array.shape, array.dtype.str, array.tobytes())
