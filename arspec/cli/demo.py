"""`arspec demo`: the two-circles study, from one set of spec files in every framework."""

import importlib.util
from pathlib import Path
from typing import Annotated, Any

import typer

from arspec.cli._output import Exit, err, out, print_json, stop

NEEDED = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "jinja2": "jinja2"}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(demo)


def demo(
    frameworks: Annotated[str, typer.Option(help="Which ones, separated by commas.")] = "torch,keras,jax",
    seeds: Annotated[int | None, typer.Option(min=1, help="Networks per configuration; by default what fits.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Full-batch training steps per network.")] = 4000,
    output: Annotated[Path, typer.Option(help="Folder for the page and the logs.")] = Path("out/circles"),
    keras_backend: Annotated[str, typer.Option(help="jax, torch or tensorflow.")] = "jax",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Train a small network with and without a penalty in every framework, and compare.

    One JSON spec regularizes the same network in PyTorch, Keras and JAX. Prints accuracies
    beside the published ones and the proof that penalties and gradients agree, and writes
    one HTML page. Exit code 1: the frameworks disagree. 2: a framework could not run.
    """
    absent = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if absent:
        stop(f"the demo needs {', '.join(absent)}. Try: pip install 'arspec[studies]'", Exit.COULD_NOT_RUN)
    from arspec_studies.circles import agreement, report, run, summary, terminal

    if keras_backend not in run.KERAS_BACKENDS:
        allowed = ", ".join(run.KERAS_BACKENDS)
        stop(f"unknown Keras backend {keras_backend!r}; allowed: {allowed}.", Exit.COULD_NOT_RUN)
    chosen = _chosen(frameworks, run.frameworks(keras_backend))
    folder = _folder(output)
    agreement.prepare(folder)
    with terminal.progress(err(), chosen, epochs) as on_event:
        outcomes = run.run(chosen, folder, epochs=epochs, seeds=seeds, on_event=on_event)
    rows = summary.agreement_rows(outcomes, folder)
    page = report.write(folder / "circles.html", outcomes, rows, epochs=epochs)
    if as_json:
        print_json({**summary.document(outcomes, rows, epochs=epochs), "page": str(page.resolve())})
    else:
        terminal.show(out(), outcomes, rows, page)
    terminal.show_failures(err(), outcomes)
    raise typer.Exit(_exit_code(outcomes, rows))


def _chosen(frameworks: str, known: dict[str, Any]) -> list[Any]:
    names = [name.strip() for name in frameworks.split(",") if name.strip()]
    for name in names:
        if name not in known:
            stop(f"unknown framework {name!r}; allowed: {', '.join(known)}.", Exit.COULD_NOT_RUN)
    if not names:
        stop(f"--frameworks names none; allowed: {', '.join(known)}.", Exit.COULD_NOT_RUN)
    return [framework for name, framework in known.items() if name in names]


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        stop(f"{path}: cannot be made: {error.strerror or error}", Exit.COULD_NOT_RUN)
    return path


def _exit_code(outcomes: dict[str, Any], rows: list[Any]) -> Exit:
    if not all(row.agrees for row in rows):
        return Exit.FAILED
    return Exit.COULD_NOT_RUN if any(outcome.error for outcome in outcomes.values()) else Exit.OK
