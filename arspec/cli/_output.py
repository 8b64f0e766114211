"""What all commands share: where they write, and how they stop."""

import json
from enum import IntEnum
from typing import Any, NoReturn

import typer
from rich.console import Console

# Results go to standard output; progress, warnings and errors to standard error, so that
# `arspec ... --json | jq` sees nothing but JSON.


class Exit(IntEnum):
    """The exit codes."""

    OK = 0
    FAILED = 1
    COULD_NOT_RUN = 2


def out() -> Console:
    """Return a console on standard output that neither wraps nor colours what a script reads."""
    return Console(soft_wrap=True, highlight=False)


def err() -> Console:
    """Return a console on standard error."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


def print_json(document: Any) -> None:
    """Write a document to standard output."""
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def stop(message: str, code: Exit) -> NoReturn:
    """Say why on standard error and exit."""
    err().print(f"arspec: {message}", markup=False)
    raise typer.Exit(code)
