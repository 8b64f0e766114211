"""`arspec spec`: look at spec files, and convert them."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import arspec
from arspec import dialects
from arspec._table import aligned
from arspec.cli._output import Exit, err, out, print_json, stop

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

app = typer.Typer(help="Check, print and convert spec files.", no_args_is_help=True)


def register(parent: typer.Typer) -> None:
    """Add the group to the application."""
    parent.add_typer(app, name="spec")


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(help="Spec files (JSON).", metavar="FILE...")],
    as_json: JsonOption = False,
) -> None:
    """Check spec files; exit code 1 if one is not a valid spec, 2 if one cannot be read."""
    checked = [_check(file) for file in files]
    if as_json:
        print_json(checked)
    else:
        for entry in checked:
            out().print(_verdict(entry), markup=False)
    if any(entry["readable"] is False for entry in checked):
        raise typer.Exit(Exit.COULD_NOT_RUN)
    if not all(entry["valid"] for entry in checked):
        raise typer.Exit(Exit.FAILED)


@app.command()
def show(file: Annotated[Path, typer.Argument(help="A spec file (JSON).")], as_json: JsonOption = False) -> None:
    """Print the rules of a spec as a table, defaults written out."""
    try:
        spec = arspec.load(file)
    except arspec.SpecError as error:
        stop(str(error), Exit.FAILED)
    except OSError as error:
        stop(_unreadable(file, error), Exit.COULD_NOT_RUN)
    if as_json:
        print_json(spec.to_document())
        return
    out().print(_table(spec), markup=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of spec files."""
    print_json(arspec.json_schema())


_DIALECTS = "\n\n".join(f"{name}: {about}." for name, about in dialects.known())


@app.command(
    help="Convert regularization between the conventions of different projects.\n\n"
    "Exit code 1 if something has no exact counterpart: the reasons are listed, and nothing is "
    f"written. 2 if the file or a dialect cannot be read.\n\nDialects:\n\n{_DIALECTS}"
)
def convert(
    file: Annotated[Path, typer.Argument(help="A JSON file of the dialect; for Keras also model.to_json().")],
    source: Annotated[str, typer.Option("--from", help="The dialect of the file.", metavar="DIALECT")],
    target: Annotated[str, typer.Option("--to", help="The dialect to write.", metavar="DIALECT")],
    output: Annotated[Path | None, typer.Option(help="Where to write; standard output by default.")] = None,
) -> None:
    """Convert a file from one dialect to another."""
    try:
        reader, writer = dialects.dialect(source), dialects.dialect(target)
    except arspec.SpecError as error:
        stop(str(error), Exit.COULD_NOT_RUN)
    try:
        read = reader.reading(_foreign(file))
        written = writer.writing(read.result)
    except arspec.SpecError as error:
        stop(f"{file}: {error}", Exit.FAILED)
    except OSError as error:
        stop(_unreadable(file, error), Exit.COULD_NOT_RUN)
    for note in read.notes:
        err().print(f"note: {note}", markup=False)
    refused = [(source, each) for each in read.refused] + [(target, each) for each in written.refused]
    if refused:
        for name, refusal in refused:
            err().print(f"{name}: {refusal}", markup=False)
        stop(f"{file}: {len(refused)} without an exact counterpart; nothing was written.", Exit.FAILED)
    _deliver(written.result, output)


def _deliver(document: Any, output: Path | None) -> None:
    if output is None:
        print_json(document)
        return
    try:
        output.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        stop(f"{output}: cannot be written: {error.strerror or error}", Exit.COULD_NOT_RUN)


def _foreign(file: Path) -> Any:
    """Read JSON of whatever dialect."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # broken JSON, or not text at all
        raise arspec.SpecError(f"not JSON that can be read: {error}") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"the number {name} is not JSON")


def _check(file: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"file": str(file), "readable": True, "valid": False, "rules": None, "error": None}
    try:
        spec = arspec.load(file)
    except arspec.SpecError as error:
        return {**entry, "error": str(error)}
    except OSError as error:
        return {**entry, "readable": False, "error": _unreadable(file, error)}
    return {**entry, "valid": True, "rules": len(spec.rules)}


def _verdict(entry: dict[str, Any]) -> str:
    if entry["valid"]:
        rules = entry["rules"]
        return f"{entry['file']}: valid, {rules} {'rule' if rules == 1 else 'rules'}"
    # The error of a spec that was read begins with the name of its file.
    return entry["error"]


def _unreadable(file: Path, error: OSError) -> str:
    return f"{file}: cannot be read: {error.strerror or error}"


def _table(spec: arspec.Spec) -> str:
    if not spec.rules:
        return "no rules: a model attached to this spec is not regularized."
    rows = [("layer", "placement", "penalty", "mean over")]
    for rule in spec.rules:
        mean_over = rule.mean_over_document()
        averaged = mean_over if isinstance(mean_over, str) else ", ".join(mean_over) or "(sum)"
        rows.append((rule.layer, rule.placement, repr(rule.penalty), averaged))
    return aligned(rows)
