"""Dialects: each convention against the project it comes from, round trips, and what is refused."""

import inspect
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorflow as tf
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import arspec as ar
from arspec import cli, dialects
from arspec.dialects._terms import TermDialect
from test_import import imported

RNG = np.random.default_rng(5)
WEIGHTS = RNG.normal(size=(3, 5))
ACTIVITY = RNG.normal(size=(7, 5))
STATES = RNG.normal(size=(3, 5, 2))
KERNEL = {"layer": "**", "placement": "kernel"}
EVERYTHING = dialects.known()
TERM_DIALECTS = [
    found
    for found in (dialects.dialect(name) for name, _ in EVERYTHING if "VERSION" not in name)
    if isinstance(found, TermDialect)
]


def value(rule: ar.Rule, x: np.ndarray, **options: Any) -> float:
    """Evaluate a rule at a tensor."""
    return float(ar.value(rule.penalty, x, mean_over=rule.mean_over, **options))


def refusal(call: Callable[[], Any]) -> str:
    """Return the text of the UnsupportedError that a call raises."""
    with pytest.raises(ar.UnsupportedError) as caught:
        call()
    return str(caught.value)


# TensorFlow: tf-slim, tf.nn, Sonnet (TRAPS A7)


def test_half_or_not() -> None:
    scaled = {"tf-slim": "l2_regularizer", "tf.nn": "l2_loss", "sonnet": "L2"}
    values = {
        name: value(dialects.dialect(name).rule(term, scale=0.5, **KERNEL), WEIGHTS) for name, term in scaled.items()
    }
    half = float(0.5 * tf.nn.l2_loss(WEIGHTS))
    assert values == pytest.approx({"tf-slim": half, "tf.nn": half, "sonnet": 2 * half}, rel=1e-14)


def test_tf_slim_adds_an_l1_without_and_an_l2_with_the_half() -> None:
    rule = dialects.tf_slim.rule("l1_l2_regularizer", scale_l1=0.25, scale_l2=0.5, **KERNEL)
    expected = 0.25 * np.abs(WEIGHTS).sum() + 0.5 * (WEIGHTS**2).sum() / 2
    assert value(rule, WEIGHTS) == pytest.approx(expected, rel=1e-14)


def test_tf_nn_sums_over_the_batch() -> None:
    rule = dialects.tf_nn.rule("l2_loss", layer="hidden", placement="output", scale=1.0)
    assert value(rule, ACTIVITY) == pytest.approx(float(tf.nn.l2_loss(ACTIVITY)), rel=1e-14)


# torch weight decay (TRAPS A7, D3)

DECAYING = {
    name: cls
    for name, cls in vars(torch.optim).items()
    if inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
}
COUPLED = [term.name for term in dialects.torch.table]
# Muon takes matrices; a step of the others is moved visibly by the decay.
DECOUPLED = ["AdamW", "Adafactor", "Muon"]


def torch_steps(optimizer: str, decay: dict[str, float], penalty: ar.Penalty | None) -> np.ndarray:
    """Return the weights after three steps on a fixed linear loss, with decay or with a penalty."""
    weights = torch.nn.Parameter(torch.tensor(WEIGHTS))
    stepper = DECAYING[optimizer]([weights], lr=0.1, **decay)
    for _ in range(3):
        gradient = np.cos(WEIGHTS)
        if penalty is not None:
            gradient = gradient + ar.gradient(penalty, weights.detach().numpy())
        weights.grad = torch.tensor(gradient)
        stepper.step()
    return weights.detach().numpy()


def test_every_optimizer_of_torch_is_judged() -> None:
    assert set(DECAYING) == {*COUPLED, *dialects.torch.refused}


@pytest.mark.parametrize("optimizer", COUPLED)
def test_coupled_weight_decay_is_half_an_l2(optimizer: str) -> None:
    (rule,) = dialects.torch.from_weight_decay(optimizer, 0.3, placements=["kernel"])
    assert rule == ar.Rule(ar.L2(0.15), layer="**", placement="kernel", mean_over="sum")
    decayed = torch_steps(optimizer, {"weight_decay": 0.3}, None)
    np.testing.assert_allclose(decayed, torch_steps(optimizer, {}, rule.penalty), rtol=1e-13)
    assert np.abs(decayed - torch_steps(optimizer, {}, ar.L2(0.3))).max() > 1e-6


@pytest.mark.parametrize("optimizer", DECOUPLED)
def test_decoupled_weight_decay_is_no_penalty(optimizer: str) -> None:
    text = refusal(lambda: dialects.torch.from_weight_decay(optimizer, 0.3))
    assert text.startswith(f"{optimizer}: its decay is decoupled: it shrinks the weights beside the step")
    decayed = torch_steps(optimizer, {"weight_decay": 0.3}, None)
    assert np.abs(decayed - torch_steps(optimizer, {"weight_decay": 0.0}, ar.L2(0.15))).max() > 1e-4


@pytest.mark.parametrize("optimizer", ["Rprop", "SparseAdam", "LBFGS"])
def test_no_weight_decay_at_all(optimizer: str) -> None:
    assert "weight_decay" not in inspect.signature(DECAYING[optimizer]).parameters
    assert "no weight decay" in refusal(lambda: dialects.torch.from_weight_decay(optimizer, 0.3))


def test_weight_decay_leaves_no_parameter_out() -> None:
    rules = dialects.torch.from_weight_decay("SGD", 0.02)
    assert {"kernel", "bias", "scale", "shift", "recurrent_kernel"} <= {rule.placement for rule in rules}
    assert dialects.torch.to_weight_decay(rules) == 0.02


@given(st.floats(0, 1e300), st.lists(st.sampled_from(["kernel", "bias", "scale"]), min_size=1, unique=True))
def test_weight_decay_there_and_back(coefficient: float, placements: list[str]) -> None:
    rules = [ar.Rule(ar.L2(coefficient), layer="**", placement=p) for p in placements]
    decay = dialects.torch.to_weight_decay(rules, placements=placements)
    assert decay == 2 * coefficient
    assert dialects.torch.from_weight_decay("Adam", decay, placements=placements) == rules


L2_KERNEL = ar.Rule(ar.L2(0.1), **KERNEL)
NOT_DECAY = {
    "one placement of two": ([L2_KERNEL], "weight_decay meets bias, kernel; the rules meet kernel."),
    "two coefficients": (
        [L2_KERNEL, ar.Rule(ar.L2(0.2), layer="**", placement="bias")],
        "one weight_decay for all: the rules amount to [0.2, 0.4].",
    ),
    "some layers": (
        [ar.Rule(ar.L2(0.1), layer="head", placement=p) for p in ("kernel", "bias")],
        "rules[0] (head/kernel/l2): weight_decay meets every layer; this rule names some.",
    ),
    "l1": ([ar.Rule(ar.L1(0.1), **KERNEL)], "there is no term for L1(coefficient=0.1)"),
    "mean": ([ar.Rule(ar.L2(0.1), mean_over="mean", **KERNEL)], "SGD has mean_over=[], this rule mean_over='mean'."),
    "activity": ([ar.Rule(ar.L2(0.1), layer="**", placement="output")], "not at output."),
    "schedule": ([ar.Rule(ar.L2(0.1), schedule=ar.LinearWarmup(9), **KERNEL)], "follows LinearWarmup(steps=9)"),
    "when": ([ar.Rule(ar.L2(0.1), when="train", **KERNEL)], "it says when='train'"),
    "trainable_only": ([ar.Rule(ar.L2(0.1), trainable_only=True, **KERNEL)], "it says trainable_only=True"),
    "twice": ([L2_KERNEL, ar.Rule(ar.L2(0.1), layer="head", placement="kernel")], "can be in one group only"),
}


@pytest.mark.parametrize("name", NOT_DECAY)
def test_what_weight_decay_cannot_say(name: str) -> None:
    rules, reason = NOT_DECAY[name]
    assert reason in refusal(lambda: dialects.torch.to_weight_decay(rules, placements=["kernel", "bias"]))


def test_weight_decay_by_group() -> None:
    rules = [ar.Rule(ar.L2(0.1), layer=name, placement="kernel") for name in ("body", "head")]
    groups = [{"optimizer": "SGD", "layer": n, "placement": "kernel", "weight_decay": 0.2} for n in ("body", "head")]
    assert dialects.torch.write(rules) == {"dialect": "torch", "terms": groups}


# optax


def optax_steps(transform: optax.GradientTransformation, penalty: ar.Penalty | None) -> np.ndarray:
    weights = jnp.asarray(WEIGHTS, "float32")
    state = transform.init(weights)
    for _ in range(3):
        gradient = np.cos(WEIGHTS).astype("float32")
        if penalty is not None:
            gradient = gradient + ar.gradient(penalty, np.asarray(weights))
        updates, state = transform.update(jnp.asarray(gradient), state, weights)
        weights = optax.apply_updates(weights, updates)
    return np.asarray(weights)


def decayed_first(inner: optax.GradientTransformation) -> Callable[..., optax.GradientTransformation]:
    return lambda weight_decay: optax.chain(optax.add_decayed_weights(weight_decay), inner)


@pytest.mark.parametrize(
    ("term", "make"),
    [
        ("add_decayed_weights", decayed_first(optax.sgd(0.1, momentum=0.9))),
        ("add_decayed_weights", decayed_first(optax.adam(0.1))),
        ("adadelta", lambda weight_decay: optax.adadelta(0.1, weight_decay=weight_decay)),
        ("lars", lambda weight_decay: optax.lars(0.1, weight_decay=weight_decay)),
    ],
)
def test_decay_before_the_optimizer_is_half_an_l2(term: str, make: Callable[..., Any]) -> None:
    rule = dialects.optax.rule(term, weight_decay=0.3, **KERNEL)
    assert rule.penalty == ar.L2(0.15)
    decayed = optax_steps(make(0.3), None)
    np.testing.assert_allclose(decayed, optax_steps(make(0.0), rule.penalty), rtol=2e-5)
    assert np.abs(decayed - optax_steps(make(0.0), None)).max() > 1e-4


@pytest.mark.parametrize("name", sorted(dialects.optax.refused))
def test_decay_beside_the_optimizer_is_no_penalty(name: str) -> None:
    assert "decoupled" in refusal(lambda: dialects.optax.rule(name, weight_decay=0.3, **KERNEL))
    make, keyword = getattr(optax, name), "weight_decay_rate" if name == "adafactor" else "weight_decay"
    decayed = optax_steps(make(0.1, **{keyword: 0.3}), None)
    assert np.abs(decayed - optax_steps(make(0.1, **{keyword: 0.0}), ar.L2(0.15))).max() > 1e-4


def test_every_optimizer_of_optax_with_decay_is_judged() -> None:
    makers = {name: made for name, made in vars(optax).items() if inspect.isfunction(made) or isinstance(made, partial)}
    decaying = {
        name for name, maker in makers.items() if any("weight_decay" in p for p in inspect.signature(maker).parameters)
    }
    assert decaying == {"add_decayed_weights", "adadelta", "lars", *dialects.optax.refused}


def test_optax_l2_loss_has_the_half() -> None:
    rule = dialects.optax.rule("l2_loss", scale=0.5, **KERNEL)
    assert value(rule, WEIGHTS) == pytest.approx(float(0.5 * optax.l2_loss(jnp.asarray(WEIGHTS)).sum()), rel=1e-6)


def test_haiku_adds_half_the_squares() -> None:
    rule = dialects.haiku.rule("l2_loss", weight_decay=1e-4, **KERNEL)
    assert value(rule, WEIGHTS) == pytest.approx(1e-4 * 0.5 * np.square(WEIGHTS).sum(), rel=1e-14)


# AR and TAR (TRAPS A8)


@pytest.mark.parametrize("dialect", [dialects.awd_lstm, dialects.fastai])
def test_the_code_takes_means_of_squares(dialect: TermDialect) -> None:
    h = torch.tensor(STATES)  # batch, time, feature; the first two are swapped in awd-lstm-lm
    ar_rule = dialect.rule("AR", layer="dropout", alpha=2.0)
    tar_rule = dialect.rule("TAR", layer="rnn", beta=1.5)
    assert value(ar_rule, STATES) == pytest.approx(float(2.0 * h.pow(2).mean()), rel=1e-14)
    assert value(tar_rule, STATES) == pytest.approx(float(1.5 * (h[:, 1:] - h[:, :-1]).pow(2).mean()), rel=1e-14)


def test_the_paper_takes_norms() -> None:
    rule = dialects.awd_lstm_paper.rule("AR", layer="dropout", alpha=2.0)
    assert value(rule, STATES) == pytest.approx(2.0 * np.linalg.norm(STATES, axis=-1).mean(), rel=1e-14)
    assert "not squared" in refusal(lambda: dialects.awd_lstm_paper.rule("TAR", layer="rnn", beta=1.0))


# Sparse autoencoders (TRAPS B7)

LATENTS = torch.tensor(np.maximum(ACTIVITY, 0))
UNWEIGHTED = {"scale_sparsity_penalty_by_decoder_norm": False}


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_sae_lens_standard(p: float) -> None:
    rule = dialects.sae_lens.rule("standard", layer="encoder", l1_coefficient=5.0, lp_norm=p, **UNWEIGHTED)
    assert value(rule, LATENTS.numpy()) == pytest.approx(float((5.0 * LATENTS.norm(p=p, dim=-1)).mean()), rel=1e-14)


def test_sae_lens_jumprelu() -> None:
    numbers = {"threshold": 0.3, "jumprelu_bandwidth": 0.1}
    step = dialects.sae_lens.rule("jumprelu_step", layer="encoder", l0_coefficient=2.0, **numbers)
    counted = (torch.tensor(ACTIVITY) > 0.3).double().sum(dim=-1)
    assert step.placement == "pre_activation"
    assert value(step, ACTIVITY) == pytest.approx(float((2.0 * counted).mean()), rel=1e-14)
    tanh = dialects.sae_lens.rule(
        "jumprelu_tanh", layer="encoder", l0_coefficient=2.0, jumprelu_tanh_scale=4.0, **UNWEIGHTED
    )
    expected = (2.0 * torch.tanh(4.0 * LATENTS).sum(dim=-1)).mean()
    assert value(tanh, LATENTS.numpy()) == pytest.approx(float(expected), rel=1e-14)


def test_sae_lens_over_tokens() -> None:
    rule = dialects.sae_lens.rule(
        "standard", layer="encoder", l1_coefficient=5.0, mean_over=("time", "batch"), **UNWEIGHTED
    )
    expected = (5.0 * torch.tensor(STATES).norm(p=1, dim=-1)).mean()
    assert value(rule, STATES) == pytest.approx(float(expected), rel=1e-14)


def test_dictionary_learning() -> None:
    rule = dialects.dictionary_learning.rule("StandardTrainer", layer="encoder", l1_penalty=0.1)
    assert value(rule, LATENTS.numpy()) == pytest.approx(float(0.1 * LATENTS.norm(p=1, dim=-1).mean()), rel=1e-14)
    rule = dialects.dictionary_learning.rule("PAnnealTrainer", layer="encoder", sparsity_penalty=0.1, p=0.5)
    expected = 0.1 * LATENTS.pow(0.5).sum(dim=-1).mean()
    assert value(rule, LATENTS.numpy()) == pytest.approx(float(expected), rel=1e-13)


def test_openai_divides_by_the_norm_of_the_input() -> None:
    inputs = torch.nn.functional.normalize(torch.tensor(RNG.normal(size=(7, 4))), dim=1) * 3.0
    expected = 0.25 * (LATENTS.abs().sum(dim=1) / inputs.norm(dim=1)).mean()
    rule = dialects.openai_sparse_autoencoder.rule(
        "normalized_L1_loss", layer="encoder", l1_weight=0.25, input_norm=3.0
    )
    assert value(rule, LATENTS.numpy()) == pytest.approx(float(expected), rel=1e-13)


# Refusals of terms


@pytest.mark.parametrize(
    ("dialect", "term"), [(dialect, term) for dialect in TERM_DIALECTS for term in dialect.refused]
)
def test_a_refused_term_says_why(dialect: TermDialect, term: str) -> None:
    text = refusal(lambda: dialect.rule(term, layer="x"))
    assert text == f"{term}: {dialect.refused[term]}"
    assert text.endswith(".")
    document = {"dialect": dialect.name, "terms": [{dialect.key: term, "layer": "x"}]}
    assert refusal(lambda: dialect.read(document)) == f"{dialect.name} cannot read this exactly:\n  terms[0]: {text}"


WEIGHTED = {"scale_sparsity_penalty_by_decoder_norm": True}


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: dialects.sae_lens.rule("standard", layer="e", l1_coefficient=5, **WEIGHTED), "norm of its decoder"),
        (
            lambda: dialects.sae_lens.rule("standard", layer="e", l1_coefficient=5, lp_norm=3.0, **UNWEIGHTED),
            "lp_norm=3.0: (Σ|x|^p)^(1/p) is in the family for p = 1 and p = 2 only.",
        ),
        (lambda: dialects.tf_slim.rule("l2_regularizer", scale=5e-324, **KERNEL), "half of it is not a float64"),
        (lambda: dialects.tf_slim.write(ar.Rule(ar.L2(1.7e308), **KERNEL)), "beyond float64"),
        (lambda: dialects.tf_slim.write(ar.Rule(ar.L2(1.0), mean_over="mean", **KERNEL)), "mean_over='mean'"),
        (lambda: dialects.sae_lens.write(ar.Rule(ar.L1(1.0), layer="e", placement="output", mean_over="sum")), "or"),
    ],
)
def test_what_a_term_cannot_say(call: Callable[[], Any], reason: str) -> None:
    assert reason in refusal(call)


WRONG = {
    "term": (lambda: dialects.tf_slim.rule("l2_reg", scale=1.0, **KERNEL), "Did you mean 'l2_regularizer'?"),
    "missing": (lambda: dialects.tf_slim.rule("l2_regularizer", **KERNEL), "needs 'scale'; it is scale · ½Σx²."),
    "unknown": (
        lambda: dialects.tf_slim.rule("l2_regularizer", scale=1.0, scal=1.0, **KERNEL),
        "l2_regularizer has no 'scal'; it has scale. Did you mean 'scale'?",
    ),
    "negative": (lambda: dialects.tf_slim.rule("l2_regularizer", scale=-1.0, **KERNEL), "scale=-1.0; expected"),
    "huge": (lambda: dialects.tf_slim.rule("l2_regularizer", scale=10**400, **KERNEL), "expected a finite number"),
    "bool": (lambda: dialects.tf_slim.rule("l2_regularizer", scale=True, **KERNEL), "scale=True; expected"),
    "text": (lambda: dialects.tf_slim.rule("l1_regularizer", scale="1", **KERNEL), "scale='1'; expected"),
    "no placement": (lambda: dialects.sonnet.rule("L1", layer="x", scale=1.0), "L1 needs a placement"),
    "placement": (lambda: dialects.sonnet.rule("L1", layer="x", placement="output", scale=1.0), "placement of L1"),
    "mean": (lambda: dialects.sonnet.rule("L1", mean_over="mean", scale=1.0, **KERNEL), "L1 has mean_over=[]"),
    "zero norm": (
        lambda: dialects.openai_sparse_autoencoder.rule("normalized_L1_loss", layer="e", l1_weight=1, input_norm=0),
        "input_norm=0; expected a number > 0.",
    ),
    "weights": (
        lambda: dialects.sae_lens.rule(
            "standard", layer="e", l1_coefficient=5, scale_sparsity_penalty_by_decoder_norm=0
        ),
        "expected True or False.",
    ),
    "dialect": (lambda: dialects.dialect("torh"), "Did you mean 'torch'?"),
    "dialect type": (lambda: dialects.dialect(3), "name=3; expected the name of a dialect"),  # type: ignore[arg-type]
    "keras": (lambda: dialects.dialect("keras"), "'keras' needs a version, such as 'keras==3.15.1'"),
    "keras 1": (lambda: dialects.dialect("keras==1.2.2"), "version='1.2.2'; expected one of Keras 2 or 3"),
    "keras text": (lambda: dialects.keras(version="newest"), "version='newest'; expected"),
    "document": (lambda: dialects.torch.read({"terms": {}}), 'expected {"dialect": "torch", "terms": [...]}.'),
    "document key": (lambda: dialects.torch.read({"terms": [], "rules": []}), "unknown key 'rules'"),
    "other dialect": (
        lambda: dialects.torch.read({"dialect": "optax", "terms": []}),
        "the document says that its dialect is 'optax', not 'torch'.",
    ),
    "entry": (lambda: dialects.torch.read({"terms": [3]}), "terms[0]: got 3; expected an object with the key"),
    "entry layer": (lambda: dialects.torch.read({"terms": [{"optimizer": "SGD"}]}), "terms[0]: no key 'layer'"),
    "entry keys": (
        lambda: dialects.torch.read({"terms": [{"optimizer": "SGD", "term": 1, "self": 2, "layer": "x"}]}),
        "terms[0]: SGD has no 'term'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_named(name: str) -> None:
    call, text = WRONG[name]
    with pytest.raises(ar.SpecError) as caught:
        call()
    assert text in str(caught.value)


# Round trips

numbers = st.floats(min_value=1e-300, max_value=1e300)
layers = st.sampled_from(["hidden", "**", "encoder/0", "block*/head"])
PENALTIES = {
    "l1": st.builds(ar.L1, numbers),
    "l2": st.builds(ar.L2, numbers),
    "l1_l2": st.builds(ar.L1L2, numbers, numbers),
    "l2_norm": st.builds(ar.L2Norm, numbers),
    "lp": st.builds(lambda c, p: ar.Lp(c, p=p), numbers, st.floats(0.1, 3)),
    "tanh": st.builds(lambda c, s: ar.Tanh(c, scale=s), numbers, st.floats(0.1, 3)),
    "l0_step": st.builds(lambda c, t: ar.L0Step(c, threshold=t, bandwidth=0.5), numbers, st.floats(0, 3)),
    "temporal_difference": st.builds(ar.TemporalDifference, numbers),
}
EXAMPLES = {
    "l1": ar.L1(1.0),
    "l2": ar.L2(1.0),
    "l1_l2": ar.L1L2(1.0, 1.0),
    "l2_norm": ar.L2Norm(1.0),
    "lp": ar.Lp(1.0, p=2.0),
    "tanh": ar.Tanh(1.0),
    "l0_step": ar.L0Step(1.0, threshold=0.0, bandwidth=1.0),
    "temporal_difference": ar.TemporalDifference(1.0),
}


@st.composite
def rules_of(draw: st.DrawFn, dialect: TermDialect) -> ar.Rule:
    """Draw a rule that some term of the dialect can say."""
    term = draw(st.sampled_from(dialect.table))
    penalty = draw(st.one_of(*(PENALTIES[name] for name, p in EXAMPLES.items() if term.numbers(p) is not None)))
    where = {"placement": draw(st.sampled_from(term.placements)), "mean_over": draw(st.sampled_from(term.means))}
    return ar.Rule(penalty, layer=draw(layers), **where)


@pytest.mark.parametrize("dialect", TERM_DIALECTS, ids=lambda dialect: dialect.name)
@given(st.data())
def test_what_is_written_is_read_back(dialect: TermDialect, data: st.DataObject) -> None:
    rule = data.draw(rules_of(dialect))
    document = dialect.write(rule)
    text = json.dumps(document, allow_nan=False)
    assert dialect.read(json.loads(text)) == ar.Spec([rule])
    assert dialect.write(dialect.read(json.loads(text))) == document
    assert dialects.dialect(dialect.name) == dialect


def test_a_sum_is_written_part_by_part() -> None:
    rule = ar.Rule(2 * ar.L1(0.25) + ar.L1L2(0.5, 1.0), **KERNEL)
    terms = dialects.sonnet.write(rule)["terms"]
    assert [(term["regularizer"], term["scale"]) for term in terms] == [("L1", 0.5), ("L1", 0.5), ("L2", 1.0)]
    assert all(value(ar.Rule(p, **KERNEL), WEIGHTS) > 0 for p in (ar.L1(0.5), ar.L2(1.0)))
    read = dialects.sonnet.read({"terms": terms})
    assert sum(value(each, WEIGHTS) for each in read.rules) == pytest.approx(value(rule, WEIGHTS), rel=1e-14)


def test_a_custom_penalty_has_no_term() -> None:
    class Own(ar.Penalty):
        name = "test_dialects_own"

        def terms(self, x: Any, *, xp: Any, axes: Any) -> Any:
            return xp.abs(x)

    for penalty in (Own(), 2.0 * Own()):
        text = refusal(lambda penalty=penalty: dialects.torch.write(ar.Rule(penalty, **KERNEL)))
        assert "rules[0] (**/kernel/" in text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**400) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["layers", "terms", "class_name", "config", "layer", "name", "l1"]), inner)
        | st.dictionaries(st.sampled_from(["kernel_regularizer", "activity_regularizer", "optimizer", "cell"]), inner)
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_read_or_refused(document: Any) -> None:
    for dialect in (*TERM_DIALECTS, *(dialects.keras(version=v) for v in ("2.3.1", "2.15.0", "3.15.1"))):
        for candidate in (document, {"terms": [document]}, {"layers": {"a": document}}):
            try:
                conversion = dialect.reading(candidate)
            except ar.SpecError:
                continue
            assert isinstance(conversion.result, ar.Spec)


# What it costs


def test_importing_arspec_does_not_import_dialects() -> None:
    code = "import arspec, sys; print(*[m for m in sys.modules if m.startswith('arspec.dialects')], 'none')\n"
    assert "arspec" in imported(code + "assert 'arspec.dialects' not in sys.modules")
    loaded = imported("import arspec.dialects") - imported("import numpy")
    assert loaded.isdisjoint({"torch", "tensorflow", "keras", "jax", "optax", "typer", "rich"})


# The command line


def convert(*arguments: Any) -> Any:
    return CliRunner().invoke(cli.build(), ["spec", "convert", *map(str, arguments)])


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.json"
    ar.Spec([ar.Rule(ar.L1(1e-4), layer="hidden", placement="output", mean_over="sum"), L2_KERNEL]).save(path)
    return path


def test_convert_there_and_back(spec_file: Path, tmp_path: Path) -> None:
    there = tmp_path / "keras.json"
    assert convert(spec_file, "--from", "arspec", "--to", "keras==2.3.1", "--output", there).exit_code == 0
    back = convert(there, "--from", "keras==2.3.1", "--to", "arspec")
    assert back.exit_code == 0
    assert json.loads(back.stdout) == ar.load(spec_file).to_document()


def test_convert_lists_what_has_no_counterpart(spec_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    result = convert(spec_file, "--from", "arspec", "--to", "keras==3.15.1", "--output", output)
    assert result.exit_code == 1
    assert not output.exists()
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "keras==3.15.1: rules[0] (hidden/output/l1): Keras >= 3.14 averages over batch in activity_regularizer; "
        "this rule has mean_over=[].",
        f"arspec: {spec_file}: 1 without an exact counterpart; nothing was written.",
    ]


def test_convert_lists_what_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "optimizer.json"
    path.write_text(json.dumps({"terms": [{"optimizer": "AdamW", "layer": "**", "weight_decay": 0.01}]}))
    result = convert(path, "--from", "torch", "--to", "arspec")
    assert result.exit_code == 1
    assert result.stderr.startswith("torch: terms[0]: AdamW: its decay is decoupled")


@pytest.mark.parametrize(
    ("text", "source", "code", "message"),
    [
        ("{", "torch", 1, "not JSON that can be read"),
        ('{"terms": [NaN]}', "torch", 1, "the number NaN is not JSON"),
        ("\udcff", "torch", 1, "not JSON that can be read"),
        ("[" * 100_000, "torch", 1, "not JSON that can be read"),
        ("{}", "torch", 1, 'got {}; expected {"dialect": "torch"'),
        ("{}", "keras", 2, "'keras' needs a version"),
        ("{}", "torh", 2, "Did you mean 'torch'?"),
    ],
)
def test_convert_refuses_what_is_not_a_document(
    tmp_path: Path, text: str, source: str, code: int, message: str
) -> None:
    path = tmp_path / "wrong.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    result = convert(path, "--from", source, "--to", "arspec")
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stdout == ""


def test_convert_cannot_read_what_is_not_there(tmp_path: Path, spec_file: Path) -> None:
    assert convert(tmp_path / "missing.json", "--from", "torch", "--to", "arspec").exit_code == 2
    unwritable = tmp_path / "no" / "folder.json"
    assert convert(spec_file, "--from", "arspec", "--to", "arspec", "--output", unwritable).exit_code == 2


def test_the_help_lists_the_dialects() -> None:
    text = convert("--help").stdout
    for name, _ in EVERYTHING:
        assert f"{name}:" in text
