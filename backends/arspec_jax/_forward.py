"""The regularized forward pass: output and penalties, for every kind of model alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jax.core import Tracer

from arspec import Site, Sites, Spec, SpecError, UnsupportedError
from arspec._errors import did_you_mean
from arspec._sites import each_parameter_once, match_sites, unfired
from arspec._spec import at
from arspec_jax._activations import Unknown, find_output
from arspec_jax._engine import value
from arspec_jax._parts import Part
from arspec_jax._penalties import Penalties
from arspec_jax._trace import Name, Trace, trace

Array = Any
Activation = Callable[[Array], Array] | None
Tensors = dict[str, list[Array]]


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
        readings = {site.key: self._reading(site, parts[site.layer], traced) for site in sites if _is_result(site)}
        outputs, tensors = _read(traced, call.leaves, readings)
        for site in sites:
            if not _is_result(site):
                tensors[site.key] = [parts[site.layer].parameters[site.rule.placement].read(*args)]
        penalties = {site.key: _penalty(site, parts[site.layer], tensors[site.key]) for site in sites}
        self._sites = sites
        self._values = {key: penalty for key, penalty in penalties.items() if _is_concrete(penalty)}
        self._shapes = {key: tuple(found[0].shape) for key, found in tensors.items()}
        schedules = {site.key: site.rule.schedule for site in sites if site.rule.schedule is not None}
        return call.finish(outputs, traced), Penalties(penalties, schedules)

    def __repr__(self) -> str:
        return "Forward: its layers are known after the first call" if self._sites is None else repr(self.sites)

    def _match(self, parts: Sequence[Part]) -> Sites:
        known = {part.path: part for part in parts}
        for path, function in self._activations.items():
            _check_activation(path, function, known)
        sites = match_sites(self._spec, [part.layer() for part in parts])
        return each_parameter_once(sites, lambda site: _identity(site, known))

    def _reading(self, site: Site, part: Part, traced: Trace) -> "_Reading":
        """Say where the tensor of a site stands in the trace."""
        own = Name(site.layer, site.rule.placement)
        is_named = own in traced.named or own in traced.hidden or not part.is_affine
        variables = _named(site, own if is_named else Name(site.layer, "pre_activation"), traced)
        if site.rule.placement != "output" or (is_named and not part.is_custom):
            return _Reading(variables)
        if site.layer in self._activations:
            return _Reading(variables, self._activations[site.layer])
        outputs = [_known(find_output(traced.jaxpr, variable), site) for variable in variables]
        if part.is_custom and outputs != variables:
            raise _doubtful(
                site, f"a {part.kind} is not a layer of the framework, and an elementwise function follows it"
            )
        return _Reading(outputs)


@dataclass(frozen=True, slots=True)
class _Reading:
    """Variables of a trace, one per call of a layer, and a function still to be applied to them."""

    variables: list[Any]
    function: Activation = None


def _named(site: Site, name: Name, traced: Trace) -> list[Any]:
    if name in traced.hidden:
        raise UnsupportedError(
            f"{site.key}: the layer runs inside {traced.hidden[name]}, where its result cannot be read. "
            "Apply such a transformation around forward(...), not inside the model, or drop the rule."
        )
    if name not in traced.named:
        raise unfired([site])
    return traced.named[name]


def _read(traced: Trace, leaves: Sequence[Array], readings: Mapping[str, _Reading]) -> tuple[list[Array], Tensors]:
    """Evaluate the trace; return the outputs of the model and the tensors of each site."""
    flat = [variable for reading in readings.values() for variable in reading.variables]
    outputs, found = traced.run(leaves, flat)
    values = iter(found)
    tensors: Tensors = {}
    for key, reading in readings.items():
        tensors[key] = [next(values) for _ in reading.variables]
        if reading.function is not None:
            tensors[key] = [reading.function(tensor) for tensor in tensors[key]]
    return outputs, tensors


def _penalty(site: Site, part: Part, tensors: Sequence[Array]) -> Array:
    """Return the sum over the calls of a layer."""
    axes = part.axes if _is_result(site) else part.parameters[site.rule.placement].axes
    total = None
    for tensor in tensors:
        with at(site.key):
            one = value(
                site.rule.penalty, tensor, axes=axes, mean_over=site.rule.mean_over, numerics=site.rule.numerics
            )
        total = one if total is None else total + one
    return total


def _known(found: Any, site: Site) -> Any:
    if isinstance(found, Unknown):
        raise _doubtful(site, found.reason)
    return found


def _doubtful(site: Site, reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"{site.key}: which activation function belongs to the layer cannot be told: {reason}. Say it: "
        f"attach(model, spec, activations={{{site.layer!r}: jax.nn.relu}}), or None for no activation."
    )


def _check_activation(path: str, function: object, parts: Mapping[str, Part]) -> None:
    affine = [known for known, part in parts.items() if part.is_affine or part.is_custom]
    if path not in affine:
        listed = ", ".join(map(repr, affine)) or "none"
        raise SpecError(
            f"activations names {path!r}; the layers that can have an activation function are {listed}."
            f"{did_you_mean(path, affine)}"
        )
    if function is not None and not callable(function):
        raise SpecError(f"activations[{path!r}]={function!r}; expected a function such as jax.nn.relu, or None.")


def _identity(site: Site, parts: Mapping[str, Part]) -> object:
    parameter = parts[site.layer].parameters.get(site.rule.placement)
    return None if parameter is None else parameter.identity


def _is_result(site: Site) -> bool:
    return site.rule.placement in ("pre_activation", "output")


def _is_concrete(x: Array) -> bool:
    return not isinstance(x, Tracer)


def _slashed(path: str) -> str:
    return "/".join(part for part in str(path).replace("/", ".").split(".") if part)
