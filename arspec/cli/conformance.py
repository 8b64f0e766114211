"""`arspec conformance`: does an install, or an adapter, do what the specification says?"""

import json
import os
import secrets
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

import arspec
from arspec.cli._output import Exit, err, out, print_json, stop
from arspec.cli.identity import DTYPES, _listed

PROFILES = ("smoke", "quick", "standard", "full", "hunt")
BACKENDS = ("torch", "tensorflow", "jax", "keras")

Backend = Annotated[str, typer.Option(help="torch, jax, tensorflow, keras, module:object, ..., with commas.")]
Device = Annotated[str, typer.Option(help="Where: cpu, cuda:0, ...")]
Modes = Annotated[str, typer.Option(help="Which modes, separated by commas; by default all of each adapter.")]
Dtypes = Annotated[str, typer.Option("--dtype", help="Which dtypes, separated by commas.")]
Clauses = Annotated[str, typer.Option(help="Which clauses, with commas; L1-* is all about L1.")]
Faults = Annotated[str, typer.Option(help="Which planted faults; NaN* is all that begin so.")]
Report = Annotated[Path | None, typer.Option(help="Folder for the report in every format.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes at a time.")]
CORES = os.cpu_count() or 1
SINGLE = ("device", "profile", "seed", "examples")  # what is asked for once; the rest are lists
ALL_DTYPES = ",".join(DTYPES)
Profile = Annotated[str, typer.Option(help=f"How much: {', '.join(PROFILES)}.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands to the application."""
    group = typer.Typer(help="Check adapters against the specification.", no_args_is_help=True)
    group.command("run")(run)
    group.command("smoke")(smoke)
    group.command("selftest")(selftest)
    group.command("list")(list_clauses)
    group.command("repro")(repro)
    group.command("report")(report_again)
    group.command("golden")(golden)
    app.add_typer(group, name="conformance")


def run(
    backend: Backend = "",
    device: Device = "cpu",
    modes: Modes = "",
    dtype: Dtypes = ALL_DTYPES,
    clauses: Clauses = "",
    profile: Profile = "quick",
    report: Report = None,
    resume: Annotated[bool, typer.Option("--resume", help="Finish the run whose results are in --report.")] = False,
    waivers: Annotated[Path | None, typer.Option(help="JSON file of known failures.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of a hunt: by default a new one each time.")] = None,
    examples: Annotated[int | None, typer.Option(min=1, help="Of a hunt: how many are drawn per question.")] = None,
    as_json: Json = False,
    jobs: Jobs = CORES,
) -> None:
    """Ask every clause of the specification, in every mode, each backend in a process of its own.

    Exit code 0: all that ran conform. 1: one does not. 2: a backend that was named, or every
    one, could not run.
    """
    if profile not in PROFILES:
        stop(f"unknown profile {profile!r}; allowed: {', '.join(PROFILES)}.", Exit.COULD_NOT_RUN)
    if resume and report is None:
        stop("--resume needs --report, the folder that holds the results.", Exit.COULD_NOT_RUN)
    chosen = {"device": device, "profile": profile, "modes": _listed(modes), "clauses": _listed(clauses)}
    if profile == "hunt":
        seed = secrets.randbelow(1 << 31) if seed is None else seed
    drawn = {"dtypes": _listed(dtype), "seed": seed, "examples": examples}
    _run({**chosen, **drawn}, _listed(backend), report, resume, waivers, as_json, jobs)


def smoke(backend: Backend = "", device: Device = "cpu", as_json: Json = False, jobs: Jobs = CORES) -> None:
    """Ask a few clauses of three penalties: is the adapter wired up right? Takes seconds."""
    asked = {"device": device, "profile": "smoke", "modes": [], "clauses": [], "dtypes": ["float32"]}
    _run(asked, _listed(backend), None, False, None, as_json, jobs)


def selftest(
    backend: Backend = "",
    device: Device = "cpu",
    faults: Faults = "*",
    report: Annotated[Path | None, typer.Option(help="Folder for a page with each kill matrix.")] = None,
    as_json: Json = False,
    jobs: Jobs = CORES,
) -> None:
    """Plant faults in adapters, one at a time, and show which clauses find them.

    Exit code 1: a fault survived, or a clause failed where no fault was planted.
    """
    from arspec_conformance import kills, matrix, suite_terminal
    from arspec_conformance.report import write_kills

    try:
        columns = matrix.columns(_listed(backend) or BACKENDS)
        kills.chosen(faults)
    except arspec.SpecError as error:
        stop(str(error), Exit.COULD_NOT_RUN)
    with suite_terminal.progress(err(), columns) as on_event:
        matrix.start(columns, lambda column: ["--selftest", faults], device=device, jobs=jobs, on_event=on_event)
    document = kills.document(columns, device=device)
    if report is not None:
        write_kills(document, report)
    if as_json:
        print_json(document)
    else:
        suite_terminal.show_kills(out(), document)
    if any(column.refused for column in columns):
        raise typer.Exit(Exit.COULD_NOT_RUN)
    raise typer.Exit(Exit.OK if document["holds"] else Exit.FAILED)


def repro(
    token: Annotated[str, typer.Argument(help="From a report.")], backend: Backend = "", as_json: Json = False
) -> None:
    """Ask again what failed: the token of a report holds the whole question.

    Exit code 0: the answer is right now. 1: it is still wrong.
    """
    from arspec_conformance import matrix, suite_terminal
    from arspec_conformance import repro as asking

    try:
        known = asking.asked(token)
        (column,) = matrix.columns([backend or known["adapter"]])
    except arspec.SpecError as error:
        stop(f"{error} If the adapter is not registered, say --backend module:object.", Exit.COULD_NOT_RUN)
    matrix.start([column], lambda column: ["--repro", token], device=known["device"], jobs=1)
    if column.refused or not column.cells:
        stop(f"{column.name}: {column.refused or column.error}", Exit.COULD_NOT_RUN)
    (cell,) = column.cells
    if as_json:
        print_json(cell)
    else:
        suite_terminal.show_answer(out(), cell)
    raise typer.Exit(Exit.FAILED if cell["status"] == "FAIL" else Exit.OK)


def report_again(
    sources: Annotated[list[Path], typer.Argument(help="A report.json or its folder, or several.")],
    output: Annotated[Path | None, typer.Option(help="Folder to write to; by default that of the report.")] = None,
    summary: Annotated[Path | None, typer.Option(help="JSON file of counts to bring up to date.")] = None,
    readme: Annotated[Path | None, typer.Option(help="Page with the table of the --summary.")] = None,
    page: Annotated[Path | None, typer.Option(help="Markdown file to write: each run of the --summary.")] = None,
) -> None:
    """Write a report anew in every format, and print it; and the table of the README."""
    from arspec_conformance import report, suite_terminal

    for name, path in (("--readme", readme), ("--page", page)):
        if path is not None and summary is None:
            stop(f"{name} needs --summary, the counts that it shows.", Exit.COULD_NOT_RUN)
    if output is not None and len(sources) > 1:
        stop(f"--output is the folder of one report; {len(sources)} were named.", Exit.COULD_NOT_RUN)
    documents = []
    for source in sources:
        path = source / "report.json" if source.is_dir() else source
        try:
            documents.append(_document_of(path))
            report.write(documents[-1], output or path.parent)
            if summary is not None:
                _keep(documents[-1], summary, readme, page)
        except (OSError, ValueError) as error:
            stop(f"{path}: {error}", Exit.COULD_NOT_RUN)
    for document in documents:
        suite_terminal.show(out(), document)
    raise typer.Exit(Exit.OK if all(document["conforms"] for document in documents) else Exit.FAILED)


def _document_of(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or document.get("report") != "arspec conformance":
        stop(f"{path}: not a report of `arspec conformance run`.", Exit.COULD_NOT_RUN)
    return document


def _keep(document: dict[str, Any], summary: Path, readme: Path | None, page: Path | None) -> None:
    """Bring a summary up to date, and the pages that show it."""
    from arspec_conformance import report

    known = json.loads(summary.read_text(encoding="utf-8")) if summary.exists() else None
    kept = report.summary(document, known)
    summary.write_text(report.summary_json(kept), encoding="utf-8")
    if readme is not None:
        report.write_readme(readme, kept)
    if page is not None:
        page.write_text(report.runs_page(kept), encoding="utf-8")


def golden(
    output: Annotated[Path | None, typer.Argument(help="File to write; by default standard output.")] = None,
) -> None:
    """Write questions with their answers as data, for implementations in other languages."""
    from arspec_conformance.golden import golden_json

    if output is None:
        print(golden_json(), end="")
        return
    try:
        output.write_text(golden_json(), encoding="utf-8")
    except OSError as error:
        stop(f"{output}: cannot be written: {error.strerror or error}", Exit.COULD_NOT_RUN)


def list_clauses(
    clauses: Clauses = "",
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page of the documentation.")] = False,
) -> None:
    """Print the clauses: what a conforming adapter does, sentence by sentence."""
    from arspec_conformance import specification, suite, suite_terminal

    if markdown:
        print(specification.specification(), end="")
        return
    try:
        chosen = suite.chosen_clauses(_listed(clauses))
    except arspec.SpecError as error:
        stop(str(error), Exit.COULD_NOT_RUN)
    if as_json:
        print_json([{k: v for k, v in asdict(clause).items() if k != "check"} for clause in chosen])
    else:
        suite_terminal.show_clauses(out(), chosen)


def _run(
    asked: dict[str, Any],
    named: list[str],
    folder: Path | None,
    resume: bool,
    waivers: Path | None,
    as_json: bool,
    jobs: int,
) -> None:
    from arspec_conformance import matrix, report, suite, suite_terminal
    from arspec_conformance.waivers import apply, read_waivers

    try:
        known = () if waivers is None else read_waivers(waivers)
        columns = matrix.columns(named or BACKENDS)
        lists = {key: tuple(asked[key]) for key in ("modes", "clauses", "dtypes")}
        single: dict[str, Any] = {key: asked[key] for key in SINGLE if key in asked}
        request = suite.Request(**{**single, **lists})
        suite.check(request)
        journal = None if folder is None else suite.Journal(folder, request, resume=resume)
        if journal is not None:
            journal.restore(columns)
    except (arspec.SpecError, OSError) as error:
        stop(str(error), Exit.COULD_NOT_RUN)
    with suite_terminal.progress(err(), columns) as on_event:
        suite.measure(columns, request, jobs=jobs, journal=journal, on_event=on_event)
    stale = apply(known, columns, datetime.now(UTC).date())
    document = suite.document(columns, request, stale)
    if folder is not None:
        report.write(document, folder)
    if as_json:
        print_json(document)
    else:
        suite_terminal.show(out(), document)
    refused = [column for column in columns if column.refused]
    if len(refused) == len(columns) or (named and refused):
        raise typer.Exit(Exit.COULD_NOT_RUN)
    raise typer.Exit(Exit.OK if document["conforms"] else Exit.FAILED)
