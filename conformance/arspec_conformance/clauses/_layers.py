"""Tier P, further kinds of layers: recurrent, embedding, normalization; and weights that are frozen.

Nothing is rounded here either: the recurrent layer has the function relu, and of a
normalization only the weights are looked at, which divide by nothing.
"""

from collections.abc import Callable, Iterator

import numpy as np

import arspec as ar
from arspec.layers import BatchNormalization, Dense, Embedding, Network, SimpleRNN
from arspec_conformance._models import Measured
from arspec_conformance.bench import Bench, Violation
from arspec_conformance.clauses import _placements
from arspec_conformance.clauses._clause import Clause
from arspec_conformance.clauses._placements import INPUTS, OUTPUTS, WIDTH, build, compare, compare_with, network, rule

STEPS = 3
TOKENS = 7


def clauses() -> Iterator[Clause]:
    """Yield the clauses, numbered after the others about models."""
    for number, (sentence, check, need) in enumerate(_ROWS, start=_placements.COUNT + 1):
        yield Clause(f"Model-P{number}", sentence, "P", check, needs=("placements", need), once=True)


def recurrent() -> Network:
    """Return a recurrent layer and what it hands its states to, all numbers multiples of ½."""
    rng = np.random.default_rng(2026)
    weights = rng.integers(-2, 3, (INPUTS, WIDTH)) / 2, rng.integers(-1, 2, (WIDTH, WIDTH)) / 2
    hidden = SimpleRNN(*weights, rng.choice([-1.0, 1.0], WIDTH) / 2, activation="relu")
    return Network({"hidden": hidden, "out": _dense(rng, WIDTH, OUTPUTS)})


def embedded() -> Network:
    """Return a table of numbers that are multiples of ½, and a layer above."""
    rng = np.random.default_rng(2026)
    table = Embedding(rng.integers(-6, 7, (TOKENS, WIDTH)) / 2)
    return Network({"hidden": table, "out": _dense(rng, WIDTH, OUTPUTS)})


def normalized() -> Network:
    """Return a normalization between two layers, no scale 1 and no shift 0."""
    rng = np.random.default_rng(2026)
    scale, shift = rng.integers(2, 7, WIDTH) / 4, rng.integers(1, 7, WIDTH) / 4
    norm = BatchNormalization(np.full(WIDTH, 8.0), np.full(WIDTH, 16.0), scale, shift)
    return Network({"hidden": _dense(rng, INPUTS, WIDTH), "norm": norm, "out": _dense(rng, WIDTH, OUTPUTS)})


def _dense(rng: np.random.Generator, inputs: int, outputs: int) -> Dense:
    return Dense(rng.integers(-3, 4, (inputs, outputs)) / 2, rng.choice([-1.0, 1.0], outputs) / 2)


def _agree(bench: Bench, net: Network, rules: list[ar.Rule], batch: Callable[[int], np.ndarray]) -> None:
    spec = ar.Spec(rules)
    model = build(bench, net, spec)
    for size in _placements.batches(spec):
        compare(bench, net, spec, model, batch(size))


def _steps(size: int) -> np.ndarray:
    return _placements.batch(size, 0, STEPS)


def _recurrent(bench: Bench) -> None:
    along = ar.TemporalDifference(0.5)
    activations = [rule("pre_activation", mean_over="sum"), rule("hidden_state", penalty=along), rule("output")]
    across = ar.TotalVariation(0.25, over=("input",))
    places = ("kernel", "recurrent_kernel")
    weights = [*(rule(place, penalty=across) for place in places), rule("bias"), rule("recurrent_kernel", "**")]
    for rules in (activations, weights):
        _agree(bench, recurrent(), rules, _steps)


def _embedded(bench: Bench) -> None:
    def tokens(size: int) -> np.ndarray:
        # Token 0 twice in the first example, and most tokens never.
        return np.random.default_rng([5, size]).integers(0, 3, (size, STEPS)) * np.array([0, 1, 1])

    across = ar.TotalVariation(0.25, over=("input",))
    rules = [rule("embeddings"), rule("embeddings", penalty=across), rule("output", mean_over="sum")]
    _agree(bench, embedded(), rules, tokens)


def _normalized(bench: Bench) -> None:
    rules = [rule("scale", "norm"), rule("shift", "*", ar.L1(0.25)), rule("kernel", "**")]
    _agree(bench, normalized(), rules, _placements.batch)


def _frozen(bench: Bench) -> None:
    net, x = network(), _placements.batch(4)
    counted = [rule("bias", "**"), rule("kernel", "out", ar.L1(0.25), trainable_only=True)]
    dropped = rule("kernel", "hidden", trainable_only=True)
    model = build(bench, net, ar.Spec([*counted, dropped]))
    try:
        model.freeze("hidden")
    except Exception as error:  # whatever a framework raises is a finding
        raise Violation(f"the adapter raised {type(error).__name__}: {error}"[:400]) from error
    free = net.penalties(ar.Spec(counted), x)
    gradients = {name: 0.0 * g if name.startswith("hidden/") else g for name, g in free.gradients.items()}
    expected = Measured({**free.values, f"hidden/{dropped.key}": 0.0}, free.total, gradients)
    compare_with(bench, expected, model, x, "rules of a frozen layer and of a free one")


_ROWS: tuple[tuple[str, Callable[[Bench], None], str], ...] = (
    (
        "A recurrent layer has every step before and after its function, and its two kernels apart.",
        _recurrent,
        "layer SimpleRNN",
    ),
    (
        "An embedding has its whole table, whichever tokens occur, and its output, once per token.",
        _embedded,
        "layer Embedding",
    ),
    (
        "The scale and shift of a normalization are weights; its statistics are none.",
        _normalized,
        "layer BatchNormalization",
    ),
    (
        "A frozen weight gets no gradient; its penalty counts, unless the rule is trainable_only.",
        _frozen,
        "frozen layers",
    ),
)
