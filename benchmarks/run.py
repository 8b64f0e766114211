"""`make bench`: what a penalty costs, against the idiom by hand, the framework's own and the limit.

Each framework runs in a process of its own, one after the other: they do not share threads
well. torch on the CPU runs twice, with the allocator of the system and with one that keeps
what is freed (as a CUDA allocator does), because that changes the conclusions.
"""

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from harness import Options, Row, pin_to_one_core

HERE = Path(__file__).resolve().parent
KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(32 << 30)}
FRAMEWORKS = ("torch", "jax", "tensorflow", "keras-tensorflow", "keras-jax", "keras-torch")
ON_ACCELERATOR = ("torch", "jax")
TAG = "row: "


def main() -> int:
    arguments = _arguments()
    if arguments.worker:
        return _work(arguments)
    from report import document, load, print_table, save

    folder, processes = Path(arguments.output), _processes(arguments)
    measured = {framework for framework, _ in processes}
    kept = load(folder / "bench.json")[1] if arguments.keep else []
    rows = [row for row in kept if row.framework not in measured]
    failed = []
    for framework, regime in processes:
        found = _measure(framework, regime, arguments)
        failed += [] if found else [framework]
        rows += found
        if rows:
            save(rows, _description(arguments), folder)
    if rows:
        print_table(rows)
        print(f"{(folder / 'bench.json').resolve()}\n{(folder / 'bench.svg').resolve()}")
    if arguments.document:
        document(rows, _description(arguments), Path(arguments.document))
    if failed:
        print(f"no rows from {', '.join(failed)}: see above", file=sys.stderr)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frameworks", default="", help=f"some of {','.join(FRAMEWORKS)}; by default all")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda measures torch and JAX")
    parser.add_argument("--max-size", type=float, default=1e7, help="entries of the largest tensor, up to 1e8")
    parser.add_argument("--quick", action="store_true", help="three penalties and two sizes, in about three minutes")
    parser.add_argument("--seconds", type=float, default=0.0, help="per workload; by default 0.4 or 2.5")
    parser.add_argument("--output", default="out/bench", help="folder for bench.json and bench.svg")
    parser.add_argument("--keep", action="store_true", help="keep the rows of other frameworks in bench.json")
    parser.add_argument("--document", help="a Markdown file whose table between the markers is replaced")
    parser.add_argument("--worker", choices=FRAMEWORKS, help=argparse.SUPPRESS)
    parser.add_argument("--regime", default="default", help=argparse.SUPPRESS)
    return parser.parse_args()


def _processes(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    asked = arguments.frameworks.split(",") if arguments.frameworks else list(FRAMEWORKS)
    unknown = sorted(set(asked) - set(FRAMEWORKS))
    if unknown:
        sys.exit(f"unknown frameworks {', '.join(unknown)}; expected some of {', '.join(FRAMEWORKS)}.")
    if arguments.device != "cpu":
        return [(framework, "default") for framework in asked if framework in ON_ACCELERATOR]
    processes = [(framework, "default") for framework in asked]
    return processes + ([("torch", "caching")] if "torch" in asked else [])


def _measure(framework: str, regime: str, arguments: argparse.Namespace) -> list[Row]:
    print(f"{framework} ({regime} allocator) on {arguments.device}", file=sys.stderr, flush=True)
    command = [sys.executable, str(HERE / "run.py"), "--worker", framework, "--regime", regime]
    command += ["--device", arguments.device, "--max-size", str(arguments.max_size)]
    command += ["--seconds", str(arguments.seconds)]
    command += ["--quick"] if arguments.quick else []
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    environment |= {"KERAS_BACKEND": framework.removeprefix("keras-")} if framework.startswith("keras-") else {}
    environment |= {"CUDA_VISIBLE_DEVICES": ""} if arguments.device == "cpu" else {}
    environment |= KEEP_FREED_MEMORY if regime == "caching" else {}
    rows = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if line.startswith(TAG):
                rows.append(Row(**json.loads(line.removeprefix(TAG))))
                print(f"  {len(rows)} rows", end="\r", file=sys.stderr, flush=True)
    if process.returncode:
        rows = []
        print(f"{framework} stopped with exit status {process.returncode}", file=sys.stderr)
    return rows


def _work(arguments: argparse.Namespace) -> int:
    if arguments.device == "cpu":
        pin_to_one_core()
    name = "keras" if arguments.worker.startswith("keras-") else arguments.worker
    options = Options(
        framework=arguments.worker, regime=arguments.regime, device=arguments.device,
        max_size=int(arguments.max_size), quick=arguments.quick, time_limit=arguments.seconds,
    )  # fmt: skip
    for row in importlib.import_module(f"bench_{name}").rows(options):
        print(TAG + json.dumps(row.as_json()), flush=True)
    return 0


def _description(arguments: argparse.Namespace) -> dict[str, object]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("numpy", "torch", "numba", "jax", "tensorflow-cpu", "tensorflow", "keras"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "device": arguments.device, "quick": arguments.quick, "machine": platform.machine(),
        "cores": os.cpu_count(), "python": platform.python_version(), "versions": found,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
