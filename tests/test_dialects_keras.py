"""The Keras dialects: each version's meaning, the Keras installed here, and models as they describe themselves."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import arspec as ar
import keras
from arspec import dialects
from arspec.dialects._keras_models import SLOTS

HERE = dialects.keras(version=keras.__version__)
# TRAPS B1: which versions divide an activity penalty by the batch.
ACTIVITY_MEAN = {
    "2.0.8": (),
    "2.3.1": (),
    "2.2.4-tf": ("batch",),
    "2.4.3": ("batch",),
    "2.15.0": ("batch",),
    "3.0.0": (),
    "3.13.2": (),
    "3.14.0": ("batch",),
    "3.15.1": ("batch",),
    "3.100.0": ("batch",),
}
GENERATIONS = ("2.3.1", "2.15.0", "3.13.2", "3.15.1")
BATCH, FEATURES, UNITS = 7, 3, 5


def value(rule: ar.Rule, x: Any, **options: Any) -> float:
    array = np.asarray(keras.ops.convert_to_numpy(x), "float64")
    return float(ar.value(rule.penalty, array, mean_over=rule.mean_over, **options))


def total_loss(layer: keras.Layer) -> float:
    """Return what Keras adds to the loss."""
    return float(sum(keras.ops.convert_to_numpy(loss) for loss in layer.losses))


def dense(**arguments: Any) -> keras.layers.Dense:
    layer = keras.layers.Dense(UNITS, bias_initializer=keras.initializers.RandomNormal(seed=1), **arguments)
    layer.build((None, FEATURES))
    return layer


def refusal(call: Any) -> str:
    with pytest.raises(ar.UnsupportedError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("version", ACTIVITY_MEAN)
def test_what_a_version_divides_by(version: str) -> None:
    dialect = dialects.keras(version=version)
    assert dialect.activity("l1", 0.5, layer="hidden").mean_over == ACTIVITY_MEAN[version]
    assert dialect.kernel("l1", 0.5, layer="hidden").mean_over == ()
    assert dialects.dialect(f"keras=={version}") == dialect


def test_tf_keras_is_a_generation_of_its_own() -> None:
    assert dialects.tf_keras.activity("l2", layer="hidden").mean_over == ("batch",)
    document = dialects.tf_keras.write(dialects.tf_keras.bias("l2", 0.25, layer="hidden"))
    assert dialects.keras(version="2.15.0").read(document) == dialects.tf_keras.read(document)


REGULARIZERS = {
    "l1": keras.regularizers.L1(0.25),
    "l2": keras.regularizers.L2(0.5),
    "l1_l2": keras.regularizers.L1L2(0.25, 0.5),
    "default": keras.regularizers.get("l2"),
    "rounded to float32": keras.regularizers.L1(0.1),
}
WEIGHTS_ONLY = {
    "rows": keras.regularizers.OrthogonalRegularizer(0.5),
    "columns": keras.regularizers.OrthogonalRegularizer(0.5, mode="columns"),
}


@pytest.mark.parametrize("name", [*REGULARIZERS, *WEIGHTS_ONLY])
def test_weights_as_keras_counts_them(name: str) -> None:
    regularizer = {**REGULARIZERS, **WEIGHTS_ONLY}[name]
    layer = dense(kernel_regularizer=regularizer)
    rule = HERE.kernel(regularizer, layer="hidden")
    assert value(rule, layer.kernel, axes="input output") == pytest.approx(total_loss(layer), rel=2e-6)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_activities_as_keras_counts_them(name: str) -> None:
    layer = dense(activity_regularizer=REGULARIZERS[name], activation="tanh")
    output = layer(np.random.default_rng(3).normal(size=(BATCH, FEATURES)).astype("float32"))
    rule = HERE.activity(REGULARIZERS[name], layer="hidden")
    assert value(rule, output) == pytest.approx(total_loss(layer), rel=2e-6)
    assert value(ar.Rule(rule.penalty, layer="x", placement="output", mean_over="sum"), output) > 2 * value(
        rule, output
    )


# Strings and default arguments (TRAPS C15)


@pytest.mark.parametrize("name", ["l1", "l2", "L1", "L2", "orthogonal_regularizer", "OrthogonalRegularizer"])
def test_a_string_has_the_defaults_of_keras(name: str) -> None:
    given = HERE.kernel(name, layer="hidden").penalty
    theirs = keras.regularizers.get(name).get_config()
    (number,) = [theirs[key] for key in ("l1", "l2", "factor") if key in theirs]
    assert given.coefficient == pytest.approx(number, rel=1e-7)
    assert given.coefficient == 0.01


@pytest.mark.parametrize("name", ["l1_l2", "l1l2", "L1L2", "l3", ""])
def test_a_string_that_keras_3_refuses_or_takes_for_zero_is_refused(name: str) -> None:
    with pytest.raises(ar.SpecError, match=r"unknown regularizer of Keras >= 3\.14"):
        HERE.kernel(name, layer="hidden")
    try:
        theirs = keras.regularizers.get(name)
    except ValueError:
        return
    assert theirs.get_config() == {"l1": 0.0, "l2": 0.0}


@pytest.mark.parametrize("version", ["2.0.8", "2.3.1", "2.15.0"])
def test_both_at_once_was_a_string_in_keras_2(version: str) -> None:
    dialect = dialects.keras(version=version)
    assert dialect.kernel("l1_l2", layer="hidden").penalty == ar.L1L2(0.01, 0.01)
    with pytest.raises(ar.SpecError, match="unknown regularizer"):
        dialect.kernel("L1L2", layer="hidden")


@pytest.mark.parametrize("version", GENERATIONS)
def test_numbers_of_a_string(version: str) -> None:
    dialect = dialects.keras(version=version)
    assert dialect.kernel("l1_l2", 0.1, 0.2, layer="hidden").penalty == ar.L1L2(0.1, 0.2)
    assert dialect.kernel("l1_l2", 0.1, 0, layer="hidden").penalty == ar.L1(0.1)
    for numbers in ((0.1,), (0.1, 0.2, 0.3)):
        with pytest.raises(ar.SpecError, match=f"l1_l2 got {len(numbers)} coefficients; expected l1, l2"):
            dialect.kernel("l1_l2", *numbers, layer="hidden")


@pytest.mark.parametrize(
    "regularizer",
    [
        {"class_name": "L1L2", "config": {}},
        {"class_name": "L1L2", "config": {"l1": 0.0, "l2": 0.0}},
        {"class_name": "L1L2", "config": {"l1": None, "l2": None}},
        {"class_name": "L2", "config": {"l2": 0.0}},
        keras.regularizers.L1L2(),
    ],
)
@pytest.mark.parametrize("version", GENERATIONS)
def test_never_a_silent_zero(version: str, regularizer: Any) -> None:
    text = refusal(lambda: dialects.keras(version=version).kernel(regularizer, layer="hidden"))
    assert "coefficient 0 is no penalty, and may be a forgotten argument; drop it" in text


def test_an_argument_left_out_is_the_default() -> None:
    for config in ({}, {"l2": None}):
        theirs = keras.regularizers.L2(**config)
        given = HERE.kernel({"class_name": "L2", "config": config}, layer="hidden").penalty
        assert given == ar.L2(theirs.get_config()["l2"])
    assert HERE.kernel({"class_name": "l1", "config": {"l": 0.5}}, layer="hidden").penalty == ar.L1(0.5)


@keras.saving.register_keras_serializable(package="test_dialects")
class L2OfMine(keras.regularizers.Regularizer):
    def __call__(self, x: Any) -> Any:
        return keras.ops.sum(x)

    def get_config(self) -> dict[str, Any]:
        return {}


WRONG = {
    "number": (0.1, "got 0.1; expected a string such as 'l1', a config or a regularizer."),
    "none": (None, "got None; expected a string"),
    "config": ({"class_name": "L2"}, "got {'class_name': 'L2'}; expected"),
    "argument": ({"class_name": "L2", "config": {"l1": 0.1}}, "unknown argument of L2 'l1'; allowed: l2."),
    "negative": ({"class_name": "L2", "config": {"l2": -1}}, "L2: l2=-1; expected a finite number >= 0."),
    "text": ({"class_name": "L2", "config": {"l2": "0.1"}}, "L2: l2='0.1'; expected"),
    "mode": ({"class_name": "OrthogonalRegularizer", "config": {"mode": "both"}}, "unknown mode of Orthogonal 'both'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_regularizer_is_named(name: str) -> None:
    regularizer, text = WRONG[name]
    with pytest.raises(ar.SpecError) as caught:
        HERE.kernel(regularizer, layer="hidden")
    assert text in str(caught.value)


def test_numbers_do_not_go_with_a_config() -> None:
    with pytest.raises(ar.SpecError, match=r"coefficients=\(0\.1,\) go with a string"):
        HERE.kernel(keras.regularizers.L2(0.1), 0.1, layer="hidden")


def test_an_argument_that_is_none_of_a_layer() -> None:
    with pytest.raises(ar.SpecError, match="Did you mean 'kernel_regularizer'"):
        HERE.rule("kernel_regulariser", "l2", layer="hidden")


def test_foreign_regularizers_are_refused() -> None:
    assert "L2OfMine is not a regularizer of Keras" in refusal(lambda: HERE.kernel(L2OfMine(), layer="hidden"))
    config = {"class_name": "SpectralRegularizer", "config": {}}
    assert "'SpectralRegularizer' is not a regularizer that arspec knows" in refusal(
        lambda: HERE.kernel(config, layer="hidden")
    )
    text = refusal(lambda: HERE.activity("orthogonal_regularizer", layer="hidden"))
    assert "would take the batch for rows of weights" in text


# Writing

numbers = st.floats(min_value=1e-300, max_value=1e300)
penalties = st.one_of(st.builds(ar.L1, numbers), st.builds(ar.L2, numbers), st.builds(ar.L1L2, numbers, numbers))
placements = st.sampled_from([placements[0] for placements in SLOTS.values()])


@pytest.mark.parametrize("version", GENERATIONS)
@given(st.dictionaries(st.tuples(st.sampled_from(["a", "b/c"]), placements), penalties, min_size=1))
def test_what_is_written_is_read_back(version: str, placed: dict[tuple[str, str], ar.Penalty]) -> None:
    dialect = dialects.keras(version=version)
    rules = [
        ar.Rule(penalty, layer=layer, placement=p, mean_over=ACTIVITY_MEAN[version] if p == "output" else "sum")
        for (layer, p), penalty in placed.items()
    ]
    document = json.loads(json.dumps(dialect.write(rules), allow_nan=False))
    assert set(dialect.read(document).rules) == set(rules)
    assert dialect.write(dialect.read(document)) == document


@pytest.mark.parametrize("penalty", [ar.L1(0.25), ar.L2(0.1), ar.L1L2(0.25, 0.1), ar.Orthogonal(0.5, mode="columns")])
def test_keras_itself_reads_what_is_written(penalty: ar.Penalty) -> None:
    rule = ar.Rule(penalty, layer="hidden", placement="kernel")
    config = HERE.write(rule)["layers"]["hidden"]["kernel_regularizer"]
    theirs = keras.regularizers.deserialize(config)
    assert HERE.kernel(theirs, layer="hidden") == rule
    assert keras.regularizers.serialize(theirs) == config


def test_rules_of_one_place_become_one_regularizer() -> None:
    rules = [HERE.kernel("l1", 0.1, layer="hidden"), HERE.kernel("l2", 0.2, layer="hidden")]
    config = HERE.write(rules)["layers"]["hidden"]["kernel_regularizer"]
    assert (config["class_name"], config["config"]) == ("L1L2", {"l1": 0.1, "l2": 0.2})
    added = ar.Rule(ar.L1(0.1) + 0.5 * ar.L2(0.4), layer="hidden", placement="kernel")
    assert HERE.write(added)["layers"]["hidden"]["kernel_regularizer"] == config


def test_keras_2_had_one_class() -> None:
    document = dialects.keras(version="2.3.1").write(ar.Rule(ar.L2(0.5), layer="hidden", placement="bias"))
    assert document == {
        "dialect": "keras==2.3.1",
        "layers": {"hidden": {"bias_regularizer": {"class_name": "L1L2", "config": {"l1": 0.0, "l2": 0.5}}}},
    }


def rule(penalty: ar.Penalty, placement: str = "kernel", layer: str = "hidden", **options: Any) -> ar.Rule:
    return ar.Rule(penalty, layer=layer, placement=placement, **options)


UNWRITTEN = {
    "batch mean in Keras 2.3": (
        "2.3.1",
        [rule(ar.L1(1.0), "output")],
        "Keras 2.0-2.3 takes the sum in activity_regularizer; this rule has mean_over=['batch'].",
    ),
    "sum in Keras 3.15": (
        "3.15.1",
        [rule(ar.L1(1.0), "output", mean_over="sum")],
        "Keras >= 3.14 averages over batch in activity_regularizer; this rule has mean_over=[].",
    ),
    "mean of a kernel": ("3.15.1", [rule(ar.L1(1.0), mean_over="mean")], "takes the sum in kernel_regularizer"),
    "pre-activation": ("3.15.1", [rule(ar.L1(1.0), "pre_activation")], "Split the layer into Dense() and Activation()"),
    "gate": ("3.15.1", [rule(ar.L1(1.0), "input_gate")], "no argument of a Keras layer regularizes its input_gate"),
    "queries": ("3.15.1", [rule(ar.L1(1.0), "query_kernel")], "regularizes its query_kernel alone."),
    "schedule": ("3.15.1", [rule(ar.L1(1.0), schedule=ar.LinearWarmup(5))], "this form holds constants only"),
    "penalty": ("3.15.1", [rule(ar.Hoyer(1.0))], "Keras has no regularizer for Hoyer(coefficient=1.0)"),
    "two of a kind": ("3.15.1", [rule(ar.L1(1.0) + ar.L1(2.0))], "two L1 meet in one regularizer"),
    "two rules of a kind": ("3.15.1", [rule(ar.L2(1.0)), rule(ar.L2(2.0))], "two L2 meet in one regularizer"),
    "zero": ("3.15.1", [rule(ar.L1(0.0))], "its coefficient is 0, which Keras cannot tell from a forgotten one"),
    "zero orthogonal": ("3.15.1", [rule(ar.Orthogonal(0.0))], "its coefficient is 0"),
    "orthogonal and more": ("3.15.1", [rule(ar.Orthogonal(1.0) + ar.L1(1.0))], "one at a time"),
    "orthogonal in Keras 2": ("2.3.1", [rule(ar.Orthogonal(1.0))], "Keras 2.0-2.3 has no OrthogonalRegularizer"),
    "orthogonal activity": ("3.15.1", [rule(ar.Orthogonal(1.0), "output")], "would take the batch for rows"),
    "overlap": ("3.15.1", [rule(ar.L1(1.0)), rule(ar.L2(1.0), layer="**")], "may meet the same one"),
}


@pytest.mark.parametrize("name", UNWRITTEN)
def test_what_keras_cannot_say(name: str) -> None:
    version, rules, reason = UNWRITTEN[name]
    text = refusal(lambda: dialects.keras(version=version).write(rules))
    assert text.startswith(f"keras=={version} cannot write this exactly:\n  rules[0] (hidden/")
    assert reason in text


# Models as they describe themselves


def described(model: keras.Model) -> dict[str, Any]:
    return json.loads(model.to_json())


def test_a_model_as_keras_counts_it() -> None:
    """The rules read from `to_json()` add up to `sum(model.losses)`."""
    layers = keras.layers
    x = keras.Input((FEATURES,))
    hidden = layers.Dense(UNITS, "relu", kernel_regularizer="l2", activity_regularizer=keras.regularizers.L1(0.25))
    hidden.name = "hidden"
    inner = keras.Sequential([keras.Input((UNITS,)), layers.Dense(2, bias_regularizer="l1", name="d")], name="inner")
    frozen = layers.Dense(2, kernel_regularizer="l2", trainable=False, name="frozen")
    y = layers.ActivityRegularization(l1=0.5, name="extra")(frozen(inner(hidden(x))))
    model = keras.Model(x, y)
    inner.get_layer("d").bias.assign([0.5, -2.0])
    conversion = HERE.reading(described(model))
    assert conversion.refused == ()
    assert conversion.notes == (
        "frozen: kernel_regularizer has no effect, since the layer is frozen; Keras >= 3.14 drops it.",
    )
    data = np.random.default_rng(2).normal(size=(BATCH, FEATURES)).astype("float32")
    outputs = keras.Model(x, [hidden.output, y])(data)
    model(data)
    tensors = {
        ("hidden", "kernel"): hidden.kernel,
        ("hidden", "output"): outputs[0],
        ("inner/d", "bias"): inner.get_layer("d").bias,
        ("extra", "output"): outputs[1],
    }
    rules = {(rule.layer, rule.placement): rule for rule in conversion.result.rules}
    assert rules.keys() == tensors.keys()
    total = sum(value(rule, tensors[key]) for key, rule in rules.items())
    assert total == pytest.approx(total_loss(model), rel=2e-6)


def test_a_frozen_layer_counts_in_tf_keras() -> None:
    """TRAPS C8."""
    config = {"name": "d", "trainable": False, "kernel_regularizer": {"class_name": "L2", "config": {"l2": 0.5}}}
    document = {"class_name": "Sequential", "config": [{"class_name": "Dense", "config": config}]}
    expected = ar.Spec([ar.Rule(ar.L2(0.5), layer="d", placement="kernel")])
    assert dialects.tf_keras.read(document) == expected
    with pytest.warns(dialects.DialectWarning, match="d: kernel_regularizer has no effect, since the layer is frozen"):
        assert HERE.read(document) == ar.Spec([])


def test_the_decay_of_an_optimizer_is_not_in_the_rules() -> None:
    """TRAPS D3."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_regularizer="l2", name="d")])
    model.compile(optimizer=keras.optimizers.SGD(0.1, weight_decay=0.004), loss="mse")
    conversion = HERE.reading(described(model))
    assert [rule.layer for rule in conversion.result.rules] == ["d"]
    assert conversion.notes == (
        "the optimizer has weight_decay=0.004, decoupled in Keras: no penalty, and not in the rules.",
    )
    model.compile(optimizer="sgd", loss="mse")
    assert HERE.reading(described(model)).notes == ()


def time_distributed() -> keras.Model:
    inner = keras.layers.Dense(
        4, name="inner", activity_regularizer=keras.regularizers.L2(0.25), kernel_regularizer="l2"
    )
    return keras.Sequential([keras.Input((5, 3)), keras.layers.TimeDistributed(inner, name="steps")])


def test_time_distributed_loses_its_activity_penalty_in_keras_3() -> None:
    """TRAPS B4: importing such a model warns."""
    model = time_distributed()
    model(np.ones((BATCH, 5, 3), "float32"))
    with pytest.warns(dialects.DialectWarning, match="loses it inside TimeDistributed"):
        spec = HERE.read(described(model))
    assert [(rule.layer, rule.placement) for rule in spec.rules] == [("steps/inner", "kernel")]
    assert len(model.losses) == 1


@pytest.mark.parametrize(("version", "mean_over"), [("2.2.4", ()), ("2.15.0", ("batch", "time"))])
def test_time_distributed_in_keras_2(version: str, mean_over: tuple[str, ...]) -> None:
    spec = dialects.keras(version=version).read(described(time_distributed()))
    assert spec.rules[0] == ar.Rule(ar.L2(0.25), layer="steps", placement="output", mean_over=mean_over)


def layer_config(kind: str, name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, **arguments}}


def model_of(*nodes: Any, **more: Any) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": "model", "layers": list(nodes)}, **more}


L2 = {"class_name": "L2", "config": {"l2": 0.5}}


def test_the_batch_is_axis_0_whatever_it_is() -> None:
    """TRAPS B2: tf-keras divides by the time steps of a time-major layer."""
    document = model_of(layer_config("LSTM", "rnn", time_major=True, activity_regularizer=L2))
    (read,) = dialects.tf_keras.read(document).rules
    assert read.mean_over == ("time",)


def test_both_directions() -> None:
    inner = keras.layers.LSTM(2, name="lstm", recurrent_regularizer=keras.regularizers.L2(0.5))
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.Bidirectional(inner, name="both")])
    expected = [
        ar.Rule(ar.L2(0.5), layer=f"both/{direction}", placement="recurrent_kernel")
        for direction in ("forward", "backward")
    ]
    assert list(HERE.read(described(model)).rules) == expected
    assert len(model.losses) == 2
    one = model_of(layer_config("Bidirectional", "both", layer=layer_config("LSTM", "lstm", recurrent_regularizer=L2)))
    assert list(dialects.tf_keras.read(one).rules) == expected


def test_attention_has_four_kernels() -> None:
    x = keras.Input((5, 4))
    attention = keras.layers.MultiHeadAttention(2, 2, name="mha", kernel_regularizer=keras.regularizers.L2(0.5))
    model = keras.Model(x, attention(x, x))
    read = HERE.read(described(model)).rules
    assert [rule.placement for rule in read] == ["query_kernel", "key_kernel", "value_kernel", "output_kernel"]
    assert len(model.losses) == 4
    kernels = [variable for variable in attention.weights if variable.name == "kernel"]
    axes = "height width feature"  # heads and their sizes are axes of their own in Keras
    total = sum(value(rule, kernel, axes=axes) for rule, kernel in zip(read, kernels, strict=True))
    assert total == pytest.approx(total_loss(model), rel=2e-6)


def test_convolutions_and_embeddings() -> None:
    document = model_of(
        layer_config("SeparableConv2D", "a", depthwise_regularizer=L2, pointwise_regularizer=L2),
        layer_config("DepthwiseConv2D", "b", depthwise_regularizer=L2),
        layer_config("Embedding", "c", embeddings_regularizer=L2),
        layer_config("BatchNormalization", "d", gamma_regularizer=L2, beta_regularizer=L2),
    )
    assert [(rule.layer, rule.placement) for rule in HERE.read(document).rules] == [
        ("a", "depthwise_kernel"),
        ("a", "pointwise_kernel"),
        ("b", "kernel"),
        ("c", "embeddings"),
        ("d", "scale"),
        ("d", "shift"),
    ]


CELL = layer_config("LSTMCell", "cell", kernel_regularizer=L2, activity_regularizer=L2)
UNREAD = {
    "activity of a cell": ("3.15.1", layer_config("RNN", "rnn", cell=CELL), "a cell counts its activity once per step"),
    "returned state": (
        "3.15.1",
        layer_config("LSTM", "rnn", return_state=True, activity_regularizer=L2),
        "rnn.activity_regularizer: the layer returns its state",
    ),
    "activity of attention": (
        "3.15.1",
        layer_config("MultiHeadAttention", "mha", activity_regularizer=L2),
        "Keras 3 penalizes the projections of an attention",
    ),
    "no placement": (
        "3.15.1",
        layer_config("PReLU", "act", alpha_regularizer=L2),
        "no placement for 'alpha_regularizer'",
    ),
    "nested": (
        "3.15.1",
        layer_config("Mine", "mine", encoder=layer_config("Dense", "d", kernel_regularizer=L2)),
        "mine.encoder.config.kernel_regularizer: arspec has no placement for 'kernel_regularizer' here.",
    ),
    "directions in Keras 2": (
        "2.3.1",
        layer_config("Bidirectional", "both", layer=layer_config("LSTM", "lstm", kernel_regularizer=L2)),
        "both/backward.kernel_regularizer: which direction is penalized changed",
    ),
    "a model in TimeDistributed": (
        "2.15.0",
        layer_config("TimeDistributed", "t", layer=model_of(layer_config("Dense", "d", activity_regularizer=L2))),
        "the layer is inside a model inside TimeDistributed",
    ),
    "orthogonal activity": (
        "3.15.1",
        layer_config("Dense", "d", activity_regularizer={"class_name": "OrthogonalRegularizer", "config": {}}),
        "would take the batch for rows of weights",
    ),
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_arspec_cannot_say(name: str) -> None:
    version, node, reason = UNREAD[name]
    text = refusal(lambda: dialects.keras(version=version).read(model_of(node)))
    assert text.startswith(f"keras=={version} cannot read this exactly:\n  ")
    assert reason in text


def test_what_can_be_read_of_a_cell_is_read() -> None:
    stacked = layer_config("StackedRNNCells", "stack", cells=[CELL])
    for node, path in ((layer_config("RNN", "rnn", cell=CELL), "rnn/cell"), (stacked, "stack/cell")):
        conversion = HERE.reading(model_of(node))
        assert conversion.result == ar.Spec([ar.Rule(ar.L2(0.5), layer=path, placement="kernel")])
        assert [str(each.what) for each in conversion.refused] == [f"{path}.activity_regularizer"]


BAD = {
    "number": (3, "got 3; expected model.to_json()"),
    "no layers": ({"class_name": "Mine", "config": {}}, "a subclassed model does not describe itself"),
    "layer": (model_of(3), "got 3 in a model config; expected a layer"),
    "version": (model_of(keras_version="2.3.1"), "the model was written by Keras 2.3.1, which differs from"),
    "dialect": ({"dialect": "keras==2.3.1", "layers": {}}, "its dialect is 'keras==2.3.1', which differs from"),
    "key": ({"layers": {}, "terms": []}, "unknown key 'terms'; allowed: dialect, layers."),
    "slot": ({"layers": {"a": {"kernel": L2}}}, "layers['a']: unknown key 'kernel'; expected regularizers: "),
    "slots": ({"layers": {"a": None}}, "layers['a']: got None; expected an object"),
    "zero": ({"layers": {"a": {"kernel_regularizer": 0.5}}}, "a.kernel_regularizer: got 0.5; expected a string"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_document_is_named(name: str) -> None:
    document, text = BAD[name]
    with pytest.raises(ar.SpecError) as caught:
        HERE.read(document)
    assert text in str(caught.value)


def test_a_model_says_which_version_wrote_it() -> None:
    document = model_of(layer_config("Dense", "d", activity_regularizer=L2), keras_version="2.2.4-tf")
    assert dialects.tf_keras.read(document).rules[0].mean_over == ("batch",)
