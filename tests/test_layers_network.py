"""Network: what a Spec says about a chain of reference layers, and its gradients."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

import arspec as ar
from arspec import layers
from arspec.layers import Network
from reference_layers import (
    BATCH,
    FEATURES,
    IMAGE,
    MASKS,
    SEQUENCE,
    TIME,
    TOKENS,
    UNITS,
    Array,
    attention,
    batch_normalization,
    bidirectional,
    convolution,
    gru,
    lstm,
    numerical_gradient,
    random,
    separable,
)

TOLERANCE = {"rtol": 1e-10, "atol": 3e-11}
STEP, EPSILON = 3e-4, float(np.finfo(np.float64).eps)


def rule(penalty: ar.Penalty, layer: str, placement: str, **options: Any) -> ar.Rule:
    return ar.Rule(penalty, layer=layer, placement=placement, **options)


def dense(inputs: int, outputs: int, activation: str = "tanh", seed: int = 0) -> layers.Dense:
    return layers.Dense(random(inputs, outputs, seed=seed), random(outputs, seed=seed), activation)


GATES = ("input_gate", "forget_gate", "output_gate")
NETWORKS: dict[str, tuple[Network, Array, Array | None, list[ar.Rule]]] = {
    "dense": (
        Network({"hidden": dense(FEATURES, 7), "out": dense(7, UNITS, "linear")}),
        random(BATCH, FEATURES),
        None,
        [
            rule(ar.PseudoHuber(0.1, delta=0.5), "hidden", "pre_activation", mean_over="sum"),
            rule(ar.StudentT(0.2) + 0.5 * ar.L2(0.3), "*", "output"),
            rule(ar.L2(0.4), "**", "kernel"),
            rule(ar.Hoyer(0.5), "out", "bias"),
            rule(ar.L2(0.6), "out", "input"),
        ],
    ),
    "AR and TAR on an LSTM": (
        Network(
            {"embedding": layers.Embedding(random(4, FEATURES), mask_zero=True), "lstm": lstm(), "out": dense(2, 3)}
        ),
        TOKENS,
        None,
        [
            rule(ar.L2(2.0), "lstm", "output", mean_over="mean"),
            rule(ar.TemporalDifference(1.0), "lstm", "hidden_state", mean_over="mean"),
            rule(ar.L2(0.1), "embedding", "embeddings"),
        ],
    ),
    "cell state and gates": (
        Network({"lstm": lstm(), "out": dense(UNITS, 3)}),
        SEQUENCE,
        MASKS["holes"],
        [
            rule(ar.L1(0.5), "lstm", "cell_state", mean_over=("batch", "time")),
            *(rule(ar.L2(0.25), "lstm", gate) for gate in GATES),
            rule(ar.L2(0.1), "lstm", "recurrent_kernel"),
            rule(ar.NormStabilizer(0.3), "lstm", "hidden_state"),
            rule(ar.L2(0.3), "out", "output"),
        ],
    ),
    "both directions": (
        Network({"both": bidirectional(gru), "last": dense(2 * UNITS, 3)}),
        SEQUENCE,
        MASKS["behind"],
        [
            rule(ar.L1(0.5), "both/backward", "hidden_state"),
            rule(ar.L2(0.25), "both/*", "update_gate"),
            rule(ar.L2(0.5), "both", "output", mean_over="mean"),
            rule(ar.L1(0.1), "both/**", "bias"),
            rule(ar.TemporalDifference(0.2), "both/forward", "reset_gate"),
        ],
    ),
    "channel-wise group lasso": (
        Network(
            {
                "conv": convolution(3, 2, padding="same", strides=2, activation="tanh"),
                "flatten": layers.Flatten(),
                "out": dense(4 * 3 * UNITS, 3),
            }
        ),
        IMAGE,
        None,
        [
            rule(ar.GroupLasso(0.5, norm_over=("height", "width", "input")), "conv", "kernel"),
            rule(ar.GroupLasso(0.25, norm_over=("height", "width")), "conv", "output"),
            rule(ar.StudentT(0.1), "conv", "pre_activation"),
        ],
    ),
    "attention": (
        Network(
            {
                "block/norm": layers.LayerNormalization(random(FEATURES), random(FEATURES, seed=1)),
                "block/attention": attention(output=FEATURES),
                "norm": batch_normalization(),
                "separable": separable(3, padding="causal"),
            }
        ),
        SEQUENCE,
        MASKS["behind"],
        [
            rule(ar.SoftOrthogonal(0.1), "block/attention", "query_kernel"),
            rule(ar.L1(0.2), "block/attention", "output_kernel"),
            rule(ar.L2(0.3), "**", "value_bias"),
            rule(ar.L2(0.4), "**", "output"),
            rule(ar.L1(0.5), "**", "scale"),
            rule(ar.L1(0.5), "**", "shift"),
            rule(ar.L2(0.6), "separable", "depthwise_kernel"),
            rule(ar.L2(0.7), "separable", "pointwise_kernel"),
        ],
    ),
}


def replaced(network: Network, name: str, parameter: Array) -> Network:
    """Return the network with another parameter at "layer/placement"."""
    path, _, placement = name.rpartition("/")
    held = dict(network.layers)
    if path in held:
        held[path] = dataclasses.replace(held[path], **{placement: parameter})
    else:
        outer, _, part = path.rpartition("/")
        inner = dataclasses.replace(held[outer].parts()[part], **{placement: parameter})
        held[outer] = dataclasses.replace(held[outer], **{f"{part}_layer": inner})
    return Network(held)


def named_parameters(network: Network) -> dict[str, Array]:
    parts = [(f"{name}/{part}", p) for name, layer in network.layers.items() for part, p in layer.parts().items()]
    every = [*network.layers.items(), *parts]
    return {f"{path}/{name}": p for path, layer in every for name, p in layer.parameters().items()}


@pytest.mark.parametrize(("name", "training"), [*((name, False) for name in NETWORKS), ("attention", True)])
def test_gradients_of_the_total(name: str, training: bool) -> None:
    network, x, mask, rules = NETWORKS[name]
    spec, options = ar.Spec(rules), {"mask": mask, "training": training}
    penalties = network.penalties(spec, x, **options)
    assert penalties.total == pytest.approx(sum(penalties.values.values()), rel=1e-15)
    assert min(penalties.values.values()) > 0
    for key, parameter in {**named_parameters(network), "input": x}.items():
        if parameter.dtype.kind == "f":
            for seed in range(2):
                along, slope = slope_along(
                    network, key, parameter, random(*parameter.shape, seed=seed), spec, x, options
                )
                gap = abs(np.sum(penalties.gradients[key] * along) - slope)
                # What truncation leaves, and an error of a few ulps of the total over the step.
                assert gap <= 1e-10 * norm(penalties.gradients[key]) + 4 * EPSILON * penalties.total / STEP, key
    assert set(penalties.gradients) == {*named_parameters(network), *(["input"] if x.dtype.kind == "f" else [])}


def slope_along(
    network: Network, key: str, parameter: Array, direction: Array, spec: ar.Spec, x: Array, options: dict[str, Any]
) -> tuple[Array, Array]:
    """Return a direction of length 1 and the slope of the total along it, by differences."""
    along = direction / norm(direction)

    def total(distance: Array) -> float:
        moved = parameter + distance * along
        if key == "input":
            return network.penalties(spec, moved, **options).total
        return replaced(network, key, moved).penalties(spec, x, **options).total

    return along, numerical_gradient(total, np.zeros(()), step=STEP)


def norm(x: Array) -> float:
    return float(np.linalg.norm(np.ravel(x)))


def test_values_are_those_of_the_definition() -> None:
    network, x, mask, rules = NETWORKS["cell state and gates"]
    penalties = network.penalties(ar.Spec(rules), x, mask=mask)
    record = penalties.records["lstm"]
    assert penalties.values["lstm/cell_state/l1"] == ar.value(
        ar.L1(0.5), record["cell_state"], mean_over=("batch", "time"), mask=mask
    )
    assert penalties.values["lstm/cell_state/l1"] == pytest.approx(
        0.5 * np.abs(record["cell_state"][mask]).sum() / mask.sum(), rel=1e-14
    )
    assert penalties.values["lstm/recurrent_kernel/l2"] == ar.value(ar.L2(0.1), record["recurrent_kernel"])
    assert list(penalties.values) == [site.key for site in penalties.sites]
    assert [site.shape for site in penalties.sites][:2] == [(BATCH, TIME, UNITS)] * 2
    assert [site.value for site in penalties.sites] == list(penalties.values.values())


def test_keys_and_shapes_of_both_directions() -> None:
    network, x, mask, rules = NETWORKS["both directions"]
    sites = {site.key: (site.tensor, site.shape) for site in network.penalties(ar.Spec(rules), x, mask=mask).sites}
    assert sites == {
        "both/backward/hidden_state/l1": ("both/backward.hidden_state", (BATCH, TIME, UNITS)),
        "both/forward/update_gate/l2": ("both/forward.update_gate", (BATCH, TIME, UNITS)),
        "both/backward/update_gate/l2": ("both/backward.update_gate", (BATCH, TIME, UNITS)),
        "both/output/l2": ("both.output", (BATCH, TIME, 2 * UNITS)),
        "both/forward/bias/l1": ("both/forward.bias", (2 * 3 * UNITS,)),
        "both/backward/bias/l1": ("both/backward.bias", (2 * 3 * UNITS,)),
        "both/forward/reset_gate/temporal_difference": ("both/forward.reset_gate", (BATCH, TIME, UNITS)),
    }


def test_kernels_of_attention_are_matrices() -> None:
    network, x, mask, rules = NETWORKS["attention"]
    penalties = network.penalties(ar.Spec(rules), x, mask=mask)
    shapes = {site.key: site.shape for site in penalties.sites}
    assert shapes["block/attention/query_kernel/soft_orthogonal"] == (FEATURES, 2 * 3)
    assert shapes["block/attention/output_kernel/l1"] == (2 * 4, FEATURES)
    assert shapes["block/attention/value_bias/l2"] == (2 * 4,)
    kernel = penalties.records["block/attention"]["query_kernel"]
    assert penalties.values["block/attention/query_kernel/soft_orthogonal"] == ar.value(
        ar.SoftOrthogonal(0.1), kernel.reshape(FEATURES, -1), axes="input output"
    )


@pytest.mark.parametrize("name", ["cell state and gates", "both directions", "attention"])
def test_what_is_padded_neither_counts_nor_matters(name: str) -> None:
    network, x, mask, rules = NETWORKS[name]
    if name == "attention":  # a convolution looks at padded positions: leave it out
        network, rules = Network(dict(list(network.layers.items())[:2])), rules[:4]
    other = np.where(mask[..., None], x, 100 * random(*x.shape, seed=9))
    one, two = (network.penalties(ar.Spec(rules), given, mask=mask) for given in (x, other))
    for key, value in one.values.items():
        assert two.values[key] == pytest.approx(value, rel=1e-13), key
    for key, gradient in one.gradients.items():
        if key == "input":
            assert not np.any(gradient[~mask])
        np.testing.assert_allclose(two.gradients[key], gradient, rtol=1e-10, atol=1e-12, err_msg=key)
    assert network.penalties(ar.Spec(rules), other).total != pytest.approx(one.total, rel=1e-3)


def test_a_padded_input_of_a_recurrent_layer_may_be_anything() -> None:
    network, x, mask, rules = NETWORKS["cell state and gates"]
    broken = np.where(mask[..., None], x, np.nan)
    one, two = (network.penalties(ar.Spec(rules), given, mask=mask) for given in (x, broken))
    assert one.values == two.values
    assert all(np.array_equal(one.gradients[key], two.gradients[key]) for key in one.gradients)


def test_a_json_document_says_the_same() -> None:
    network, x, _, rules = NETWORKS["AR and TAR on an LSTM"]
    document = json.loads(ar.Spec(rules).to_json())
    assert [row["placement"] for row in document["rules"]] == ["output", "hidden_state", "embeddings"]
    read = ar.Spec.from_document(document)
    assert network.penalties(read, x).values == network.penalties(ar.Spec(rules), x).values


def test_c17_a_rule_for_training_is_0_in_evaluation() -> None:
    network = Network({"hidden": layers.Dense(random(FEATURES, UNITS), random(UNITS), "tanh")})
    x = random(BATCH, FEATURES)
    rules = [rule(ar.L2(0.5), "hidden", "output", when="train"), rule(ar.L1(0.5), "hidden", "kernel")]
    trained, evaluated = (network.penalties(ar.Spec(rules), x, training=training) for training in (True, False))
    alone = network.penalties(ar.Spec(rules[1:]), x)
    assert evaluated.values == {"hidden/output/l2": 0.0, **alone.values}
    assert evaluated.total == alone.total
    assert trained.values["hidden/output/l2"] > 0
    assert np.array_equal(evaluated.gradients["hidden/kernel"], alone.gradients["hidden/kernel"])


def test_schedules_scale_the_total_and_its_gradients() -> None:
    network, x, _, _ = NETWORKS["dense"]
    plain = rule(ar.L2(0.5), "hidden", "output")
    warmed = rule(ar.L2(0.5), "hidden", "output", schedule=ar.LinearWarmup(3))
    one = network.penalties(ar.Spec([plain]), x)
    two = network.penalties(ar.Spec([warmed]), x, step=1)
    factor = float(np.float32(1 / 3))
    assert two.values == one.values
    assert two.total == factor * one.total
    np.testing.assert_allclose(two.gradients["hidden/kernel"], factor * one.gradients["hidden/kernel"], rtol=1e-14)
    with pytest.raises(ar.SpecError, match=r"'hidden/output/l2' has a schedule; say the step"):
        network.penalties(ar.Spec([warmed]), x)


def test_a_shared_layer_counts_per_call_and_its_parameters_once() -> None:
    shared = dense(FEATURES, FEATURES)
    network, x = Network({"a": shared, "b": shared}), random(BATCH, FEATURES, seed=4)
    spec = ar.Spec([rule(ar.L2(0.5), "**", "output"), rule(ar.L2(0.25), "**", "kernel")])
    penalties = network.penalties(spec, x)
    assert list(penalties.values) == ["a/output/l2", "b/output/l2", "a/kernel/l2"]
    assert set(penalties.gradients) == {"a/kernel", "a/bias", "input"}

    def total(kernel: Array) -> float:
        held = dataclasses.replace(shared, kernel=kernel)
        return Network({"a": held, "b": held}).penalties(spec, x).total

    np.testing.assert_allclose(penalties.gradients["a/kernel"], numerical_gradient(total, shared.kernel), **TOLERANCE)


@pytest.mark.parametrize(
    ("layer", "placement", "text"),
    [
        (
            "lstm",
            "pre_activation",
            r"layer 'lstm' \(LSTM\) has no placement 'pre_activation'; there is 'bias', 'cell_g",
        ),
        (
            "embedding",
            "input",
            r"layer 'embedding' \(Embedding\) has no placement 'input'; there is 'embeddings', 'out",
        ),
        ("lstn", "output", r"layer='lstn'; the model has 'embedding', 'lstm', 'out'. Did you mean 'lstm'\?"),
    ],
)
def test_a_rule_that_matches_nothing(layer: str, placement: str, text: str) -> None:
    network, x, _, _ = NETWORKS["AR and TAR on an LSTM"]
    with pytest.raises(ar.SpecError, match=text):
        network.penalties(ar.Spec([rule(ar.L1(1.0), layer, placement)]), x)


def test_layers_without_parameters_are_met_by_their_path_only() -> None:
    network = Network({"hidden": dense(FEATURES, 7, "linear"), "relu": layers.Activation("relu")})
    x = random(BATCH, FEATURES)
    by_glob = network.penalties(ar.Spec([rule(ar.L1(1.0), "**", "output")]), x)
    assert list(by_glob.values) == ["hidden/output/l1"]
    by_path = network.penalties(ar.Spec([rule(ar.L1(1.0), "relu", p) for p in ("pre_activation", "output")]), x)
    assert by_path.values["relu/pre_activation/l1"] == by_glob.values["hidden/output/l1"]
    assert by_path.values["relu/output/l1"] < by_path.values["relu/pre_activation/l1"]


def test_two_rules_at_one_tensor_add_up() -> None:
    network, x, _, _ = NETWORKS["dense"]
    rules = [rule(ar.L2(0.5), "hidden", "output"), rule(ar.L1(0.25), "hidden", "output")]
    both = network.penalties(ar.Spec(rules), x)
    one, other = (network.penalties(ar.Spec([each]), x) for each in rules)
    assert both.values == {**one.values, **other.values}
    for key, gradient in both.gradients.items():
        np.testing.assert_allclose(gradient, one.gradients[key] + other.gradients[key], rtol=1e-12, atol=1e-14)
