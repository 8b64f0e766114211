"""`python -m arspec.cli` is `arspec`."""

from arspec.cli import main

main()
