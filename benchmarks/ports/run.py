"""Port every model of keras.applications, and print what its certificates say.

    python benchmarks/ports/run.py [NAME ...] --to torch --to nnx --output out/ports

Each step is `arspec port` in a process of its own, so that one framework is in memory at a
time and a failure costs one row. The results are appended to OUTPUT/results.jsonl, and
`--resume` leaves out what stands there.

    python benchmarks/ports/run.py --document docs/porting.md --output out/ports [--also out/more]

runs nothing, and writes what these folders hold into the page, between its two markers.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MARKERS = "<!-- ports: benchmarks/ports/run.py --document -->", "<!-- /ports -->"
TITLES = {"torch": "PyTorch", "nnx": "Flax NNX", "equinox": "Equinox", "keras": "Keras"}
COMPARED = {"L1": "outputs", "L2": "penalties", "L3": "gradients", "L4": "one step"}
# One thread for each: on a busy machine two that wait for each other take many times as long.
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")


def main() -> int:
    """Run the command line; 1 if a certificate does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="models; all 40 by default")
    parser.add_argument("--to", action="append", choices=("torch", "nnx", "equinox", "keras"))
    parser.add_argument("--output", type=Path, default=Path("out/ports"))
    parser.add_argument("--no-faults", action="store_true", help="plant no faults (L5)")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--document", type=Path, metavar="PAGE", help="write the results into a page; run nothing")
    parser.add_argument("--also", type=Path, action="append", default=[], help="more folders with results, for a page")
    options = parser.parse_args()
    if options.document is not None:
        rows = [row for folder in (options.output, *options.also) for row in _rows(folder / "results.jsonl")]
        document(rows, _all_names(), options.document)
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    results = options.output / "results.jsonl"
    if not options.resume:
        results.unlink(missing_ok=True)
    done = {(row["model"], row["to"]) for row in _rows(results)}
    for name in options.names or _all_names():
        targets = [to for to in options.to or ["torch", "nnx"] if (name, to) not in done]
        if targets:
            for row in _ported(name, targets, options.output, faults=not options.no_faults):
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(_line(row), flush=True)
    rows = _rows(results)
    (options.output / "results.md").write_text(_table(rows), encoding="utf-8")
    return 0 if all(row["verdict"] == "holds" for row in rows) else 1


def _rows(results: Path) -> list[dict[str, Any]]:
    if not results.is_file():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def _all_names() -> list[str]:
    code = "import keras; print(*(n for n in dir(keras.applications) if n[0].isupper()))"
    done = _run([sys.executable, "-c", code])
    return done.stdout.split()


def _ported(name: str, targets: list[str], output: Path, *, faults: bool) -> Any:
    bundle = output / f"{name}.bundle"
    shutil.rmtree(bundle, ignore_errors=True)
    start = time.perf_counter()
    done = _arspec("export", f"{HERE / 'applications.py'}:{name}", "-o", str(bundle))
    exported = time.perf_counter() - start
    for to in targets:
        row: dict[str, Any] = {"model": name, "to": to, "export_s": round(exported, 1), "verdict": "refused"}
        if done.returncode:
            yield row | {"reason": done.stderr.strip()[-500:]}
            continue
        yield row | _checked(bundle, name, to, output, faults=faults)
    shutil.rmtree(bundle, ignore_errors=True)


def _checked(bundle: Path, name: str, to: str, output: Path, *, faults: bool) -> dict[str, Any]:
    code, certificate = output / f"{name}_{to}.py", output / f"{name}_{to}.json"
    start = time.perf_counter()
    wrote = _arspec("write", str(bundle), "--to", to, "-o", str(code), "--replace")
    if wrote.returncode:
        return {"reason": wrote.stderr.strip()[-500:]}
    options = [] if faults else ["--no-faults"]
    _arspec("check", str(bundle), "--with", str(code), "-o", str(certificate), *options)
    seconds = time.perf_counter() - start
    code.with_suffix(".safetensors").unlink()
    if not certificate.is_file():
        return {"reason": "the check could not run"}
    held = json.loads(certificate.read_text(encoding="utf-8"))
    worst = {level: entry["worst"] for level, entry in held["levels"].items()}
    return {
        "verdict": "holds" if held["holds"] else "differs",
        "check_s": round(seconds, 1),
        "worst": worst,
        "levels": [level for level, entry in held["levels"].items() if entry["holds"]],
        "memory_gb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 1),
        "lines": len(code.read_text(encoding="utf-8").splitlines()),
        "reason": held["divergence"] or ", ".join(fault for fault, how in held["faults"].items() if not how),
    }


def _arspec(*arguments: str) -> subprocess.CompletedProcess[str]:
    return _run([sys.executable, "-m", "arspec.cli", "port", *arguments])


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, **THREADS}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def _line(row: dict[str, Any]) -> str:
    if "worst" not in row:
        return f"{row['model']:20} {row['to']:8} {row['verdict']}: {row['reason']}"
    errors = " ".join(
        f"{level} {_short(worst)}" for level, worst in row["worst"].items() if level in ("L1", "L3", "L4")
    )
    return f"{row['model']:20} {row['to']:8} {row['verdict']:8} {errors}  {row['export_s']} s + {row['check_s']} s"


def document(rows: list[dict[str, Any]], names: list[str], page: Path) -> None:
    """Write results between the markers of a page; of two for a model and a target the later counts."""
    text = page.read_text(encoding="utf-8")
    before, opening, rest = text.partition(MARKERS[0])
    _, closing, after = rest.partition(MARKERS[1])
    if not opening or not closing:
        raise SystemExit(f"{page}: expected the lines {MARKERS[0]} and {MARKERS[1]}.")
    latest = {(row["to"], row["model"]): row for row in rows}
    targets = dict.fromkeys(to for to, _ in latest)
    parts = [_section(to, {model: row for (of, model), row in latest.items() if of == to}, names) for to in targets]
    page.write_text("\n".join([before + opening, "", *parts, closing + after]), encoding="utf-8")


def _section(to: str, rows: dict[str, dict[str, Any]], names: list[str]) -> str:
    """Return the table of one target, and what was not run or does not hold, by name."""
    holding = [model for model, row in rows.items() if row["verdict"] == "holds"]
    missing = [name for name in names if name not in rows]
    lines = [f"### To {TITLES[to]}", "", f"{len(holding)} of {len(names)} hold at every level that was measured.", ""]
    lines += [f"| model | {' | '.join(COMPARED.values())} | faults | lines | check s |"]
    lines += ["|---|" + "---:|" * (len(COMPARED) + 3)]
    lines += [_document_line(rows[name]) for name in names if name in rows and "worst" in rows[name]]
    lines += [""]
    refused = {name: row["reason"] for name, row in rows.items() if "worst" not in row}
    lines += [f"- {name} was not measured: {reason.splitlines()[-1]}" for name, reason in refused.items()]
    lines += [f"- Not run yet: {', '.join(missing)}."] if missing else []
    return "\n".join([*lines, ""]) if lines[-1] else "\n".join(lines)


def _document_line(row: dict[str, Any]) -> str:
    cells = [row["model"]]
    for level in COMPARED:
        error = _short(row["worst"].get(level, "-"))
        cells.append(error if level in row["levels"] or error == "-" else f"**{error}, differs**")
    noticed = "L5" in row["levels"]
    cells.append("noticed" if noticed else "**missed**" if "L5" in row["worst"] else "not planted")
    return f"| {' | '.join([*cells, str(row['lines']), format(row['check_s'], '.0f')])} |"


def _short(number: Any) -> str:
    return f"{number:.0e}" if isinstance(number, float) else str(number)


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["| model | to | verdict | levels | outputs | penalties | gradients | step | export s | check s |"]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        worst = [_short(row.get("worst", {}).get(level, "-")) for level in ("L1", "L2", "L3", "L4")]
        cells = [row["model"], row["to"], row["verdict"], " ".join(row.get("levels", [])), *worst]
        lines.append(f"| {' | '.join([*cells, str(row['export_s']), str(row.get('check_s', '-'))])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
