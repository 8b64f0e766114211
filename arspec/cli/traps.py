"""`arspec traps`: where regularization silently goes wrong, and what proves that it does not here."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from arspec.cli._output import Exit, out, print_json, stop

Tests = Annotated[Path, typer.Option(help="Folder of the tests.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(traps)


def traps(
    tests: Tests = Path("tests"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Print every known trap, and the tests and clauses that prove what arspec does there.

    Exit code 1: a trap has no proof.
    """
    from arspec_conformance.traps import OPEN, named_tests, proofs

    if not tests.is_dir():
        stop(f"{tests} is no folder; say --tests, the tests of a checkout.", Exit.COULD_NOT_RUN)
    found = proofs(named_tests(tests))
    if as_json:
        print_json([{**asdict(proof.trap), "status": proof.status, "tests": proof.tests} for proof in found])
    else:
        for proof in found:
            shown = f"{len(proof.tests)} tests" + (f", {', '.join(proof.trap.clauses)}" if proof.trap.clauses else "")
            out().print(f"{proof.trap.id:<4} {proof.status:<6} {proof.trap.sentence} [{shown}]", markup=False)
        still = sum(proof.status == OPEN for proof in found)
        out().print(f"\n{len(found) - still} of {len(found)} traps are proved right or loud.", markup=False)
    raise typer.Exit(Exit.FAILED if any(proof.status == OPEN for proof in found) else Exit.OK)
