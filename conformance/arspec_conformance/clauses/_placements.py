"""Tier P: small networks on which nothing is rounded, each placement and its gradients to the bit."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

import arspec as ar
from arspec._placements import ACTIVATIONS
from arspec.layers import Convolution, Dense, Network
from arspec_conformance._models import Measured
from arspec_conformance.bench import Bench, Violation
from arspec_conformance.clauses._clause import Clause

BATCHES = (4, 2)  # powers of two, so that a mean is exact
INPUTS, WIDTH, OUTPUTS = 3, 5, 2
PENALTY = ar.L1(0.5) + ar.L2(0.25)


def clauses() -> Iterator[Clause]:
    """Yield the clauses about models."""
    for number, (sentence, check, more) in enumerate(_ROWS, start=1):
        level, needs = (1 if number == 1 else 2), ("placements", *more)
        yield Clause(f"Model-P{number}", sentence, "P", check, level=level, needs=needs, once=True)


def network(shared: bool = False) -> Network:
    """Return a net of two or three layers whose every number is a small multiple of ¼, biases not 0."""
    rng = np.random.default_rng(2026)

    def quarters(*shape: int) -> np.ndarray:
        return rng.integers(-6, 7, shape) / 4

    def bias(size: int) -> np.ndarray:
        return rng.choice([-1.0, 1.0], size) * rng.integers(1, 5, size) / 4

    hidden = Dense(quarters(INPUTS, WIDTH), bias(WIDTH), "relu")
    square = Dense(quarters(WIDTH, WIDTH), bias(WIDTH), "relu")
    out = Dense(quarters(WIDTH, OUTPUTS), bias(OUTPUTS))
    if shared:
        again = Dense(square.kernel, bias(WIDTH), "relu")
        object.__setattr__(again, "kernel", square.kernel)  # one array, as tied layers have it
        return Network({"hidden": hidden, "first": square, "second": again, "out": out})
    return Network({"hidden": hidden, "out": out})


def convolutions(*sizes: tuple[int, ...]) -> Network:
    """Return a net of two convolutions with kernels of these sizes."""
    rng = np.random.default_rng(2026)
    features, layers = (INPUTS, WIDTH, OUTPUTS), {}
    for name, size, ins, outs in zip(("hidden", "out"), sizes, features[:-1], features[1:], strict=True):
        kernel, bias = rng.integers(-6, 7, (*size, ins, outs)) / 4, rng.integers(1, 5, outs) / 4
        layers[name] = Convolution(kernel, bias, activation="relu" if name == "hidden" else "linear")
    return Network(layers)


def batch(size: int, seed: int = 0, *spatial: int) -> np.ndarray:
    """Return inputs that are small multiples of ½."""
    return np.random.default_rng([seed, size]).integers(-4, 5, (size, *spatial, INPUTS)) / 2


def rule(placement: str, layer: str = "hidden", penalty: ar.Penalty = PENALTY, **options: Any) -> ar.Rule:
    return ar.Rule(penalty, layer=layer, placement=placement, **options)


def at(placement: str, **options: Any) -> Callable[[Bench], None]:
    """Return the check of one placement of a hidden layer and of the last one."""

    def check(bench: Bench) -> None:
        for layer in ("hidden", "out"):
            agree(bench, network(), ar.Spec([rule(placement, layer, **options)]))

    return check


def agree(bench: Bench, net: Network, spec: ar.Spec, *spatial: int) -> None:
    """Build the network, run it, and compare everything with the reference.

    Activations are seen in two batches of different size; parameters know no batch, and one is
    enough where a layer that is compiled slowly only says which axis is which.
    """
    model = build(bench, net, spec)
    for size in BATCHES[:1] if spatial else batches(spec):
        compare(bench, net, spec, model, batch(size, 0, *spatial))


def batches(spec: ar.Spec) -> tuple[int, ...]:
    """Return the sizes of the batches that a model with these rules is shown."""
    return BATCHES if any(rule.placement in ACTIVATIONS for rule in spec.rules) else BATCHES[:1]


def build(bench: Bench, net: Network, spec: ar.Spec) -> Any:
    """Let the adapter write the model."""
    return bench.adapter.build(net, spec, bench.device)  # pyright: ignore[reportAttributeAccessIssue]


def compare(bench: Bench, net: Network, spec: ar.Spec, model: Any, x: np.ndarray) -> None:
    """Compare one pass with the reference, bit by bit.

    Raises
    ------
    Violation: a value or a gradient differs, or is missing, or there is one too many.
    """
    right = net.penalties(spec, x)
    where = f"rules {[f'{r.layer}: {r.key}' for r in spec.rules]}, batch of {len(x)}"
    compare_with(bench, Measured(right.values, right.total, right.gradients), model, x, where)


def compare_with(bench: Bench, expected: Measured, model: Any, x: np.ndarray, where: str) -> None:
    """Compare one pass with what is expected of it, bit by bit; a gradient of the input is not."""
    found = _measured(bench, model, x)
    gradients = {name: g for name, g in expected.gradients.items() if name != "input"}
    _same_names("penalties", expected.values, found.values, where)
    _same_names("gradients", gradients, found.gradients, where)
    for key, value in expected.values.items():
        _equal(bench, f"the value of {key}", value, found.values[key], where)
    _equal(bench, "the total", expected.total, found.total, where)
    for name, gradient in gradients.items():
        _equal(bench, f"the gradient of {name}", gradient, found.gradients[name], where)


def _measured(bench: Bench, model: Any, x: np.ndarray) -> Measured:
    bench.tally.trials += 1
    try:
        return model.measure(x)
    except Exception as error:  # whatever a framework raises is a finding
        raise Violation(f"the adapter raised {type(error).__name__}: {error}"[:400]) from error


def _same_names(what: str, expected: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    if set(expected) != set(found):
        raise Violation(f"{what} are {sorted(found)}; expected {sorted(expected)}. [{where}]")


def _equal(bench: Bench, what: str, expected: Any, found: Any, where: str) -> None:
    right, got = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    if right.shape != got.shape:
        raise Violation(f"{what} has shape {got.shape}; expected {right.shape}. [{where}]")
    bench.tally.observed += right.size
    if (right != got).any():
        index = tuple(int(i) for i in np.argwhere(right != got)[0])
        at_index = str(list(index)) if index else ""
        raise Violation(f"{what}{at_index} is {got[index]:.9g}; expected {right[index]:.9g}. [{where}]")


def _every_layer(bench: Bench) -> None:
    rules = [rule("kernel", "**"), rule("bias", "*", ar.L1(0.25)), rule("pre_activation", "**", ar.L2(0.5))]
    agree(bench, network(), ar.Spec(rules))


def _reductions(bench: Bench) -> None:
    for mean_over in ("sum", "batchmean", ("batch",)):
        agree(bench, network(), ar.Spec([rule("output", mean_over=mean_over)]))


def _twice_the_same_tensor(bench: Bench) -> None:
    agree(bench, network(), ar.Spec([rule("output"), rule("output", penalty=ar.L1(2.0)), rule("output")]))


def _tied(bench: Bench) -> None:
    agree(bench, network(shared=True), ar.Spec([rule("kernel", "**"), rule("output", "**", ar.L1(0.5))]))


def _current_weights(bench: Bench) -> None:
    net, spec = network(), ar.Spec([rule("kernel"), rule("pre_activation")])
    model = build(bench, net, spec)
    compare(bench, net, spec, model, batch(4))
    hidden, out = net.layers.values()
    kernel = -hidden.parameters()["kernel"][::-1]
    moved = Network({"hidden": Dense(kernel, hidden.parameters()["bias"], "relu"), "out": out})
    model.assign({"hidden/kernel": kernel})
    compare(bench, moved, spec, model, batch(4))


def _fresh_pass(bench: Bench) -> None:
    net, spec = network(), ar.Spec([rule("output"), rule("kernel")])
    model = build(bench, net, spec)
    for seed in range(3):
        compare(bench, net, spec, model, batch(4, seed))


def _loud(bench: Bench) -> None:
    """A rule that matches nothing is an error, which names what was asked for."""
    for wrong in (rule("kernel", "hiden"), rule("recurrent_kernel", "hidden"), rule("output", "hidden/inner")):
        bench.tally.observed += 1
        try:
            build(bench, network(), ar.Spec([wrong]))
        except ar.SpecError as error:
            if wrong.layer not in str(error) and wrong.placement not in str(error):
                raise Violation(f"the error names neither layer nor placement: {error}") from None
            continue
        raise Violation(f"a rule that matches nothing, {wrong.layer}: {wrong.key}, is no error")


def _as_a_matrix(bench: Bench) -> None:
    along = ar.TotalVariation(0.5, over=("input",))
    rules = [rule("kernel", penalty=ar.SoftOrthogonal(0.25)), rule("kernel", penalty=along)]
    agree(bench, network(), ar.Spec(rules))


def _sequences(bench: Bench) -> None:
    for spec in _of_convolutions(ar.TotalVariation(0.5, over=("time",))):
        agree(bench, convolutions((2,), (3,)), spec, 7)


def _images(bench: Bench) -> None:
    for spec in _of_convolutions(ar.TotalVariation(0.5, over=("height",))):
        agree(bench, convolutions((2, 3), (1, 2)), spec, 4, 7)


def _of_convolutions(along: ar.Penalty) -> tuple[ar.Spec, ...]:
    """Return rules whose numbers say which axis of a tensor was taken for which."""
    activations = [rule("pre_activation", penalty=along), rule("output", "**", ar.L1(0.25), mean_over="sum")]
    across = ar.TotalVariation(0.25, over=("input", "output"))
    kernels = [rule("kernel", penalty=across), rule("kernel", penalty=along), rule("bias", "**")]
    return ar.Spec(activations), ar.Spec(kernels)


_ROWS: tuple[tuple[str, Callable[[Bench], None], tuple[str, ...]], ...] = (
    ("pre_activation is what a layer's affine map gives, before its activation function.", at("pre_activation"), ()),
    ("output is what a layer gives, after its activation function.", at("output"), ()),
    ("kernel is the weights that multiply the input, and nothing else.", at("kernel"), ()),
    ("bias is the weights that are added, and nothing else.", at("bias"), ()),
    ("A glob meets every layer that has the placement, each once.", _every_layer, ()),
    ("mean_over says what is averaged at a placement, the batch or nothing.", _reductions, ()),
    ("Rules at the same tensor all count, each under a name of its own.", _twice_the_same_tensor, ()),
    ("A weight that layers share counts once, an activation per layer.", _tied, ("tied weights",)),
    ("A pass penalizes the weights as they are, not as they were.", _current_weights, ()),
    ("A pass starts from nothing: penalties of an earlier one are gone.", _fresh_pass, ()),
    ("A rule that matches nothing is a SpecError that names it.", _loud, ()),
    ("A kernel has the axes input and output, whatever its layout in the framework.", _as_a_matrix, ()),
    ("A convolution over time has its placements, by the names of their axes.", _sequences, ("layer Convolution",)),
    ("A convolution over images has its placements, by the names of their axes.", _images, ("layer Convolution",)),
)
COUNT = len(_ROWS)
