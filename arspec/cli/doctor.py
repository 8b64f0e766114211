"""`arspec doctor`: what is installed, whether it works, and the known traps of these versions."""

import json
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

import arspec
from arspec._table import aligned
from arspec.cli._known import KNOWN, PACKAGES, Package, is_older, within
from arspec.cli._output import Exit, out, print_json

ADAPTERS = {"torch": "torch", "jax": "jax", "tensorflow": "tensorflow-cpu", "keras": "keras"}
LIMIT = 180  # seconds: a cold import of TensorFlow from a slow disk takes a minute


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(doctor)


def doctor(
    versions: Annotated[bool, typer.Option("--versions", help="Compare versions only; start no framework.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say what is installed, whether every adapter works, and which traps these versions have.

    Each framework is started in a process of its own, and one penalty is compared with the
    definition. Exit code 1: an adapter does not work, or a package is older than supported.
    """
    packages = [_package(package) for package in PACKAGES]
    there = {package["name"]: package["installed"] for package in packages}
    names = [name for name, package in ADAPTERS.items() if there[package] and not versions]
    with ThreadPoolExecutor(max_workers=2) as pool:
        adapters = dict(zip(names, pool.map(_probed, names), strict=True))
    document = {
        **{"arspec": _version("arspec") or "(not installed, run from its sources)", "spec": arspec.SPEC_VERSION},
        **{"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"},
        **{"packages": packages, "adapters": adapters, "traps": _traps(there)},
    }
    document["healthy"] = _healthy(document)
    if as_json:
        print_json(document)
    else:
        out().print(_text(document, started=not versions), markup=False)
    raise typer.Exit(Exit.OK if document["healthy"] else Exit.FAILED)


def _version(*names: str) -> str | None:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            pass
    return None


def _package(package: Package) -> dict[str, Any]:
    installed = _version(package.name, *package.others)
    return {
        **{"name": package.name, "installed": installed, "needed": package.needed, "tested": package.tested},
        **{"extra": package.extra, "status": _status(installed, package)},
    }


def _status(installed: str | None, package: Package) -> str:
    if installed is None:
        return "not installed"
    if is_older(installed, package.needed):
        return "too old"
    if is_older(package.tested, installed):
        return "newer than tested"
    return "older than tested" if is_older(installed, package.tested) else "as tested"


def _probed(name: str) -> dict[str, Any]:
    """Run the probe of one adapter; what it prints last is JSON, unless its process broke down."""
    command = [sys.executable, "-m", "arspec.cli._probe", name]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"works": False, "devices": [], "error": f"no answer within {LIMIT} seconds"}
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = done.stderr.strip().splitlines()
        reason = f"its process ended with exit code {done.returncode}" + (f": {said[-1]}" if said else "")
        return {"works": False, "devices": [], "error": reason}


def _traps(there: dict[str, str | None]) -> list[dict[str, Any]]:
    return [
        {"id": known.id, "package": known.package, "happens": known.happens, "cure": known.cure}
        for known in KNOWN
        if (installed := there[known.package]) and within(installed, known.versions)
    ]


def _healthy(document: dict[str, Any]) -> bool:
    old = any(package["status"] == "too old" for package in document["packages"])
    return not old and all(adapter["works"] for adapter in document["adapters"].values())


def _text(document: dict[str, Any], *, started: bool) -> str:
    head = "arspec {arspec}, specification {spec}, Python {python}, {platform}".format(**document)
    rows = [("package", "installed", "tested", "")]
    rows += [(p["name"], p["installed"] or "-", p["tested"], _remark(p)) for p in document["packages"]]
    parts = [head, aligned(rows)]
    if started:
        lines = [("adapter", "", "")]
        lines += [(f"arspec_{name}", *_found(name, result)) for name, result in document["adapters"].items()]
        parts.append(aligned(lines) if len(lines) > 1 else _NONE)
    traps = [f"{t['id']:<4} {t['package']}: {t['happens']}\n     -> {t['cure']}" for t in document["traps"]]
    if traps:
        parts.append("\n".join(["What these versions do by themselves, and what to do instead:", *traps]))
    return "\n\n".join(parts)


def _remark(package: dict[str, Any]) -> str:
    if package["status"] == "not installed" and package["extra"]:
        return f"not installed; pip install 'arspec[{package['extra']}]'"
    if package["status"] == "too old":
        return f"too old: {package['needed']} or newer is needed"
    return package["status"]


def _found(name: str, result: dict[str, Any]) -> tuple[str, str]:
    if result["works"]:
        return "works", f"on {result['backend']}" if name == "keras" else ", ".join(result["devices"])
    return "BROKEN", result["error"]


_NONE = "No framework is installed: arspec.value and arspec.gradient work on NumPy arrays alone."
