"""Faults of placement: the wrong tensor of a model, a stale one, or none, and gradients that get lost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import arspec as ar
from arspec._placements import ACTIVATIONS
from arspec.layers import Dense, Embedding, Network, SimpleRNN
from arspec_conformance._models import Measured
from arspec_conformance.faulty._fault import Fault


@dataclass(frozen=True, slots=True, eq=False)
class Building:
    """What an adapter is asked to build, and the right adapter that can."""

    adapter: Any
    network: Network
    spec: ar.Spec
    device: str

    def right(self, **changes: Any) -> Any:
        """Build the right model, of a network or a spec with some changes."""
        asked = replace(self, **changes)
        return self.adapter.build(asked.network, asked.spec, self.device)


class Wrapped:
    """A right model whose input or result is changed on the way."""

    def __init__(
        self,
        model: Any,
        after: Callable[[Measured], Measured] = lambda found: found,
        before: Callable[[np.ndarray], np.ndarray] = lambda x: x,
    ) -> None:
        self._model, self._after, self._before = model, after, before

    def measure(self, x: np.ndarray) -> Measured:
        return self._after(self._model.measure(self._before(x)))

    def assign(self, parameters: Mapping[str, np.ndarray]) -> None:
        self._model.assign(parameters)

    def freeze(self, layer: str) -> None:
        self._model.freeze(layer)


def with_rules(change: Callable[[ar.Rule], ar.Rule]) -> Callable[[Building], Any]:
    """Return what builds a model with other rules, whose penalties keep their names."""

    def built(asked: Building) -> Any:
        rules = [change(rule) for rule in asked.spec.rules]
        wrong = asked.right(spec=ar.Spec(rules))
        x = some_input(asked.network)
        told, right = (list(asked.network.penalties(spec, x).values) for spec in (ar.Spec(rules), asked.spec))
        names = dict(zip(told, right, strict=False))
        return Wrapped(wrong, lambda found: _renamed(found, names))

    return built


def some_input(network: Network) -> np.ndarray:
    """Return something a network takes."""
    first = next(iter(network.layers.values()))
    if isinstance(first, Embedding):
        return np.zeros((2, 3), np.int64)
    *sizes, features, _ = first.parameters()["kernel"].shape
    steps = (3,) if isinstance(first, SimpleRNN) else tuple(size + 4 for size in sizes)
    return np.ones((2, *steps, features))


def _renamed(found: Measured, names: Mapping[str, str]) -> Measured:
    """Give every penalty the name it would have without the fault, whatever the order of the adapter's."""
    return replace(found, values={names.get(key, key): value for key, value in found.values.items()})


def moved(rule: ar.Rule, places: Mapping[str, str]) -> ar.Rule:
    """Return the rule at another placement, if it is at one of these."""
    return same_rule(rule, placement=places.get(rule.placement, rule.placement))


def same_rule(rule: ar.Rule, **changes: Any) -> ar.Rule:
    """Return the rule with some changes; it no longer is trainable_only."""
    names = ("layer", "placement", "mean_over")
    given = {"penalty": rule.penalty, **{name: getattr(rule, name) for name in names}, **changes}
    penalty = given.pop("penalty")
    return ar.Rule(penalty, **given)


def bias_too(asked: Building) -> Any:
    kernels = [rule for rule in asked.spec.rules if rule.placement == "kernel"]
    extra = [same_rule(rule, placement="bias", mean_over="sum") for rule in kernels if rule.penalty.name == "sum"]
    if not extra:
        return asked.right()
    names = asked.network.penalties(asked.spec, some_input(asked.network)).values
    model = asked.right(spec=ar.Spec([*asked.spec.rules, *extra]))
    return Wrapped(model, lambda found: replace(found, values={k: found.values[k] for k in names}))


def scaled(factor: float, *, values: bool = True) -> Callable[[Building], Any]:
    """Return what builds a model whose penalties count `factor` times."""

    def after(found: Measured) -> Measured:
        gradients = {name: factor * g for name, g in found.gradients.items()}
        kept = {name: factor * v for name, v in found.values.items()} if values else found.values
        return Measured(kept, factor * found.total, gradients)

    return lambda asked: Wrapped(asked.right(), after)


def stale(asked: Building) -> Any:
    model = Wrapped(asked.right())
    model.assign = lambda parameters: None  # type: ignore[method-assign]
    return model


class _Cached(Wrapped):
    def measure(self, x: np.ndarray) -> Measured:
        self.first: Measured = getattr(self, "first", None) or super().measure(x)
        return self.first


class _Piled(Wrapped):
    def measure(self, x: np.ndarray) -> Measured:
        found = super().measure(x)
        self.pile: float = getattr(self, "pile", 0.0) + found.total
        return replace(found, total=self.pile)


def first_example(asked: Building) -> Any:
    return Wrapped(asked.right(), before=lambda x: x[:1])


def transposed(asked: Building) -> Any:
    def after(found: Measured) -> Measured:
        turned = {k: g.T.reshape(g.shape) for k, g in found.gradients.items()}
        return replace(found, gradients=turned)

    return Wrapped(asked.right(), after)


def detached_below(asked: Building) -> Any:
    """The gradient stops at the layer that is penalized."""
    first = next(iter(asked.network.layers))

    def after(found: Measured) -> Measured:
        stopped = {k: 0 * g if k.startswith(f"{first}/") else g for k, g in found.gradients.items()}
        return replace(found, gradients=stopped)

    return Wrapped(asked.right(), after)


def silent(asked: Building) -> Any:
    try:
        return asked.right()
    except ar.SpecError:
        return asked.right(spec=ar.Spec([]))


def untied(asked: Building) -> Any:
    """Tied weights are written as two."""
    layers = {
        name: Dense(np.array(layer.kernel), layer.bias, layer.activation)
        for name, layer in asked.network.layers.items()
        if isinstance(layer, Dense)
    }
    model = asked.right(network=Network(layers))
    names = asked.network.penalties(asked.spec, some_input(asked.network))
    kept = {name for name in names.gradients if name != "input"}

    def after(found: Measured) -> Measured:
        values = {k: v for k, v in found.values.items() if k in names.values}
        return Measured(values, found.total, {k: g for k, g in found.gradients.items() if k in kept})

    return Wrapped(model, after)


def last_rule_wins(asked: Building) -> Any:
    if len(asked.spec.rules) < 2:
        return asked.right()
    names = list(asked.network.penalties(asked.spec, some_input(asked.network)).values)
    model = asked.right(spec=ar.Spec(asked.spec.rules[-1:]))
    return Wrapped(model, lambda found: replace(found, values=dict.fromkeys(names, found.total)))


SWAPPED = {"pre_activation": "output", "output": "pre_activation"}

FAULTS = (
    Fault("pre and post swapped", "output is before the activation.", model=with_rules(lambda r: moved(r, SWAPPED))),
    Fault(
        "post for pre",
        "pre_activation is taken after the activation function.",
        model=with_rules(lambda r: moved(r, {"pre_activation": "output"})),
    ),
    Fault("bias too", "A rule for the kernel penalizes the bias too.", model=bias_too),
    Fault(
        "bias for kernel",
        "A rule for the kernel penalizes the bias.",
        model=with_rules(
            lambda r: same_rule(r, placement="bias") if r.placement == "kernel" and r.penalty.name == "sum" else r
        ),
    ),
    Fault(
        "another layer",
        "The last layer is penalized, not the one that was named.",
        model=with_rules(lambda r: same_rule(r, layer="out") if r.layer == "hidden" else r),
    ),
    Fault(
        "only one layer",
        "A glob meets one layer.",
        model=with_rules(lambda r: same_rule(r, layer="hidden") if "*" in r.layer else r),
    ),
    Fault(
        "sum at activations",
        "Activations are summed over the batch.",
        model=with_rules(lambda r: same_rule(r, mean_over="sum") if r.placement in ACTIVATIONS else r),
    ),
    Fault("counted by two hooks", "Every penalty counts twice.", model=scaled(2.0)),
    Fault("missing in the total", "The penalties are told, and added to nothing.", model=scaled(0.0, values=False)),
    Fault("divided by replicas", "The total is divided by a number of replicas.", model=scaled(0.5, values=False)),
    Fault("stale weights", "Weights are those of the time of attach.", model=stale),
    Fault("first pass for ever", "What the first pass gave is given ever after.", model=lambda a: _Cached(a.right())),
    Fault("pile of losses", "Losses of earlier passes are added again.", model=lambda a: _Piled(a.right())),
    Fault("first example only", "Only the first example is penalized.", model=first_example),
    Fault("transposed gradient", "A kernel's gradient has the framework's layout.", model=transposed),
    Fault("gradient stops", "The gradient does not reach the layers below.", model=detached_below),
    Fault("silent rule", "A rule that matches nothing is dropped without a word.", model=silent),
    Fault("tied weights twice", "A shared weight counts at each layer.", model=untied, needs=("tied weights",)),
    Fault("last rule wins", "Of several rules only the last counts.", model=last_rule_wins),
    Fault(
        "rows of a kernel",
        "Rows of a kernel are taken for its columns.",
        model=with_rules(
            lambda r: (
                same_rule(
                    r,
                    penalty=ar.SoftOrthogonal(
                        r.penalty.coefficient, mode={"rows": "columns", "columns": "rows"}[r.penalty.mode]
                    ),
                )
                if isinstance(r.penalty, ar.SoftOrthogonal)
                else r
            )
        ),
    ),
)
