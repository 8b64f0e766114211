"""`arspec study`: published experiments on regularization, over many seeds and coefficients."""

import importlib.util
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from arspec import SpecError
from arspec.cli._output import Exit, err, out, print_json, stop

NEEDED = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "jinja2": "jinja2"}
KERAS_BACKENDS = ("jax", "torch", "tensorflow")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands to the application."""
    group = typer.Typer(help="Run published experiments on regularization.", no_args_is_help=True)
    group.command("list")(list_studies)
    group.command("run")(run)
    app.add_typer(group, name="study")


def list_studies(as_json: Json = False) -> None:
    """Print the studies and what each of them asks."""
    _require_packages()
    from arspec_studies._study.study import STUDIES, load

    studies = [load(name) for name in STUDIES]
    if as_json:
        keys = ("name", "title", "question", "source", "seeds")
        variants = {study.name: [variant.name for variant in study.variants] for study in studies}
        print_json([{k: getattr(s, k) for k in keys} | {"variants": variants[s.name]} for s in studies])
        return
    for study in studies:
        out().print(f"{study.name}\n  {study.question}", markup=False)


def run(
    name: Annotated[str, typer.Argument(help="A study of `arspec study list`.")],
    framework: Annotated[str, typer.Option(help="torch, jax or keras.")] = "torch",
    seeds: Annotated[int | None, typer.Option(min=1, help="Networks per variant and coefficient.")] = None,
    grid: Annotated[str, typer.Option(help="Coefficients: 1e-1:1e-6 is one per decade, 1e-1:1e-6:11 are 11.")] = "",
    output: Annotated[Path | None, typer.Option(help="Folder for results and page; by default out/NAME.")] = None,
    as_json: Json = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time, one core each.")] = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the results that are there, train the rest.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Few seeds and steps: only to see that it works.")] = False,
    keras_backend: Annotated[str, typer.Option(help="jax, torch or tensorflow.")] = "jax",
) -> None:
    """Train the networks of a study with and without penalties, compare them seed by seed, write one HTML page.

    The folder may hold the results of several frameworks: the page shows them all. Exit code
    2: a process failed, or it could not be run as asked; --resume trains what is missing.
    """
    _require_packages()
    from arspec_studies._study import run as running
    from arspec_studies._study import summary, terminal

    study, folder = _study(name), _folder(output or Path("out") / name)
    options = {"seeds": seeds, "grid": _grid(grid), "jobs": jobs, "resume": resume, "quick": quick}
    request = running.Request(_one_of("framework", framework, running.MODULES), **options, keras_backend=keras_backend)
    _one_of("Keras backend", keras_backend, KERAS_BACKENDS)
    _require(request.modules(), f"'arspec[{framework}]'")
    _require(study.needs, " ".join(study.needs))
    title = f"{summary.TITLES[framework]}: {study.name}"
    try:
        outcome, rows, missing = running.run(
            study, request, folder, lambda count: terminal.progress(err(), title, count)
        )
    except SpecError as error:
        stop(str(error), Exit.COULD_NOT_RUN)
    command = _command(name, framework, seeds, grid, quick)
    page = running.write_page(study, request, folder, outcome, rows, command=command)
    if as_json:
        document = summary.document(study, summary.groups(study, rows), outcome, missing=missing)
        print_json({**document, "page": str(page.resolve())})
    else:
        terminal.show(out(), study, rows)
        out().print(f"\nThe page: {page.resolve()}", markup=False)
    if missing:
        err().print(f"{title} {outcome.error}; {missing} networks are missing.\n{outcome.details}", markup=False)
        raise typer.Exit(Exit.COULD_NOT_RUN)


def _command(name: str, framework: str, seeds: int | None, grid: str, quick: bool) -> str:
    words = ["arspec", "study", "run", name, "--framework", framework]
    words += ["--seeds", str(seeds)] if seeds else []
    words += ["--grid", grid] if grid else []
    return shlex.join([*words, "--quick"] if quick else words)


def _require_packages() -> None:
    absent = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if absent:
        stop(f"studies need {', '.join(absent)}. Try: pip install 'arspec[studies]'", Exit.COULD_NOT_RUN)


def _require(modules: tuple[str, ...], install: str) -> None:
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    if absent:
        stop(f"not installed: {', '.join(absent)}. Try: pip install {install}", Exit.COULD_NOT_RUN)


def _study(name: str) -> Any:
    from arspec_studies._study.study import STUDIES, load

    return load(_one_of("study", name, STUDIES))


def _one_of(what: str, name: str, allowed: Any) -> str:
    if name not in allowed:
        stop(f"unknown {what} {name!r}; allowed: {', '.join(allowed)}.", Exit.COULD_NOT_RUN)
    return name


def _grid(text: str) -> tuple[float, ...]:
    from arspec_studies._study.runs import parse_grid

    try:
        return parse_grid(text) if text else ()
    except SpecError as error:
        stop(str(error), Exit.COULD_NOT_RUN)


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        stop(f"{path}: cannot be made: {error.strerror or error}", Exit.COULD_NOT_RUN)
    return path
