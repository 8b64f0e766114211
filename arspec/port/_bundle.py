"""Bundle: a ported model as a folder of plain files, each with its SHA-256 in the manifest.

graph.json, spec.json, sites.json, weights.safetensors (canonical layout), probe.safetensors (inputs and
evidence) and manifest.json. Written as a whole or not at all; nothing in it is executed.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from arspec._errors import SpecError, shown
from arspec._spec import Spec
from arspec.port._graph import Graph
from arspec.port._probe import BATCHES, Probe

FORMAT = 1
FILES = ("graph.json", "spec.json", "sites.json", "weights.safetensors", "probe.safetensors")
MANIFEST = "manifest.json"
_LARGEST_JSON = 64 * 1024 * 1024
_DTYPES = ("float64", "float32", "float16", "int32")


@dataclass(frozen=True, slots=True)
class PortedSite:
    """Where a rule applies in the source: its key, which rule of the Spec, layer and placement.

    `mask` is the path of the `PaddingMask` that says which steps count, "" if all do.
    """

    key: str
    rule: int
    layer: str
    placement: str
    mask: str = ""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model with its weights, its regularization, and what was measured of it.

    Attributes
    ----------
    graph : the layers.
    spec : the rules, in names of the source.
    sites : every place where a rule applies, in the order of the penalties.
    weights : by "layer/role", in canonical layout and the dtype of the source.
    probe : the inputs of the measurement.
    evidence : what `measure` gave in the source, each as its `summary`.
    environment : versions and settings of the process that measured.
    exact : whether that process computed in float64 throughout.
    files : SHA-256 of each file, once it is written or read.
    """

    graph: Graph
    spec: Spec
    sites: tuple["PortedSite", ...]
    weights: Mapping[str, np.ndarray]
    probe: Probe
    evidence: Mapping[str, np.ndarray]
    environment: Mapping[str, str]
    exact: bool
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight."""
        return {name: weight.shape for name, weight in self.weights.items()}


def write_bundle(bundle: Bundle, folder: str | Path, /, *, replace: bool = False) -> None:
    """Write a bundle as a folder, all of it or nothing.

    Raises
    ------
    SpecError: the folder exists and `replace` is false, or is no bundle; a weight is not finite.
    """
    target = Path(folder)
    if target.exists() and not (replace and (target / MANIFEST).is_file()):
        cure = "Choose another name" + (", or say that it is to be replaced." if (target / MANIFEST).is_file() else ".")
        raise SpecError(f"{target} exists. {cure}")
    _require_finite(bundle.weights, "the model")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        made = Path(temporary) / "bundle"
        made.mkdir()
        _write_json(made / "graph.json", bundle.graph.to_document())
        _write_json(made / "sites.json", [asdict(site) for site in bundle.sites])
        _write_json(made / "spec.json", bundle.spec.to_document())
        save_tensors(bundle.weights, made / "weights.safetensors")
        save_tensors(_probe_tensors(bundle), made / "probe.safetensors")
        manifest = {
            "arspec_bundle": FORMAT,
            "environment": dict(bundle.environment),
            "exact": bundle.exact,
            "files": {name: file_digest(made / name) for name in FILES},
        }
        _write_json(made / MANIFEST, manifest)
        if target.exists():
            shutil.rmtree(target)
        os.replace(made, target)


def read_bundle(folder: str | Path, /) -> Bundle:
    """Read a bundle, and check all of it.

    Raises
    ------
    SpecError: a file is missing, damaged, not what the manifest says, of another version, or
        holds a weight that is not finite or that the graph does not have.
    """
    source = Path(folder)
    if not (source / MANIFEST).is_file():
        raise SpecError(f"{source} is no bundle: it has no {MANIFEST}.")
    manifest = read_json(source / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("arspec_bundle") != FORMAT:
        got = manifest.get("arspec_bundle") if isinstance(manifest, dict) else manifest
        raise SpecError(f"{source / MANIFEST}: arspec_bundle is {shown(got)}; this version of arspec reads {FORMAT}.")
    digests = _checked(source, manifest.get("files"))
    with _named(source / "graph.json"):
        graph = Graph.from_document(read_json(source / "graph.json"))
    with _named(source / "spec.json"):
        spec = Spec.from_document(read_json(source / "spec.json"))
    with _named(source / "sites.json"):
        sites = _sites(read_json(source / "sites.json"), spec)
    weights = read_tensors(source / "weights.safetensors")
    _require_finite(weights, str(source / "weights.safetensors"))
    _require_names(source, graph, weights)
    with _named(source / "probe.safetensors"):
        probe, evidence = _split(read_tensors(source / "probe.safetensors"), len(graph.inputs), len(graph.outputs))
    environment = manifest.get("environment")
    exact = manifest.get("exact")
    if not isinstance(environment, dict) or not isinstance(exact, bool):
        raise SpecError(f"{source / MANIFEST}: environment or exact is missing.")
    held = {str(name): str(version) for name, version in environment.items()}
    return Bundle(graph, spec, sites, weights, probe, evidence, held, exact, digests)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(source: Path, expected: Any) -> dict[str, str]:
    if not isinstance(expected, dict) or set(expected) != set(FILES):
        raise SpecError(f"{source / MANIFEST}: files lists {shown(expected)}; expected {', '.join(FILES)}.")
    for name in FILES:  # never a name that stands in the document
        path = source / name
        if not path.is_file() or path.is_symlink():
            raise SpecError(f"{path} is missing, or is a link.")
        if file_digest(path) != expected[name]:
            raise SpecError(f"{path} is not what {MANIFEST} says: it was changed or cut off. Export the model again.")
    return {name: str(expected[name]) for name in FILES}


def _sites(document: Any, spec: Spec) -> tuple[PortedSite, ...]:
    try:
        sites = tuple(PortedSite(**entry) for entry in document)
    except TypeError as error:
        raise SpecError(f"not a list of sites: {error}.") from None
    for site in sites:
        texts = (site.key, site.layer, site.placement, site.mask)
        if not all(isinstance(text, str) for text in texts) or site.rule not in range(len(spec.rules)):
            raise SpecError(f"{shown(site)} is no site of the {len(spec.rules)} rules.")
    return sites


def _probe_tensors(bundle: Bundle) -> dict[str, np.ndarray]:
    tensors = {
        f"input/{batch}/{index}": array
        for batch, arrays in bundle.probe.inputs.items()
        for index, array in enumerate(arrays)
    }
    tensors |= {f"cotangent/{index}": array for index, array in enumerate(bundle.probe.cotangents)}
    tensors |= {f"evidence/{name}": array for name, array in bundle.evidence.items()}
    return tensors


def _split(tensors: Mapping[str, np.ndarray], inputs: int, outputs: int) -> tuple[Probe, dict[str, np.ndarray]]:
    try:
        fed = {batch: [tensors[f"input/{batch}/{index}"] for index in range(inputs)] for batch in BATCHES}
        cotangents = [tensors[f"cotangent/{index}"] for index in range(outputs)]
    except KeyError as error:
        raise SpecError(f"{error.args[0]} is missing.") from None
    evidence = {name.removeprefix("evidence/"): t for name, t in tensors.items() if name.startswith("evidence/")}
    return Probe(fed, cotangents), evidence


def _require_finite(weights: Mapping[str, np.ndarray], who: str) -> None:
    bad = [name for name, weight in weights.items() if not np.isfinite(weight).all()]
    if bad:
        raise SpecError(
            f"{who}: {', '.join(map(repr, bad[:6]))} is not finite (NaN or inf), so nothing can be compared."
        )


def _require_names(source: Path, graph: Graph, weights: Iterable[str]) -> None:
    expected, held = {path for path, _, _ in graph.weights()}, set(weights)
    if expected != held:
        missing, foreign = sorted(expected - held), sorted(held - expected)
        raise SpecError(
            f"{source / 'weights.safetensors'}: missing {shown(missing)}, not in the graph {shown(foreign)}."
        )


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise SpecError("bundles need safetensors, not installed here. Try: pip install 'arspec[port]'") from None
    return safetensors.numpy


def save_tensors(tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Write arrays by name as a safetensors file."""
    _safetensors().save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file, by name; SpecError if it is none."""
    try:
        tensors = _safetensors().load_file(path)
    except SpecError:
        raise
    except Exception as error:  # the library's own classes differ from version to version
        raise SpecError(f"{path}: not a safetensors file that can be read: {error}") from None
    for name, tensor in tensors.items():
        if tensor.dtype.name not in _DTYPES:
            raise SpecError(f"{path}: {name!r} has dtype {tensor.dtype}; expected one of {', '.join(_DTYPES)}.")
    return tensors


def _write_json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Return what a JSON file of a bundle holds; SpecError if it is none, or too long."""
    if path.stat().st_size > _LARGEST_JSON:
        raise SpecError(f"{path} has {path.stat().st_size} bytes; at most {_LARGEST_JSON} are read.")
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path}: not JSON that can be read: {error}") from None


def _refuse(name: str) -> Any:
    raise ValueError(f"the number {name} is not JSON")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None
