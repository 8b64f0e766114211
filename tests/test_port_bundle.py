"""Bundles: what is written is what is read, and what is damaged or hostile is one clear error."""

import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import arspec as ar
from arspec.port import Bundle, Graph, Input, Node, PortedSite, read_bundle, write_bundle
from arspec.port import _bundle as bundle_module
from arspec.port import _kinds as kinds
from arspec.port._bundle import FILES, MANIFEST, file_digest
from arspec.port._certificate import certify
from arspec.port._difference import difference
from arspec.port._mapping import Entry, WeightMap
from arspec.port._probe import Probe, make_probe, measure, perturbed, summary, uniform


def graph(activation: str = "relu") -> Graph:
    nodes = (
        Node("hidden", kinds.Dense(3, kinds.Function(activation)), ("x",), ((3,),)),
        Node("out", kinds.Dense(2, use_bias=False), ("hidden",), ((2,),)),
    )
    return Graph("small", (Input("x", (4,)),), nodes, ("out",))


class Numbers:
    """The small model in NumPy, as a subject."""

    def __init__(self, weights: dict[str, np.ndarray], coefficient: float = 0.5) -> None:
        self.weights = {name: np.asarray(weight, np.float64) for name, weight in weights.items()}
        self.coefficient = coefficient

    def _hidden(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.maximum(inputs[0] @ self.weights["hidden/kernel"] + self.weights["hidden/bias"], 0)

    def outputs(self, inputs: list[np.ndarray], *, training: bool) -> list[np.ndarray]:
        return [self._hidden(inputs) @ self.weights["out/kernel"]]

    def trace(self, inputs: list[np.ndarray]):
        yield "hidden", self._hidden(inputs)
        yield "out", self.outputs(inputs, training=False)[0]

    def penalties(self, inputs: list[np.ndarray], *, training: bool) -> dict[str, float]:
        return {"out/kernel/l2": ar.value(ar.L2(self.coefficient), self.weights["out/kernel"])}

    def gradients(self, inputs: list[np.ndarray], cotangents: list[np.ndarray] | None) -> dict[str, np.ndarray]:
        zero = {name: np.zeros_like(weight) for name, weight in self.weights.items()}
        if cotangents is None:
            return zero | {"out/kernel": 2 * self.coefficient * self.weights["out/kernel"]}
        hidden, slope = self._hidden(inputs), cotangents[0] / len(inputs[0])
        before = (slope @ self.weights["out/kernel"].T) * (hidden > 0)
        return {
            "hidden/kernel": inputs[0].T @ before,
            "hidden/bias": before.sum(0),
            "out/kernel": hidden.T @ slope,
        }

    def step(self, inputs: list[np.ndarray], cotangents: list[np.ndarray], rate: float) -> dict[str, np.ndarray]:
        data, penalty = self.gradients(inputs, cotangents), self.gradients(inputs, None)
        return {name: weight - rate * (data[name] + penalty[name]) for name, weight in self.weights.items()}


def small() -> Bundle:
    shapes = {"hidden/kernel": (4, 3), "hidden/bias": (3,), "out/kernel": (3, 2)}
    weights = {name: (uniform(name, shape) - 0.5).astype(np.float32) for name, shape in shapes.items()}
    weights["hidden/bias"] = np.zeros(3, np.float32)
    spec = ar.Spec([ar.Rule(ar.L2(0.5), layer="out", placement="kernel")])
    sites = (PortedSite("out/kernel/l2", 0, "out", "kernel"),)
    probe = make_probe(graph(), [(5, 2)])
    subject = Numbers(perturbed(weights))
    evidence = {name: summary(array) for name, array in measure(subject, probe)}
    evidence |= {f"trace/{name}": summary(array) for name, array in subject.trace(probe.inputs["b"])}
    return Bundle(graph(), spec, sites, weights, probe, evidence, {"framework": "numpy"}, exact=True)


def identity_map() -> WeightMap:
    shapes = small().shapes
    return WeightMap(tuple(Entry(name, name) for name in shapes), shapes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_bundle(small(), tmp_path / "small.bundle")
    return tmp_path / "small.bundle"


def test_what_is_written_is_what_is_read(folder: Path) -> None:
    made, read = small(), read_bundle(folder)
    assert (read.graph, read.spec, read.sites) == (made.graph, made.spec, made.sites)
    assert (read.environment, read.exact) == (made.environment, made.exact)
    for name, weight in made.weights.items():
        assert read.weights[name].tobytes() == weight.tobytes()
        assert read.weights[name].dtype == weight.dtype
    assert set(read.evidence) == set(made.evidence)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, MANIFEST])
    assert difference(made, read) == []


def test_the_probe_is_the_same_on_every_machine() -> None:
    probe = make_probe(graph(), [(5, 2)])
    np.testing.assert_array_equal(probe.inputs["b"][0][0], [-0.474609375, -0.004638671875, -0.7802734375, -0.2734375])
    assert all((x == x.astype(np.float32)).all() for arrays in probe.inputs.values() for x in arrays)


def test_fresh_biases_are_moved_apart_and_others_stay() -> None:
    weights = small().weights
    moved = perturbed(weights)
    assert len(set(moved["hidden/bias"])) == 3
    np.testing.assert_array_equal(moved["out/kernel"], weights["out/kernel"])


def test_a_faithful_target_holds_at_every_level() -> None:
    bundle = small()
    certificate = certify(bundle, Numbers(perturbed(bundle.weights)), identity_map(), bundle.weights, {})
    assert certificate.holds
    assert {level: count for level, (count, _, _) in certificate.levels().items()} == {
        **{"L0": 3, "L1": 3, "L2": 3, "L3": 6, "L4": 3}
    }


def test_a_wrong_target_is_told_where_it_begins() -> None:
    bundle = small()
    wrong = perturbed(bundle.weights)
    wrong["hidden/bias"] = wrong["hidden/bias"] + 1e-6
    certificate = certify(bundle, Numbers(wrong), identity_map(), bundle.weights, {})
    assert not certificate.holds
    assert "The first layer whose result differs is 'hidden'" in certificate.explain()


def test_a_wrong_coefficient_shows_in_penalties_gradients_and_step() -> None:
    bundle = small()
    subject = Numbers(perturbed(bundle.weights), coefficient=0.5 + 1e-6)
    certificate = certify(bundle, subject, identity_map(), bundle.weights, {})
    verdicts = {level: holds for level, (_, _, holds) in certificate.levels().items()}
    assert verdicts == {"L0": True, "L1": True, "L2": False, "L3": False, "L4": False}


def test_one_wrong_bit_of_a_weight_shows() -> None:
    bundle = small()
    held = {name: weight.copy() for name, weight in bundle.weights.items()}
    held["out/kernel"][0, 0] = np.nextafter(held["out/kernel"][0, 0], np.float32(1))
    certificate = certify(bundle, Numbers(perturbed(bundle.weights)), identity_map(), held, {})
    assert [finding.name for finding in certificate.findings if not finding.holds] == ["out/kernel"]


def test_nothing_that_was_measured_may_be_left_out() -> None:
    bundle = small()

    class Silent(Numbers):
        def penalties(self, inputs: list[np.ndarray], *, training: bool) -> dict[str, float]:
            return {}

    certificate = certify(bundle, Silent(perturbed(bundle.weights)), identity_map(), bundle.weights, {})
    assert not certificate.holds
    assert "penalty/train/out/kernel/l2: missing" in certificate.explain()


def test_a_difference_between_sampled_entries_shows_in_a_summary() -> None:
    x = uniform("long", (300, 300))
    y = x.copy()
    y[1, 0] += 1e-3
    assert np.abs(summary(x) - summary(y)).max() > 1e-7


def _reseal(folder: Path) -> None:
    """Make the manifest agree with the files, as an attacker would."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = {name: file_digest(folder / name) for name in FILES}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def _edit(name: str, change: Callable[[dict], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        document = json.loads((folder / name).read_text())
        change(document)
        (folder / name).write_text(json.dumps(document))
        if name != MANIFEST:
            _reseal(folder)

    return damage


def _truncate(name: str, *, resealed: bool) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[:-7])
        if resealed:
            _reseal(folder)

    return damage


def _huge_header(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])
    _reseal(folder)


def _not_finite(folder: Path) -> None:
    held = small()
    weights = {**held.weights, "out/kernel": np.full((3, 2), np.nan, np.float32)}
    bundle_module.save_tensors(weights, folder / "weights.safetensors")
    _reseal(folder)


def _link(folder: Path) -> None:
    target = folder.parent / "elsewhere.json"
    os.replace(folder / "graph.json", target)
    (folder / "graph.json").symlink_to(target)


def _deep(folder: Path) -> None:
    (folder / "graph.json").write_text("[" * 100_000 + "]" * 100_000)
    _reseal(folder)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut off": (_truncate("weights.safetensors", resealed=False), "is not what manifest.json says"),
    "cut off, resealed": (_truncate("weights.safetensors", resealed=True), "not a safetensors file"),
    "huge header": (_huge_header, "not a safetensors file"),
    "not finite": (_not_finite, "'out/kernel' is not finite"),
    "missing": (lambda folder: (folder / "spec.json").unlink(), "spec.json is missing"),
    "link": (_link, "is missing, or is a link"),
    "deep": (_deep, "not JSON that can be read"),
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "is no bundle"),
    "foreign version": (_edit(MANIFEST, lambda d: d.update(arspec_bundle=99)), "arspec_bundle is 99; .* reads 1"),
    "other files": (
        _edit(MANIFEST, lambda d: d["files"].update({"../../evil": "0"})),
        "files lists .*; expected graph.json",
    ),
    "path in a name": (
        _edit("graph.json", lambda d: d["nodes"][0].update(name="../../evil")),
        "name '../../evil'; expected letters",
    ),
    "code in a name": (
        _edit("graph.json", lambda d: d["nodes"][0].update(name="x = __import__('os')")),
        "expected letters",
    ),
    "unknown kind": (
        _edit("graph.json", lambda d: d["nodes"][0]["layer"].update(kind="Lambda")),
        "kind of layer 'Lambda'",
    ),
    "unknown field": (
        _edit("graph.json", lambda d: d["nodes"][0]["layer"].update(code="x")),
        "unknown field of Dense 'code'",
    ),
    "wrong type": (
        _edit("graph.json", lambda d: d["nodes"][0]["layer"].update(units="3")),
        "Dense.units is '3'; expected int",
    ),
    "reads the future": (
        _edit("graph.json", lambda d: d["nodes"][0].update(inputs=["out"])),
        "reads 'out', which nothing before",
    ),
    "other weights": (
        _edit("graph.json", lambda d: d["nodes"][1]["layer"].update(use_bias=True)),
        "missing .*out/bias",
    ),
    "site without rule": (_edit("sites.json", lambda d: d[0].update(rule=5)), "is no site of the 1 rules"),
    "bad rule": (_edit("spec.json", lambda d: d["rules"][0].update(layer=3)), "spec.json: .*layer"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_or_hostile_bundle_is_one_clear_error(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(ar.SpecError, match=message):
        read_bundle(folder)


def test_a_weight_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    bad = replace(small(), weights={**small().weights, "hidden/bias": np.array([1, np.inf, 0], np.float32)})
    with pytest.raises(ar.SpecError, match="the model: 'hidden/bias' is not finite"):
        write_bundle(bad, tmp_path / "bad.bundle")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(tensors: dict[str, np.ndarray], path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(bundle_module, "save_tensors", fails)
    with pytest.raises(OSError, match="no space left"):
        write_bundle(small(), tmp_path / "small.bundle")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_replaced_only_when_asked_and_only_a_bundle(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ar.SpecError, match=r"small\.bundle exists\. Choose another name, or say"):
        write_bundle(small(), folder)
    write_bundle(small(), folder, replace=True)
    (tmp_path / "precious").mkdir()
    with pytest.raises(ar.SpecError, match=r"precious exists\. Choose another name"):
        write_bundle(small(), tmp_path / "precious", replace=True)


def test_how_two_bundles_differ_is_said() -> None:
    one = small()
    weights = {**one.weights, "out/kernel": one.weights["out/kernel"] + np.float32(0.25)}
    other = replace(one, graph=graph("tanh"), weights=weights, spec=ar.Spec([]))
    lines = difference(one, other)
    assert "layer 'hidden': activation {'name': 'relu', 'parameter': None} and" in lines[0]
    assert lines[1].startswith("only the first has Rule(penalty=L2")
    assert lines[2] == "weight 'out/kernel': 6 entries differ, by 0.25 at most"


def test_a_probe_of_integers_stays_below_the_rows_of_its_table() -> None:
    nodes = (Node("table", kinds.Embedding(7, 3), ("tokens",), ((5, 3),)),)
    tokens = Graph("tokens", (Input("tokens", (5,), "int32", 7),), nodes, ("table",))
    probe: Probe = make_probe(tokens, [(5, 5, 3)])
    values = np.concatenate([arrays[0].ravel() for arrays in probe.inputs.values()])
    assert values.min() >= 0
    assert values.max() < 7
    assert len(set(values)) == 7
