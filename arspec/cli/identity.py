"""`arspec identity`: penalty × dtype × mode, every framework against the definition."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

import arspec
from arspec.cli._output import Exit, err, out, print_json, stop

DTYPES = ("float32", "bfloat16", "float16", "float64")
BACKENDS = ("torch", "tensorflow", "jax", "keras")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(identity)


def identity(
    backend: Annotated[str, typer.Option(help="torch, jax, tensorflow, keras, keras-jax, ..., with commas.")] = "",
    device: Annotated[str, typer.Option(help="Where: cpu, cuda:0, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Which dtypes, separated by commas.")] = ",".join(DTYPES),
    penalty: Annotated[str, typer.Option(help="Which penalties, separated by commas; by default all.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer shapes: under a minute per backend.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Everything in every mode: an hour.")] = False,
    cells: Annotated[bool, typer.Option("--cells", help="Print every cell of the matrix too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    output: Annotated[Path | None, typer.Option(help="File to write the JSON to.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time.")] = os.cpu_count() or 1,
) -> None:
    """Compare value and gradient of every penalty with NumPy, bit by bit, in every mode.

    Each backend runs in a process of its own. Exit code 1: a cell does not hold its claim.
    2: a backend that was named, or every one, could not run.
    """
    from arspec_conformance import matrix, terminal
    from arspec_conformance.family import members

    if quick and full:
        stop("--quick and --full exclude each other.", Exit.COULD_NOT_RUN)
    profile = "quick" if quick else "full" if full else "standard"
    named = _listed(backend)
    try:
        columns = matrix.columns(named or BACKENDS)
        labels = [member.label for member in members(_listed(penalty))]
        dtypes = _dtypes(dtype)
    except arspec.SpecError as error:
        stop(str(error), Exit.COULD_NOT_RUN)
    with terminal.progress(err(), columns) as on_event:
        asked = {"device": device, "dtypes": dtypes, "penalties": labels, "profile": profile, "jobs": jobs}
        matrix.run(columns, **asked, on_event=on_event)
    document = matrix.document(columns, device=device, profile=profile)
    if output is not None:
        _write(output, document)
    if as_json:
        print_json(document)
    else:
        terminal.show(out(), columns, device=device, profile=profile, every_cell=cells)
    refused = [column for column in columns if column.refused]
    if len(refused) == len(columns) or (named and refused):
        raise typer.Exit(Exit.COULD_NOT_RUN)
    raise typer.Exit(Exit.OK if document["holds"] else Exit.FAILED)


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _dtypes(text: str) -> list[str]:
    chosen = _listed(text)
    for name in chosen:
        if name not in DTYPES:
            raise arspec.SpecError(f"unknown dtype {name!r}; allowed: {', '.join(DTYPES)}.")
    return chosen or list(DTYPES)


def _write(path: Path, document: object) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        stop(f"{path}: cannot be written: {error.strerror or error}", Exit.COULD_NOT_RUN)
