"""Run a study in one framework: plan, train what is missing, store, and write the page."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from arspec_studies._study import made, page
from arspec_studies._study.pool import Outcome, Pool, worker_command
from arspec_studies._study.runs import planned, portions
from arspec_studies._study.store import Row, Store
from arspec_studies._study.study import Study
from arspec_studies._study.summary import TITLES

MODULES = {"torch": ("torch",), "jax": ("jax", "flax", "optax"), "keras": ("keras",)}
Progress = Callable[[int], AbstractContextManager[Callable[[float], None]]]


@dataclass(frozen=True, slots=True)
class Request:
    """What to run.

    Attributes
    ----------
    framework : "torch", "jax" or "keras".
    seeds : how many; None for the study's own number.
    grid : coefficients, none for those of the spec files.
    jobs : processes at a time.
    resume : whether results that are there already count.
    quick : fewer seeds and steps, to see that it works.
    keras_backend : where the framework is Keras.
    """

    framework: str
    seeds: int | None = None
    grid: tuple[float, ...] = ()
    jobs: int = 2
    resume: bool = False
    quick: bool = False
    keras_backend: str = "jax"

    def modules(self) -> tuple[str, ...]:
        """Return what must be importable."""
        backend = (self.keras_backend,) if self.framework == "keras" else ()
        return (*MODULES[self.framework], *backend)


def run(study: Study, request: Request, folder: Path, progress: Progress) -> tuple[Outcome, list[Row], int]:
    """Train what is missing; return the outcome, the rows of all frameworks, and how many runs are missing still."""
    store = Store(folder, study, quick=request.quick)
    if not request.resume:
        store.forget(request.framework)
    seeds = request.seeds or (study.quick_seeds if request.quick else study.seeds)
    wanted = planned(study, seeds, request.grid, quick=request.quick)
    known = {row.run for row in store.rows(request.framework)}
    missing = [run for run in wanted if run not in known]
    outcome = Outcome()
    if missing:
        with progress(len(missing)) as on_progress:
            pool = Pool(
                worker_command(study.name, request.framework, quick=request.quick),
                {"KERAS_BACKEND": request.keras_backend},
                folder / request.framework,
                on_result=lambda run, metrics, shown: store.add(request.framework, run, metrics, shown),
                on_progress=on_progress,
            )
            outcome = pool.run(portions(missing, request.jobs), request.jobs)
    known = {row.run for row in store.rows(request.framework)}
    return outcome, store.rows(), sum(run not in known for run in wanted)


def write_page(
    study: Study, request: Request, folder: Path, outcome: Outcome, rows: Sequence[Row], *, command: str
) -> Path:
    """Write the page of all results in the folder."""
    if outcome.versions:
        run = made.Made(command, outcome.versions, outcome.note, outcome.seconds, request.jobs)
        made.add(folder, request.framework, run, quick=request.quick, resume=request.resume)
    known = made.known(folder, quick=request.quick)
    there = {row.framework for row in rows}
    made_by = {
        "made": {title: known[name] for name, title in TITLES.items() if name in known and name in there},
        "quick": request.quick,
        "failure": f"{TITLES[request.framework]} {outcome.error}\n{outcome.details}" if outcome.error else "",
    }
    return page.write(folder / f"{study.name}.html", study, rows, made_by)
