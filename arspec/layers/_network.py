"""Network: a chain of reference layers, and what a Spec says about it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from arspec._errors import SpecError
from arspec._placements import PLACEMENTS
from arspec._reference import gradient, value
from arspec._schedules import scheduled_step
from arspec._sites import Layer, Site, Sites, each_parameter_once, match_sites
from arspec._spec import Spec
from arspec.layers._layer import Array, Record, ReferenceLayer
from arspec.layers._normalization import BatchNormalization


@dataclass(frozen=True, slots=True, eq=False)
class Penalties:
    """What a Spec says about one forward pass.

    Attributes
    ----------
    values : the value of every rule at every layer it meets, by `Site.key`, before its
        schedule; float64.
    gradients : of the total, by "layer/placement" for every parameter of the network, and
        by "input" unless that is made of integers. A parameter that several layers share
        stands under the first of them.
    total : the sum of the values, each multiplied by its schedule.
    sites : the table of what met what.
    records : the named tensors of every layer.
    """

    values: dict[str, float]
    gradients: dict[str, Array]
    total: float
    sites: Sites
    records: dict[str, Record]


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """Layers in a row, each with a name; the output of one is the input of the next.

    Parameters
    ----------
    layers : by name, in order. A name may have parts, as in "encoder/0". The directions of
        a `Bidirectional` called "encoder" are "encoder/forward" and "encoder/backward".

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> from arspec.layers import Dense, Network
    >>> network = Network({"hidden": Dense(np.array([[1.0, -2.0]]), activation="relu")})
    >>> spec = ar.Spec([ar.Rule(ar.L1(0.5), layer="hidden", placement="pre_activation")])
    >>> penalties = network.penalties(spec, np.array([[2.0], [4.0]]))
    >>> penalties.values
    {'hidden/pre_activation/l1': 4.5}
    >>> penalties.gradients["hidden/kernel"]
    array([[ 1.5, -1.5]])
    """

    layers: Mapping[str, ReferenceLayer]

    def forward(self, x: Any, /, *, mask: Any = None, training: bool = False) -> dict[str, Record]:
        """Return the record of every layer, by name.

        Parameters
        ----------
        x : input of the first layer.
        mask : boolean, over the leading axes of x; each layer hands it on, or ends it where
            its output has no such axis.
        training : whether batch normalization uses the statistics of the batch.
        """
        records: dict[str, Record] = {}
        for name, layer in self.layers.items():
            if isinstance(layer, BatchNormalization):
                records[name] = layer.forward(x, mask=mask, training=training)
            else:
                records[name] = layer.forward(x, mask=mask)
            x, mask = records[name]["output"], records[name].mask
        return records

    def penalties(
        self, spec: Spec, x: Any, /, *, mask: Any = None, training: bool = False, step: int | None = None
    ) -> Penalties:
        """Evaluate a Spec: values by key, and the gradients of their total.

        Parameters
        ----------
        spec : its rules meet the layers as in every adapter.
        x, mask, training : as for `forward`. An activation with a mask counts valid
            positions only. Without training a rule with when="train" is 0.
        step : the step of training, from 0, where a rule has a schedule.

        Raises
        ------
        SpecError: a rule matches nothing, or has a schedule and no step is given.
        """
        records = self.forward(x, mask=mask, training=training)
        sites = self.sites(spec, records)
        scheduled_step(step, [site.key for site in sites if site.rule.schedule is not None and step is None])
        values: dict[str, float] = {}
        counted = [site.rule.when == "always" or training for site in sites]
        upstream: dict[str, dict[str, Array]] = {name: {} for name in self.layers}
        total = 0.0
        for site, counts in zip(sites, counted, strict=True):
            if not counts:
                values[site.key] = 0.0
                continue
            factor = 1.0 if site.rule.schedule is None else float(np.float32(site.rule.schedule(step or 0)))
            values[site.key], slope = self._evaluate(site, records, factor)
            total += factor * values[site.key]
            name, tensor = self._place(site)
            upstream[name][tensor] = upstream[name].get(tensor, 0.0) + slope
        shapes = {site.key: np.shape(self._tensor(site, records)) for site in sites}
        gradients = self.backward(records, upstream)
        return Penalties(values, gradients, total, sites.with_results(shapes, values), records)

    def backward(
        self, records: Mapping[str, Record], upstream: Mapping[str, Mapping[str, Array]], /
    ) -> dict[str, Array]:
        """Return the gradients of input and parameters, given those of named tensors by layer.

        `upstream` holds, by the name of a layer, what its `backward` takes.
        """
        found: dict[str, Array] = {}
        at_output: Array | None = None
        for name, layer in reversed(list(self.layers.items())):
            given = dict(upstream.get(name, {}))
            if at_output is not None:
                given["output"] = given.get("output", 0.0) + at_output
            gradients = layer.backward(records[name], given)
            at_output = gradients.pop("input", None)
            found |= {f"{name}/{parameter}": g for parameter, g in gradients.items() if "initial_" not in parameter}
        return {**self._gathered(found), **({} if at_output is None else {"input": at_output})}

    def sites(self, spec: Spec, records: Mapping[str, Record]) -> Sites:
        """Return which rule meets which tensor; errors as `match_sites` in every adapter.

        Every parameter here is trainable.
        """
        layers = [_described(path, layer, records[name], prefix) for path, layer, name, prefix in self._walk()]
        parameters = self._parameters()
        return each_parameter_once(
            match_sites(spec, layers, serves=("when", "trainable_only")),
            lambda site: parameters.get(f"{site.layer}/{site.rule.placement}"),
        )

    def _walk(self) -> Iterator[tuple[str, ReferenceLayer, str, str]]:
        """Return path, layer, name of the record and prefix in it, for every layer and its parts."""
        for name, layer in self.layers.items():
            yield name, layer, name, ""
            for part, inner in layer.parts().items():
                yield f"{name}/{part}", inner, name, f"{part}/"

    def _parameters(self) -> dict[str, Array]:
        return {f"{path}/{key}": p for path, layer, _, _ in self._walk() for key, p in layer.parameters().items()}

    def _gathered(self, gradients: Mapping[str, Array]) -> dict[str, Array]:
        """Add up the gradients of shared parameters, under the first name."""
        names: dict[int, str] = {}
        found: dict[str, Array] = {}
        for name, parameter in self._parameters().items():
            first = names.setdefault(id(parameter), name)
            found[first] = found[first] + gradients[name] if first in found else gradients[name]
        return found

    def _place(self, site: Site) -> tuple[str, str]:
        """Return the name of the layer in the chain, and of the tensor in its record."""
        for path, _, name, prefix in self._walk():
            if path == site.layer:
                return name, prefix + site.rule.placement
        raise SpecError(f"no layer {site.layer!r}; there is {', '.join(self.layers)}.")

    def _tensor(self, site: Site, records: Mapping[str, Record]) -> Array:
        name, tensor = self._place(site)
        return self._owner(site).penalized(site.rule.placement, records[name][tensor])

    def _owner(self, site: Site) -> ReferenceLayer:
        return next(layer for path, layer, _, _ in self._walk() if path == site.layer)

    def _evaluate(self, site: Site, records: Mapping[str, Record], factor: float) -> tuple[float, Array]:
        """Return the value of a site and the gradient of its tensor, times the factor of the schedule."""
        (name, tensor), rule = self._place(site), site.rule
        seen = self._tensor(site, records)
        options = {
            "axes": self._owner(site).axes(rule.placement),
            "mean_over": rule.mean_over,
            "mask": records[name].masks.get(tensor),
        }
        slope = gradient(rule.penalty, seen, cotangent=factor, **options)
        return float(value(rule.penalty, seen, **options)), slope.reshape(records[name][tensor].shape)


def _described(path: str, layer: ReferenceLayer, record: Record, prefix: str) -> Layer:
    named = [name.removeprefix(prefix) for name, tensor in record.items() if name.startswith(prefix)]
    offered = [name for name in named if name in PLACEMENTS and record[prefix + name].dtype.kind == "f"]
    has_own = bool(layer.parameters() or layer.parts())
    return Layer(path, type(layer).__name__, {name: f"{path}.{name}" for name in offered}, in_globs=has_own)
