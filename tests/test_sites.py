"""Which layers a rule meets, and what is an error."""

import re

import pytest

import arspec as ar
from arspec._sites import match_sites, names_layer, unfired

PATHS = ("embed", "encoder", "encoder/0", "encoder/0/linear", "encoder/10/linear", "encoder/out", "head", "a[0].b")
PLACEMENTS = {"kernel": "weight", "bias": "b", "output": "y"}


def layer(path: str, *placements: str, **options: object) -> ar.Layer:
    return ar.Layer(path, "Linear", {p: f"{path}.{PLACEMENTS[p]}" for p in placements or PLACEMENTS}, **options)


def rule(pattern: str, placement: str = "kernel", penalty: ar.Penalty = ar.L1(1.0)) -> ar.Rule:  # noqa: B008
    return ar.Rule(penalty, layer=pattern, placement=placement)


def met(pattern: str, placement: str = "kernel", layers: object = None) -> list[str]:
    """Return the paths of the layers a pattern meets."""
    found = match_sites(ar.Spec([rule(pattern, placement)]), layers or [layer(path) for path in PATHS])
    return [site.layer for site in found]


def error(*rules: ar.Rule, layers: list[ar.Layer]) -> str:
    with pytest.raises((ar.SpecError, ar.UnsupportedError)) as caught:
        match_sites(ar.Spec(rules), layers)
    return str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("head", ["head"]),
        ("encoder/0", ["encoder/0"]),
        ("encoder.0", ["encoder/0"]),
        ("/encoder/0/", ["encoder/0"]),
        ("encoder", ["encoder"]),
        ("*", ["embed", "encoder", "head"]),
        ("e*", ["embed", "encoder"]),
        ("*e*d*", ["embed", "encoder", "head"]),
        ("encoder/*", ["encoder/0", "encoder/out"]),
        ("*/0", ["encoder/0"]),
        ("encoder/*/linear", ["encoder/0/linear", "encoder/10/linear"]),
        ("encoder/?/linear", ["encoder/0/linear"]),
        ("encoder/??/linear", ["encoder/10/linear"]),
        ("encoder/**", ["encoder/0", "encoder/0/linear", "encoder/10/linear", "encoder/out"]),
        ("**/linear", ["encoder/0/linear", "encoder/10/linear"]),
        ("**/encoder/**/linear", ["encoder/0/linear", "encoder/10/linear"]),
        ("**/head", ["head"]),
        ("**/0/**", ["encoder/0/linear"]),
        ("a[0].b", ["a[0].b"]),
        ("a[0]/*", ["a[0].b"]),
    ],
)
def test_patterns(pattern: str, paths: list[str]) -> None:
    assert met(pattern) == paths


@pytest.mark.parametrize("pattern", ["**", "**/*", "**/**", "**/**/*"])
def test_two_stars_meet_every_layer(pattern: str) -> None:
    assert met(pattern) == list(PATHS)


@pytest.mark.parametrize("pattern", ["hea", "ead", "head/0", "HEAD", "linear", "encoder/0/linear/x", "hea[d]", "a0/b"])
def test_a_pattern_must_fit_as_a_whole(pattern: str) -> None:
    assert error(rule(pattern), layers=[layer(path) for path in PATHS]).startswith(
        f"the rule kernel/l1 matches no layer: layer={pattern!r}; the model has 'embed', 'encoder', 'encoder/0',"
    )


def test_a_path_that_is_there_is_not_a_pattern() -> None:
    assert met("*", layers=[layer("*"), layer("a")]) == ["*"]
    assert met("a?", layers=[layer("ab"), layer("a?")]) == ["a?"]


def test_many_stars_cost_no_time() -> None:
    long = [layer("/".join(["part"] * 30))]
    assert "matches no layer" in error(rule("/".join(["**"] * 6 + ["no"])), layers=long)


def test_sites_stand_in_the_order_of_the_rules_and_then_of_the_model() -> None:
    layers = [layer("a"), layer("b")]
    spec = ar.Spec([rule("b"), rule("**", "bias", ar.L2(1.0)), rule("*", "output")])
    sites = match_sites(spec, layers)
    assert [site.key for site in sites] == [
        "b/kernel/l1",
        "a/bias/l2",
        "b/bias/l2",
        "a/output/l1",
        "b/output/l1",
    ]
    assert [site.tensor for site in sites] == ["b.weight", "a.b", "b.b", "a.y", "b.y"]
    assert [site.rule for site in sites] == [spec.rules[i] for i in (0, 1, 1, 2, 2)]


def test_keys_are_unique() -> None:
    spec = ar.Spec([rule("a"), rule("**"), rule("a", penalty=ar.L1(2.0))])
    keys = [site.key for site in match_sites(spec, [layer("a"), layer("b")])]
    assert keys == ["a/kernel/l1", "a/kernel/l1#2", "b/kernel/l1", "a/kernel/l1#3"]


def test_a_pattern_takes_the_layers_that_have_the_placement() -> None:
    layers = [layer("norm", "bias"), layer("dense"), layer("drop", "output")]
    assert met("**", "kernel", layers) == ["dense"]
    assert met("*", "bias", layers) == ["norm", "dense"]


def test_activation_layers_are_met_by_their_full_path_only() -> None:
    layers = [layer("dense"), layer("relu", "output", in_globs=False)]
    assert met("**", "output", layers) == ["dense"]
    assert met("relu", "output", layers) == ["relu"]
    assert error(rule("rel*", "output"), layers=layers) == (
        "the rule output/l1 matches nothing: 'rel*' names only layers without parameters of their own; "
        "name each of them by its full path: 'relu'."
    )
    assert error(rule("rel*", "kernel"), layers=layers) == (
        "the rule kernel/l1 matches nothing: layer 'relu' (Linear) has no placement 'kernel'; "
        "there is none that can be named."
    )


def test_a_glob_that_spells_out_the_last_part_meets_layers_without_parameters() -> None:
    layers = [layer("0/dense"), layer("0/act", "output", in_globs=False), layer("1/act", "output", in_globs=False)]
    assert met("*/act", "output", layers) == met("**/act", "output", layers) == ["0/act", "1/act"]
    assert met("0/*", "output", layers) == ["0/dense"]


def test_no_layer_of_that_name() -> None:
    layers = [layer("hidden"), layer("out")]
    assert error(rule("hiden"), layers=layers) == (
        "the rule kernel/l1 matches no layer: layer='hiden'; the model has 'hidden', 'out'. Did you mean 'hidden'?"
    )
    assert error(rule("x"), layers=[]) == "the rule kernel/l1 matches no layer: layer='x'; the model has no layers."
    many = error(rule("zzz"), layers=[layer(f"layer{i}") for i in range(20)])
    assert many.endswith("'layer6', 'layer7' and 12 more.")


def test_no_such_placement() -> None:
    layers = [layer("a", "output"), layer("b", "output", "bias")]
    assert error(rule("a"), layers=layers) == (
        "the rule kernel/l1 matches nothing: layer 'a' (Linear) has no placement 'kernel'; there is 'output'."
    )
    assert error(rule("**"), layers=layers) == (
        "the rule kernel/l1 matches nothing: none of 'a', 'b' has the placement 'kernel'; there is 'bias', 'output'."
    )


def test_a_refused_placement_is_an_error_even_beside_others() -> None:
    refusing = layer("b", "kernel", refused={"output": "the activation is not known; say activations={'b': f}."})
    layers = [layer("a"), refusing]
    expected = "layer 'b' (Linear), output: the activation is not known; say activations={'b': f}."
    for pattern in ("b", "**"):
        with pytest.raises(ar.UnsupportedError, match=re.escape(expected)):
            match_sites(ar.Spec([rule(pattern, "output")]), layers)
    assert met("**", "kernel", layers) == ["a", "b"]
    hidden = layer("b", "kernel", refused=refusing.refused, in_globs=False)
    assert met("**", "output", [layer("a"), hidden]) == ["a"]


@pytest.mark.parametrize("spec", [None, "spec.json", [rule("a")], rule("a")])
def test_not_a_spec(spec: object) -> None:
    with pytest.raises(ar.SpecError) as caught:
        match_sites(spec, [layer("a")])
    assert str(caught.value) == f"spec={spec!r}; expected a Spec, such as Spec([Rule(...)]) or load('spec.json')."


def test_no_rules_no_sites() -> None:
    sites = match_sites(ar.Spec([]), [layer("a")])
    assert list(sites) == []
    assert repr(sites) == "rule  layer  tensor  shape  mean over  value"


def test_the_table() -> None:
    spec = ar.Spec(
        [rule("a", "output"), rule("a", "bias"), ar.Rule(ar.L2(1.0), layer="b", placement="kernel", mean_over="mean")]
    )
    sites = match_sites(spec, [layer("a"), layer("b")])
    before = [line.split() for line in repr(sites).splitlines()]
    assert before[1] == ["output/l1", "a", "a.y", "-", "batch", "-"]
    after = sites.with_results(
        {"a/output/l1": (30, 500), "a/bias/l1": ()}, {"a/output/l1": 0.123456789, "b/kernel/l2": float("nan")}
    )
    assert repr(after).splitlines() == [
        "rule       layer  tensor    shape   mean over  value",
        "output/l1  a      a.y       30×500  batch      0.123457",
        "bias/l1    a      a.b       scalar  (sum)      -",
        "kernel/l2  b      b.weight  -       mean       nan",
    ]
    assert (after[0].shape, after[0].value) == ((30, 500), 0.123456789)
    assert len(after) == 3
    assert sites[0].shape is None


def test_a_site_that_never_fired() -> None:
    spec = ar.Spec([rule("a", "output"), rule("b", "output")])
    missing = match_sites(spec, [layer("a"), layer("b")])
    made = unfired(missing)
    assert isinstance(made, ar.SpecError)
    assert str(made) == (
        "'a/output/l1', 'b/output/l1' never fired: the layer did not run in the last forward pass, so the penalty "
        "would be silently missing. Run the whole model before asking for losses, or drop the rule."
    )


@pytest.mark.parametrize(("name", "given"), [("when", "train"), ("trainable_only", True)])
def test_an_option_the_adapter_does_not_heed_is_refused(name: str, given: object) -> None:
    spec = ar.Spec([ar.Rule(ar.L2(1.0), layer="a", placement="kernel", **{name: given})])
    with pytest.raises(ar.UnsupportedError, match=f"the rule kernel/l2 says {name}={given!r}, which this adapter"):
        match_sites(spec, [layer("a")])
    assert len(match_sites(spec, [layer("a")], serves=(name,))) == 1


def test_a_hint_says_where_the_placement_is() -> None:
    layers = [layer("lstm", "output", hints={"kernel": "Name one of 'lstm/0', 'lstm/1'."})]
    assert error(rule("lstm"), layers=layers).endswith("there is 'output'. Name one of 'lstm/0', 'lstm/1'.")
    assert met("**", "kernel", [*layers, layer("lstm/0")]) == ["lstm/0"]


def test_a_pattern_names_layers_wherever_patterns_stand() -> None:
    assert names_layer("encoder/*", "encoder/0")
    assert names_layer("encoder.0", "encoder/0")
    assert not names_layer("encoder/*", "encoder")
