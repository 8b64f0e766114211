"""The process that measures one adapter: `python -m arspec_conformance.worker NAME ...`.

It writes one JSON object per line to standard output ("start", then "cell" by "cell", then
"done"); whatever a framework prints goes to standard error.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

COULD_NOT_RUN = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one adapter; return 0, or 3 where it cannot run, with an event that says why."""
    parser = argparse.ArgumentParser(prog="python -m arspec_conformance.worker")
    parser.add_argument("adapter")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--profile", default="standard")
    parser.add_argument("--dtypes", default="float32,bfloat16,float16,float64")
    parser.add_argument("--penalties", default="", help="labels, separated by commas; none: the whole family")
    parser.add_argument("--suite", metavar="JSON", help="run clauses: what to ask and what to skip")
    parser.add_argument("--selftest", metavar="PATTERN", help="plant the faults whose names match")
    parser.add_argument("--repro", metavar="TOKEN", help="ask one question again")
    chosen = parser.parse_args(arguments)
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def emit(event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **fields}), file=events, flush=True)

    return _measure(chosen, emit)


def _measure(chosen: argparse.Namespace, emit: Any) -> int:
    from arspec import SpecError
    from arspec_conformance import identity, load_adapter
    from arspec_conformance.family import members

    try:
        adapter = load_adapter(chosen.adapter)
    except (ModuleNotFoundError, SpecError) as error:  # any other ImportError is a broken adapter
        emit("refused", reason=str(error))
        return COULD_NOT_RUN
    if chosen.device not in adapter.devices():
        emit("refused", reason=f"no device {chosen.device!r}; it has {', '.join(adapter.devices())}.")
        return COULD_NOT_RUN
    if chosen.suite is not None:
        from arspec_conformance import suite

        return suite.answer(adapter, chosen, emit)
    if chosen.selftest is not None:
        from arspec_conformance import kills

        return kills.answer(adapter, chosen, emit)
    if chosen.repro is not None:
        from arspec_conformance import repro

        try:
            return repro.answer(adapter, chosen, emit)
        except SpecError as error:
            emit("refused", reason=str(error))
            return COULD_NOT_RUN
    penalties = members([name for name in chosen.penalties.split(",") if name])
    asked = (penalties, chosen.dtypes.split(","), chosen.device, chosen.profile)
    emit("start", name=adapter.name, versions=adapter.versions(), cells=identity.count(adapter, *asked))
    for cell in identity.measure(adapter, *asked):
        emit("cell", cell=cell.to_document())
    emit("done", cpu_seconds=round(sum(os.times()[:4]), 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
