"""The files of a target: source code, its weights, its map and its rules; written together."""

import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from arspec._errors import SpecError
from arspec.port._bundle import Bundle, read_json, read_tensors, save_tensors
from arspec.port._source import Written
from arspec.port._target import target_spec


def write_target(bundle: Bundle, written: Written, file: str | Path, /, *, replace: bool = False) -> list[Path]:
    """Write FILE.py and, beside it, FILE.safetensors, FILE.map.json and FILE.spec.json.

    Raises
    ------
    SpecError: FILE does not end with .py, or one of the files exists and `replace` is false.
    """
    path = Path(file)
    if path.suffix != ".py":
        raise SpecError(f"{path}: expected a name that ends with '.py'.")
    files = _beside(path)
    there = [str(each) for each in files if each.exists()]
    if there and not replace:
        raise SpecError(f"{', '.join(there)} exists. Choose another name, or say that it is to be replaced.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
        made = [Path(folder) / each.name for each in files]
        code, weights, weight_map, spec = made
        code.write_text(written.text, encoding="utf-8")
        save_tensors(written.weights.to_target(bundle.weights), weights)
        weight_map.write_text(json.dumps(written.to_document(), indent=1) + "\n", encoding="utf-8")
        spec.write_text(json.dumps(target_spec(bundle, written).to_document(), indent=2) + "\n", encoding="utf-8")
        for source, target in zip(made, files, strict=True):
            os.replace(source, target)
    return files


def read_target(file: str | Path, /) -> tuple[Written, dict[str, np.ndarray]]:
    """Return the map and the weights that lie beside FILE.py.

    Raises
    ------
    SpecError: one is missing, or cannot be read.
    """
    code, weights, weight_map, _ = _beside(Path(file))
    for path in (code, weights, weight_map):
        if not path.is_file():
            raise SpecError(f"{path} is missing; `arspec port write` puts it beside the code.")
    try:
        written = Written.from_document(read_json(weight_map))
    except SpecError as error:
        raise SpecError(f"{weight_map}: {error}") from None
    return written, read_tensors(weights)


def attribute_of(file: str | Path, name: str, /) -> Any:
    """Import a Python file, which runs it, and return a class or function of it.

    Raises
    ------
    SpecError: there is no such file or name.
    """
    path = Path(file)
    spec = importlib.util.spec_from_file_location(f"arspec_ported_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise SpecError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        raise SpecError(f"{path} has no {name!r}.")
    return getattr(module, name)


def _beside(path: Path) -> list[Path]:
    return [path, *(path.with_suffix(suffix) for suffix in (".safetensors", ".map.json", ".spec.json"))]
