"""`arspec port`: move a regularized model to another framework, and prove that it arrived."""

import importlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

import arspec
from arspec._table import aligned
from arspec.cli._output import Exit, err, out, print_json, stop
from arspec.cli.spec import JsonOption

app = typer.Typer(help="Move models between frameworks, with their regularization.", no_args_is_help=True)


@dataclass(frozen=True, slots=True)
class Target:
    """A framework that bundles can be written to: its module, and the names of the three functions there."""

    module: str
    write: str
    load: str
    check: str


TARGETS = {
    "torch": Target("arspec_torch.port", "write", "load", "check"),
    "nnx": Target("arspec_jax.port", "write_nnx", "load_nnx", "check_nnx"),
    "equinox": Target("arspec_jax.port", "write_equinox", "load_equinox", "check_equinox"),
    "keras": Target("arspec_keras.port", "write", "load_code", "check"),
}

BundleArgument = Annotated[Path, typer.Argument(help="A bundle, as `arspec port export` writes it.")]


def register(parent: typer.Typer) -> None:
    """Add the group to the application."""
    parent.add_typer(app, name="port")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A .keras or .h5 file, or FILE.py:FUNCTION, which is run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    source: Annotated[str, typer.Option("--from", help="keras or torch.")] = "keras",
    spec: Annotated[Path | None, typer.Option(help="A spec file; the model's own regularization by default.")] = None,
    replace: Annotated[bool, typer.Option(help="Replace a bundle that is there.")] = False,
) -> None:
    """Write a model as a bundle: graph, weights, rules, and what was measured of it.

    FUNCTION returns a Keras model or, with --from torch, an nn.Module and an example of its input. Keras runs on
    TensorFlow, which alone computes in float64 throughout, unless KERAS_BACKEND says otherwise.
    """
    from arspec.port import write_bundle

    if source not in _SOURCES:
        stop(f"unknown source {source!r}; allowed: {', '.join(_SOURCES)}.", Exit.COULD_NOT_RUN)
    with _reported():
        rules = None if spec is None else arspec.load(spec)
        port = _framework(f"arspec_{source}.port", source)
        arguments, own = _SOURCES[source](model, port)
        with _status("exporting") as progress:
            bundle = port.export(*arguments, spec=own if rules is None else rules, progress=progress)
        write_bundle(bundle, output, replace=replace)
    out().print(
        f"{output}: {bundle.graph.name}, {len(bundle.weights)} weights, {len(bundle.sites)} regularized places",
        markup=False,
    )


@app.command()
def inspect(bundle: BundleArgument, as_json: JsonOption = False) -> None:
    """Print what a bundle holds: layers, weights, rules, environment. The files are checked."""
    from arspec.port import Graph, read_bundle

    with _reported():
        held = read_bundle(bundle)
    if as_json:
        print_json(
            {
                "graph": held.graph.to_document(),
                "spec": held.spec.to_document(),
                "weights": {name: list(weight.shape) for name, weight in held.weights.items()},
                "environment": dict(held.environment),
                "exact": held.exact,
                "files": dict(held.files),
            }
        )
        return
    rows = [("layer", "kind", "weights", "result")]
    for path, node in held.graph.walk():
        own = [] if isinstance(node.layer, Graph) else [f"{path}/{role}" for role in sorted(node.layer.roles())]
        sizes = ", ".join(f"{n.rpartition('/')[2]} {'×'.join(map(str, held.weights[n].shape))}" for n in own)
        shape = " ".join("×".join("?" if s is None else str(s) for s in shape) for shape in node.shapes)
        rows.append((path, type(node.layer).__name__, sizes or "-", shape or "scalar"))
    out().print(aligned(rows), markup=False)
    for site in held.sites:
        out().print(f"rule: {site.key}", markup=False)
    settings = ", ".join(f"{name} {version}" for name, version in held.environment.items())
    out().print(f"measured with {settings}", markup=False)


@app.command()
def write(
    bundle: BundleArgument,
    to: Annotated[str, typer.Option("--to", help=f"One of {', '.join(TARGETS)}.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The Python file to write.")],
    replace: Annotated[bool, typer.Option(help="Replace files that are there.")] = False,
) -> None:
    """Write a bundle as source code, with its weights, its map and its rules beside it.

    MODEL.py is the code; MODEL.safetensors the weights in the framework's own layout; MODEL.map.json says where
    each came from; MODEL.spec.json are the rules in the names of the code, for `attach`.
    """
    from arspec.port import read_bundle
    from arspec.port._files import write_target

    with _reported():
        target = _target(to)
        held = read_bundle(bundle)
        written = getattr(_framework(target.module, to), target.write)(held)
        files = write_target(held, written, output, replace=replace)
    for note in written.notes:
        err().print(f"note: {note}", markup=False)
    for file in files:
        out().print(str(file), markup=False)


@app.command()
def check(
    bundle: BundleArgument,
    code: Annotated[str, typer.Option("--with", help="FILE.py, or FILE.py:CLASS; the file is run.")],
    faults: Annotated[bool, typer.Option(help="Plant faults, which have to be noticed.")] = True,
    html: Annotated[Path | None, typer.Option(help="Write the certificate as a page.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the certificate as JSON.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare written (or edited) code with its bundle, level by level; exit code 1 if they differ."""
    from arspec.port import read_bundle
    from arspec.port._files import read_target
    from arspec.port._page import page

    file, _, name = code.partition(":")
    with _reported():
        held = read_bundle(bundle)
        written, weights = read_target(Path(file))
        target = _target(written.framework)
        port = _framework(target.module, written.framework)
        model = getattr(port, target.load)(Path(file), name or written.class_name, weights)
        with _status("checking") as progress:
            certificate = getattr(port, target.check)(held, written, model, faults=faults, progress=progress)
        if html is not None:
            html.write_text(page(held, written, certificate), encoding="utf-8")
        if output is not None:
            output.write_text(json.dumps(certificate.to_document(), indent=1) + "\n", encoding="utf-8")
    if as_json:
        print_json(certificate.to_document())
    else:
        _print_certificate(certificate)
    if not certificate.holds:
        raise typer.Exit(Exit.FAILED)


@app.command()
def diff(
    first: BundleArgument, second: Annotated[Path, typer.Argument(help="Another bundle.")], as_json: JsonOption = False
) -> None:
    """Say how two bundles differ: layers, rules, weights; exit code 1 if they do."""
    from arspec.port import read_bundle
    from arspec.port._difference import difference

    with _reported():
        lines = difference(read_bundle(first), read_bundle(second))
    if as_json:
        print_json({"same": not lines, "differences": lines})
    else:
        for line in lines or ["the bundles hold the same model"]:
            out().print(line, markup=False)
    if lines:
        raise typer.Exit(Exit.FAILED)


def _print_certificate(certificate: Any) -> None:
    from arspec.port._certificate import LEVELS

    rows = [("level", "what", "compared", "worst error", "verdict")]
    for level, (count, worst, holds) in certificate.levels().items():
        shown = "-" if level == "L5" else f"{worst:.1e}"
        rows.append((level, LEVELS[level], str(count), shown, "holds" if holds else "DIFFERS"))
    out().print(aligned(rows), markup=False)
    out().print(certificate.explain(), markup=False)


def _from_keras(text: str, port: Any) -> tuple[tuple[Any, ...], arspec.Spec | None]:
    """Return a model and, of a file, its rules in the meaning of the version that wrote it."""
    if _is_code(text):
        return (_made(text),), None
    model, rules = port.load(Path(text))
    return (model,), rules


def _from_torch(text: str, port: Any) -> tuple[tuple[Any, ...], arspec.Spec | None]:
    """Return a module and an example of its inputs."""
    if not _is_code(text):
        raise arspec.SpecError(f"{text!r}; expected FILE.py:FUNCTION. A file of weights says nothing about a graph.")
    made = _made(text)
    if not isinstance(made, tuple) or len(made) != 2:
        raise arspec.SpecError(f"{text} gives {type(made).__name__}; expected (module, example of its input).")
    return made, None


_SOURCES = {"keras": _from_keras, "torch": _from_torch}


def _is_code(text: str) -> bool:
    file, separator, _ = text.rpartition(":")
    return bool(separator) and file.endswith(".py")


def _made(text: str) -> Any:
    from arspec.port._files import attribute_of

    file, _, function = text.rpartition(":")
    return attribute_of(Path(file), function)()


def _on_tensorflow() -> None:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _target(name: str) -> Target:
    if name not in TARGETS:
        stop(f"unknown framework {name!r}; allowed: {', '.join(TARGETS)}.", Exit.COULD_NOT_RUN)
    return TARGETS[name]


def _framework(module: str, name: str) -> Any:
    if name == "keras":
        _on_tensorflow()
    try:
        return importlib.import_module(module)
    except ImportError as error:
        stop(str(error), Exit.COULD_NOT_RUN)


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except (arspec.SpecError, arspec.UnsupportedError, OSError) as error:
        stop(str(error), Exit.COULD_NOT_RUN)


@contextmanager
def _status(what: str) -> Iterator[Callable[[str], None]]:
    """Show on standard error what runs."""
    with err().status(what) as status:
        yield lambda name: status.update(f"{what}: {name}")
