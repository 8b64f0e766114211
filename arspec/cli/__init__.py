"""The command `arspec`. It imports no framework: what needs one runs in a process of its own.

Each command, or group of commands, is one module of this package with a function
`register(app)`; `COMMANDS` lists them in the order of the help text.

Exit codes: 0, all is well; 1, what was checked failed; 2, it could not be run as asked.
"""

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING

from arspec.cli._extras import cure

if TYPE_CHECKING:
    import typer

COMMANDS = ("demo", "study", "spec", "identity", "conformance", "port", "traps", "doctor")
NEEDED = ("typer", "rich")


def main() -> None:
    """Run the command line; the entry point `arspec`."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"arspec: the command line needs {' and '.join(missing)}, not installed here. "
            "Try: pip install 'arspec[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(2)
    try:
        build()()
    except ModuleNotFoundError as error:
        said = cure(error.name)
        if said is None:
            raise
        print(f"arspec: {said}", file=sys.stderr)
        raise SystemExit(2) from None


def build() -> "typer.Typer":
    """Return the typer application with every command registered."""
    import typer

    app = typer.Typer(
        name="arspec",
        help="One definition of regularization, the same numbers in every framework.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for name in COMMANDS:
        importlib.import_module(f"arspec.cli.{name}").register(app)
    return app
