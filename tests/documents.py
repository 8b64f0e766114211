"""Spec documents, good and bad, that the reader and the JSON Schema must judge alike."""

from typing import Any

from arspec._placements import PLACEMENTS

L1 = {"name": "l1", "coefficient": 1e-4}
RULE = {"penalty": L1, "layer": "hidden", "placement": "output", "mean_over": ["batch"]}


def document(*rules: Any) -> dict[str, Any]:
    """Return a document with these rules."""
    return {"arspec": "2026.1", "rules": list(rules)}


def with_rule(**changes: Any) -> dict[str, Any]:
    """Return a document with one rule, changed."""
    return document({**RULE, **changes})


def with_penalty(penalty: Any) -> dict[str, Any]:
    """Return a document with one rule and this penalty."""
    return with_rule(penalty=penalty)


def summed(*parts: Any) -> dict[str, Any]:
    """Return a sum of (factor, penalty)."""
    return {"name": "sum", "summands": [{"factor": factor, "penalty": penalty} for factor, penalty in parts]}


def without(document: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a copy without a key."""
    return {name: value for name, value in document.items() if name != key}


GOOD: dict[str, Any] = {
    "no rules": document(),
    "one rule": document(RULE),
    "two rules": document(RULE, RULE),
    "default mean_over": document(without(RULE, "mean_over")),
    "null mean_over": with_rule(mean_over=None),
    "sum": with_rule(mean_over=[]),
    "shorthand sum": with_rule(mean_over="sum"),
    "shorthand batchmean": with_rule(mean_over="batchmean"),
    "shorthand mean": with_rule(mean_over="mean"),
    "several axes": with_rule(mean_over=["batch", "time"]),
    "glob": with_rule(layer="**"),
    "path": with_rule(layer="encoder/0.linear"),
    "every placement": document(*({**RULE, "placement": p} for p in PLACEMENTS)),
    "integer coefficient": with_penalty({"name": "l2", "coefficient": 1}),
    "zero": with_penalty({"name": "l2", "coefficient": 0.0}),
    "smallest number": with_penalty({"name": "l2", "coefficient": 5e-324}),
    "largest number": with_penalty({"name": "l2", "coefficient": 1.7976931348623157e308}),
    "elastic net": with_penalty({"name": "l1_l2", "l1": 0.1, "l2": 0}),
    "in training": with_rule(when="train"),
    "always": with_rule(when="always"),
    "trainable only": with_rule(placement="kernel", mean_over=[], trainable_only=True),
    "frozen too": with_rule(trainable_only=False),
    "penalties added": with_penalty(summed((1, L1), (0.5, {"name": "l2", "coefficient": 1e-3}))),
    "sums nested": with_penalty(summed((2, summed((0.5, L1))), (1, L1))),
}

# The place named first in the error, and a part of its text.
BAD: dict[str, tuple[Any, str, str]] = {
    "null": (None, "document", "got None; expected an object."),
    "list": ([], "document", "got []; expected an object."),
    "number": (3, "document", "got 3; expected an object."),
    "string": ("arspec", "document", "got 'arspec'; expected an object."),
    "empty": ({}, "document", "this is not an arspec document: it has no key 'arspec' (its keys: none)."),
    "foreign": (
        {"class_name": "Sequential", "config": {}},
        "document",
        "this is not an arspec document: it has no key 'arspec' (its keys: 'class_name', 'config').",
    ),
    "no rules": ({"arspec": "2026.1"}, "document", "no key 'rules'; expected arspec, rules."),
    "unknown key": ({**document(), "rule": []}, "document", "Did you mean 'rules'?"),
    "version": ({"arspec": "1999.9", "rules": []}, "arspec", "spec version '1999.9'; this arspec reads '2026.1'."),
    "version number": ({"arspec": 2026.1, "rules": []}, "arspec", "spec version 2026.1;"),
    "version list": ({"arspec": [], "rules": []}, "arspec", "spec version [];"),
    "rules object": ({"arspec": "2026.1", "rules": {}}, "rules", "got {}; expected a list."),
    "rules null": ({"arspec": "2026.1", "rules": None}, "rules", "got None; expected a list."),
    "rule null": (document(None), "rules[0]", "got None; expected an object."),
    "rule list": (document(RULE, []), "rules[1]", "got []; expected an object."),
    "rule unknown key": (with_rule(mask="x"), "rules[0]", "unknown key 'mask'; allowed: penalty, layer,"),
    "rule misspelt key": (
        document({**without(RULE, "layer"), "layr": "a"}),
        "rules[0]",
        "unknown key 'layr'; allowed: penalty, layer, placement, mean_over, schedule, numerics, when, "
        "trainable_only. Did you mean 'layer'?",
    ),
    "no layer": (document(without(RULE, "layer")), "rules[0]", "no key 'layer'; expected penalty, layer, placement,"),
    "no penalty": (document(without(RULE, "penalty")), "rules[0]", "no key 'penalty';"),
    "layer null": (with_rule(layer=None), "rules[0].layer", "layer=None; expected the path of a layer or a glob,"),
    "layer list": (with_rule(layer=["hidden"]), "rules[0].layer", "layer=['hidden']; expected the path"),
    "layer empty": (with_rule(layer=""), "rules[0].layer", "layer=''; expected the path"),
    "layer without parts": (with_rule(layer="./. "), "rules[0].layer", "layer='./. '; expected the path"),
    "placement": (
        with_rule(placement="pre-activation"),
        "rules[0].placement",
        "unknown placement 'pre-activation'; allowed: bias, cell_gate, cell_state, depthwise_kernel, embeddings, ",
    ),
    "placement null": (with_rule(placement=None), "rules[0].placement", "unknown placement None;"),
    "placement list": (with_rule(placement=["output"]), "rules[0].placement", "unknown placement ['output'];"),
    "placement object": (with_rule(placement={}), "rules[0].placement", "unknown placement {};"),
    "mean_over number": (with_rule(mean_over=1), "rules[0].mean_over", "mean_over=1; expected a tuple"),
    "mean_over object": (with_rule(mean_over={}), "rules[0].mean_over", "mean_over={}; expected a tuple"),
    "mean_over axis": (with_rule(mean_over="batch"), "rules[0].mean_over", "mean_over='batch' is an axis,"),
    "mean_over false": (with_rule(mean_over=False), "rules[0].mean_over", "mean_over=False; expected a tuple"),
    "axis": (
        with_rule(mean_over=["bach"]),
        "rules[0].mean_over",
        "unknown axis 'bach'; allowed: batch, depth, feature, height, input, output, time, width. "
        "Did you mean 'batch'?",
    ),
    "axis list": (with_rule(mean_over=[["batch"]]), "rules[0].mean_over", "unknown axis ['batch'];"),
    "axis twice": (with_rule(mean_over=["batch", "batch"]), "rules[0].mean_over", "names an axis twice."),
    "when": (with_rule(when="training"), "rules[0].when", "unknown when 'training'; allowed: always, train."),
    "when null": (with_rule(when=None), "rules[0].when", "unknown when None;"),
    "trainable_only number": (with_rule(trainable_only=1), "rules[0].trainable_only", "trainable_only=1; expected"),
    "trainable_only of an activation": (
        with_rule(trainable_only=True),
        "rules[0].trainable_only",
        "trainable_only=True says nothing about 'output'; only a parameter can be frozen.",
    ),
    "penalty null": (with_penalty(None), "rules[0].penalty", "got None; expected an object."),
    "penalty string": (with_penalty("l1"), "rules[0].penalty", "got 'l1'; expected an object."),
    "penalty empty": (
        with_penalty({}),
        "rules[0].penalty",
        'no key \'name\'; expected an object such as {"name": "l1", "coefficient": 0.0001}.',
    ),
    "penalty unknown": (
        with_penalty({"name": "l1l2", "l1": 1, "l2": 1}),
        "rules[0].penalty",
        "unknown penalty 'l1l2'; allowed: ",
    ),
    "penalty name null": (with_penalty({"name": None}), "rules[0].penalty", "unknown penalty None;"),
    "penalty name list": (with_penalty({"name": ["l1"]}), "rules[0].penalty", "unknown penalty ['l1'];"),
    "penalty no coefficient": (
        with_penalty({"name": "l1"}),
        "rules[0].penalty",
        "no key 'coefficient'; expected name, coefficient.",
    ),
    "penalty unknown parameter": (
        with_penalty({**L1, "coeficient": 2}),
        "rules[0].penalty",
        "unknown key 'coeficient'; allowed: name, coefficient. Did you mean 'coefficient'?",
    ),
    "coefficient negative": (
        with_penalty({**L1, "coefficient": -1}),
        "rules[0].penalty",
        "L1: coefficient=-1; expected a finite number >= 0. A penalty that rewards",
    ),
    "coefficient string": (with_penalty({**L1, "coefficient": "1"}), "rules[0].penalty", "L1: coefficient='1';"),
    "coefficient null": (with_penalty({**L1, "coefficient": None}), "rules[0].penalty", "L1: coefficient=None;"),
    "coefficient bool": (with_penalty({**L1, "coefficient": True}), "rules[0].penalty", "L1: coefficient=True;"),
    "coefficient list": (with_penalty({**L1, "coefficient": [1]}), "rules[0].penalty", "L1: coefficient=[1];"),
    "coefficient huge": (
        with_penalty({**L1, "coefficient": 10**400}),
        "rules[0].penalty",
        "expected a finite number >= 0.",
    ),
    "coefficient infinite": (with_penalty({**L1, "coefficient": 1e400}), "rules[0].penalty", "L1: coefficient=inf;"),
    "sum without summands": (with_penalty({"name": "sum"}), "rules[0].penalty", "no key 'summands';"),
    "sum unknown key": (with_penalty({**summed((1, L1)), "x": 1}), "rules[0].penalty", "unknown key 'x';"),
    "sum empty": (with_penalty(summed()), "rules[0].penalty", "expected at least one pair (factor, penalty)."),
    "summands object": (
        with_penalty({"name": "sum", "summands": {}}),
        "rules[0].penalty.summands",
        "got {}; expected a list.",
    ),
    "summand null": (
        with_penalty({"name": "sum", "summands": [None]}),
        "rules[0].penalty.summands[0]",
        "got None; expected an object.",
    ),
    "summand no penalty": (
        with_penalty({"name": "sum", "summands": [{"factor": 1}]}),
        "rules[0].penalty.summands[0]",
        "no key 'penalty'; expected factor, penalty.",
    ),
    "factor negative": (
        with_penalty(summed((1, L1), (-0.5, L1))),
        "rules[0].penalty.summands[1]",
        "sum: factor=-0.5; expected a finite number >= 0.",
    ),
    "factor string": (
        with_penalty(summed((1, summed(("a", L1))))),
        "rules[0].penalty.summands[0].penalty.summands[0]",
        "sum: factor='a'; expected a finite number >= 0.",
    ),
    "deep penalty": (
        with_penalty(summed((1, L1), (1, summed((1, {"name": "l3"}))))),
        "rules[0].penalty.summands[1].penalty.summands[0].penalty",
        "unknown penalty 'l3'; allowed: ",
    ),
}
