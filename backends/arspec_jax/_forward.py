"""The regularized forward pass: output and penalties, for every kind of model alike."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax

from arspec import Site, Sites, Spec, SpecError, UnsupportedError
from arspec._errors import did_you_mean
from arspec._sites import match_sites, unfired
from arspec._spec import at
from arspec_jax._activations import Unknown, find_output
from arspec_jax._engine import value
from arspec_jax._parts import Part
from arspec_jax._penalties import Penalties
from arspec_jax._trace import Name, Trace, trace

Array = Any
Activation = Callable[[Array], Array] | None


@dataclass(frozen=True)
class Call:
    """One call of a model as a function of arrays.

    Attributes
    ----------
    leaves : the arrays that go in.
    run : from the arrays to the arrays that come out.
    finish : from those, and the trace, to what the model returns.
    parts : the layers, asked for after `run` was traced.
    """

    leaves: Sequence[Array]
    run: Callable[..., Sequence[Array]]
    finish: Callable[[Sequence[Array], Trace], Any]
    parts: Callable[[Trace], Sequence[Part]]


class Model(Protocol):
    """What a kind of model (NNX, Linen, Equinox, function) has to say."""

    def known_parts(self) -> Sequence[Part] | None:
        """Return the layers if they are known before a call, else None."""
        ...

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Prepare a call with the arguments of the forward pass."""
        ...


class Forward:
    """A model whose forward pass returns its penalties too: `output, penalties = forward(...)`.

    Made by `attach`. It holds no arrays of the model and changes nothing in it; `sites` keeps
    shapes and values of the last call for people to read.
    """

    def __init__(self, model: Model, spec: Spec, activations: Mapping[str, Activation] | None) -> None:
        self._model = model
        self._spec = spec
        self._activations = {_slashed(path): function for path, function in (activations or {}).items()}
        self._sites: Sites | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._values: dict[str, Array] = {}
        parts = model.known_parts()
        if parts is not None:
            self._sites = self._match(parts)

    @property
    def sites(self) -> Sites:
        """The sites, with shapes and values of the last call; under jit there are no values."""
        if self._sites is None:
            raise SpecError("the layers of this model are known after its first call; call forward(...) first.")
        numbers = {key: float(v) for key, v in self._values.items() if v.shape == ()}
        return self._sites.with_results(self._shapes, numbers)

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any, Penalties]:
        """Run the model; return its output and the penalties of this pass."""
        call = self._model.call(args, kwargs)
        traced = trace(call.run, call.leaves)
        parts = {part.path: part for part in call.parts(traced)}
        sites = self._match(list(parts.values()))
        wanted = {site.key: self._variables(site, parts[site.layer], traced) for site in sites if _is_result(site)}
        outputs, tensors = _evaluate(traced, call.leaves, wanted)
        for site in sites:
            if not _is_result(site):
                tensors[site.key] = [parts[site.layer].parameters[site.rule.placement].read(*args)]
        penalties = {site.key: self._penalty(site, parts[site.layer], tensors[site.key]) for site in sites}
        self._sites = sites
        self._values = {key: penalty for key, penalty in penalties.items() if _is_concrete(penalty)}
        self._shapes = {key: tuple(found[0].shape) for key, found in tensors.items()}
        return call.finish(outputs, traced), Penalties(penalties)

    def __repr__(self) -> str:
        return repr(self._sites) if self._sites is None else repr(self.sites)

    def _match(self, parts: Sequence[Part]) -> Sites:
        known = {part.path: part for part in parts}
        for path, function in self._activations.items():
            _check_activation(path, function, known)
        return _without_repeats(match_sites(self._spec, [part.layer() for part in parts]), known)

    def _variables(self, site: Site, part: Part, traced: Trace) -> list[Any]:
        """Return the variable of each call of the layer at which the site is."""
        own = Name(site.layer, site.rule.placement)
        derived = part.is_affine and site.rule.placement == "output" and own not in {*traced.named, *traced.hidden}
        name = Name(site.layer, "pre_activation") if derived else own
        if name in traced.hidden:
            raise UnsupportedError(
                f"{site.key}: the layer runs inside {traced.hidden[name]}, where its result cannot be read. "
                "Apply such a transformation around forward(...), not inside the model, or drop the rule."
            )
        found = traced.named.get(name, [])
        if not found:
            raise unfired([site])
        if not derived or site.layer in self._activations:
            return found
        return [_known(find_output(traced.jaxpr, variable), site) for variable in found]

    def _penalty(self, site: Site, part: Part, tensors: Sequence[Array]) -> Array:
        axes = part.axes
        if not _is_result(site):
            axes = part.parameters[site.rule.placement].axes
        elif site.rule.placement == "output" and self._activations.get(site.layer) is not None:
            function: Any = self._activations[site.layer]
            tensors = [function(tensor) for tensor in tensors]
        total = None
        for tensor in tensors:
            with at(site.key):
                one = value(site.rule.penalty, tensor, axes=axes, mean_over=site.rule.mean_over)
            total = one if total is None else total + one
        return total


def _evaluate(
    traced: Trace, leaves: Sequence[Array], wanted: Mapping[str, Sequence[Any]]
) -> tuple[list[Array], dict[str, list[Array]]]:
    flat = [variable for variables in wanted.values() for variable in variables]
    outputs, found = traced.run(leaves, flat)
    values = iter(found)
    return outputs, {key: [next(values) for _ in variables] for key, variables in wanted.items()}


def _known(found: Any, site: Site) -> Any:
    if not isinstance(found, Unknown):
        return found
    raise UnsupportedError(
        f"{site.key}: which activation function belongs to the layer cannot be told: {found.reason}. Say it: "
        f"attach(model, spec, activations={{{site.layer!r}: jax.nn.relu}}), or None for no activation."
    )


def _check_activation(path: str, function: object, parts: Mapping[str, Part]) -> None:
    affine = [known for known, part in parts.items() if part.is_affine]
    if path not in affine:
        listed = ", ".join(map(repr, affine)) or "none"
        raise SpecError(
            f"activations names {path!r}; the layers that can have an activation function are {listed}."
            f"{did_you_mean(path, affine)}"
        )
    if function is not None and not callable(function):
        raise SpecError(f"activations[{path!r}]={function!r}; expected a function such as jax.nn.relu, or None.")


def _without_repeats(sites: Iterable[Site], parts: Mapping[str, Part]) -> Sites:
    """Keep a tied parameter once per rule."""
    kept, seen = [], set()
    for site in sites:
        parameter = parts[site.layer].parameters.get(site.rule.placement)
        if parameter is not None and parameter.identity is not None:
            mark = (id(site.rule), id(parameter.identity))
            if mark in seen:
                continue
            seen.add(mark)
        kept.append(site)
    return Sites(kept)


def _is_result(site: Site) -> bool:
    return site.rule.placement in ("pre_activation", "output")


def _is_concrete(x: Array) -> bool:
    return not isinstance(x, jax.core.Tracer)


def _slashed(path: str) -> str:
    return "/".join(part for part in str(path).replace("/", ".").split(".") if part)
