"""The regularized forward pass: output and penalties, for every kind of model alike."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import jax.numpy as jnp
from jax.core import Tracer

from arspec import Site, Sites, Spec, SpecError, UnsupportedError
from arspec._errors import did_you_mean
from arspec._masks import masks_by_layer
from arspec._placements import ACTIVATIONS
from arspec._sites import each_parameter_once, match_sites, names_layer
from arspec_jax._parts import Parameter, Part
from arspec_jax._penalties import Penalties
from arspec_jax._reading import Activation, Reading, penalty, read
from arspec_jax._sequences import Seen
from arspec_jax._trace import Trace, trace

Array = Any


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

    def trained(self, argument: Any) -> Any:
        """Return the arrays of the first argument of a call that training changes, as a pytree."""
        ...


class Forward:
    """A model whose forward pass returns its penalties too: `output, penalties = forward(...)`.

    Made by `attach`. It holds no arrays of the model and changes nothing in it; `sites` keeps
    shapes and values of the last call for people to read.
    """

    def __init__(
        self,
        model: Model,
        spec: Spec,
        activations: Mapping[str, Activation] | None,
        frozen: Sequence[str],
    ) -> None:
        self._model = model
        self._spec = spec
        self._activations = {_slashed(path): function for path, function in (activations or {}).items()}
        self._frozen = tuple(frozen)
        self._sites: Sites | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._values: dict[str, Array] = {}
        parts = model.known_parts()
        if parts is not None:
            self._sites = self._match(spec, parts)

    @property
    def spec(self) -> Spec:
        """The rules."""
        return self._spec

    @property
    def sites(self) -> Sites:
        """The sites, with shapes and values of the last call; under jit there are no values."""
        if self._sites is None:
            raise SpecError("the layers of this model are known after its first call; call forward(...) first.")
        numbers = {key: float(v) for key, v in self._values.items() if v.shape == ()}
        return self._sites.with_results(self._shapes, numbers)

    def __call__(self, *args: Any, masks: Mapping[str, Any] | None = None, **kwargs: Any) -> tuple[Any, Penalties]:
        """Run the model; return its output and the penalties of this pass.

        Parameters
        ----------
        args, kwargs : what the model takes.
        masks : by the path of a layer or a glob, a boolean array over the leading axes of its
            activations, true where they are valid; penalties there count valid positions only.
        """
        output, sites, parts, tensors = self._run(self._spec, args, kwargs)
        given = self._masks(sites, masks)
        penalties = {
            site.key: self._penalty(site, parts[site.layer], tensors[site.key], given.get(site.layer)) for site in sites
        }
        self._sites = sites
        self._values = {key: one for key, one in penalties.items() if not isinstance(one, Tracer)}
        self._shapes = {key: tuple(found[0].array.shape)[found[0].calls :] for key, found in tensors.items()}
        schedules = {site.key: site.rule.schedule for site in sites if site.rule.schedule is not None}
        in_training = tuple(site.key for site in sites if site.rule.when == "train")
        return output, Penalties(penalties, schedules, in_training)

    def __repr__(self) -> str:
        return "Forward: its layers are known after the first call" if self._sites is None else repr(self.sites)

    def activations(
        self, spec: Spec, *args: Any, **kwargs: Any
    ) -> dict[tuple[str, str], tuple[list[Seen], str | None]]:
        """Run the model; return by layer and placement what the rules of a Spec would see, and names of its axes."""
        _, sites, parts, tensors = self._run(spec, args, kwargs)
        return {(site.layer, site.rule.placement): (tensors[site.key], parts[site.layer].axes) for site in sites}

    def visible(self, spec: Spec, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """Run the model; return by layer the tensor that a rule of a Spec would see first.

        Layers whose tensor cannot be told, for which a rule would be refused, are left out.
        """
        call = self._model.call(args, kwargs)
        traced = trace(call.run, call.leaves)
        parts = {part.path: part for part in call.parts(traced)}
        readings, layers = {}, {}
        for site in self._match(spec, list(parts.values())):
            with suppress(UnsupportedError):
                readings[site.key] = read(site, parts[site.layer], traced, self._activations)
                layers[site.key] = site.layer
        _, tensors = _evaluate(traced, call.leaves, readings)
        return {layers[key]: found[0].array for key, found in tensors.items()}

    def parameters(self, *args: Any, **kwargs: Any) -> dict[tuple[str, str], Parameter]:
        """Return every parameter that a rule could name, by layer and placement, for a call with these arguments."""
        call = self._model.call(args, kwargs)
        parts = call.parts(trace(call.run, call.leaves))
        return {(part.path, name): p for part in parts for name, p in part.parameters.items()}

    def trained(self, argument: Any) -> Any:
        """Return the arrays of the first argument of a call that training changes."""
        return self._model.trained(argument)

    def _run(
        self, spec: Spec, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, Sites, dict[str, Part], dict[str, list[Seen]]]:
        call = self._model.call(args, kwargs)
        traced = trace(call.run, call.leaves)
        parts = {part.path: part for part in call.parts(traced)}
        sites = self._match(spec, list(parts.values()))
        is_traced = {site.key: _is_traced(site, parts[site.layer]) for site in sites}
        readings = {
            site.key: read(site, parts[site.layer], traced, self._activations) for site in sites if is_traced[site.key]
        }
        outputs, tensors = _evaluate(traced, call.leaves, readings)
        for site in sites:
            if not is_traced[site.key]:
                tensors[site.key] = [Seen(parts[site.layer].parameters[site.rule.placement].read())]
        return call.finish(outputs, traced), sites, parts, tensors

    def _penalty(self, site: Site, part: Part, tensors: Sequence[Seen], mask: Array | None) -> Array:
        if site.rule.placement in ACTIVATIONS:
            return penalty(site, tensors, part.axes, mask)
        parameter = part.parameters[site.rule.placement]
        is_frozen = parameter.is_frozen or any(names_layer(pattern, site.layer) for pattern in self._frozen)
        if site.rule.trainable_only and is_frozen:
            return jnp.zeros((), jnp.float64 if tensors[0].array.dtype == jnp.float64 else jnp.float32)
        return penalty(site, tensors, parameter.axes)

    def _match(self, spec: Spec, parts: Sequence[Part]) -> Sites:
        known = {part.path: part for part in parts}
        for path, function in self._activations.items():
            _check_activation(path, function, known)
        for pattern in self._frozen:
            if not any(names_layer(pattern, path) for path in known):
                raise SpecError(f"frozen names {pattern!r}, which is no layer.{did_you_mean(pattern, known)}")
        sites = match_sites(spec, [part.layer() for part in parts], serves=("when", "trainable_only"))
        return each_parameter_once(sites, lambda site: _identity(site, known))

    def _masks(self, sites: Sites, masks: Mapping[str, Any] | None) -> dict[str, Array]:
        if masks is None:
            return {}
        paths = [site.layer for site in sites if site.rule.placement in ACTIVATIONS]
        return {path: jnp.asarray(mask) for path, mask in masks_by_layer(masks, paths).items()}


def _evaluate(
    traced: Trace, leaves: Sequence[Array], readings: Mapping[str, Reading]
) -> tuple[list[Array], dict[str, list[Seen]]]:
    """Evaluate the trace; return the outputs of the model and the tensors of each site."""
    requests = [request for reading in readings.values() for request in reading.requests]
    outputs, found = traced.run(leaves, requests)
    values = iter(found)
    return outputs, {key: reading.seen([next(values) for _ in reading.requests]) for key, reading in readings.items()}


def _is_traced(site: Site, part: Part) -> bool:
    """Return whether the tensor of a site is read where the layer runs."""
    return site.rule.placement in ACTIVATIONS or part.parameters[site.rule.placement].stacked > 0


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


def _slashed(path: str) -> str:
    return "/".join(part for part in str(path).replace("/", ".").split(".") if part)
