"""`load`: a model file of any Keras, with the rules it carries in the meaning of the version that wrote it."""

import json
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
from arspec import Spec, SpecError, UnsupportedError, dialects
from arspec._errors import shown
from arspec_keras._attachment import SLOT

_LARGEST_JSON = 64 * 1024 * 1024
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MODULES = ("keras", "builtins", "arspec_keras")
_RUNS_CODE = ("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer")
_AS_HDF5 = "Load it there, and save it as .h5."
_GONE = {"time_major": False}
_CHANGED = {
    "hard_sigmoid": "clip(0.2·x + 0.5) in Keras 2 and clip(x/6 + 0.5) in Keras 3",
    "time_major": "batch and time the other way round, which Keras 3 does not have",
}


def load(path: str | Path, /) -> tuple[keras.Model, Spec]:
    """Return the model of a file and the rules of its regularizers.

    The rules mean what they meant in the Keras that wrote the file: an activity penalty is
    Σ / batch in tf-keras and in Keras ≥ 3.14, and Σ in Keras 3.0 to 3.13 and Keras 2.

    Parameters
    ----------
    path : a `.keras` file, or an `.h5` file of Keras 3, tf-keras or Keras 2.

    Returns
    -------
    The model, not compiled, and the Spec; both are what `arspec_keras.port.export` takes. The
    model still has its own regularizers, with the meaning of the Keras that runs.

    Raises
    ------
    SpecError: the file is damaged, is no model, or does not say which Keras wrote it.
    UnsupportedError: it holds code or classes that are not Keras' own, or an argument whose
        meaning changed between Keras 2 and 3; it is named. Nothing in the file is executed.

    Warns
    -----
    arspec.dialects.DialectWarning: a regularizer that the version that wrote it ignores.
    """
    file = Path(path)
    with _damage(file):
        version, config = _described(file)
    written = dialects.keras(version=version)
    _require_plain(config, str(file))
    if version.startswith("2."):
        _require_unchanged(config, str(file), version)
    with _damage(file), _readable(file, config, version) as readable, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Do not pass an `input_shape`", UserWarning)  # what older layers wrote
        model = keras.saving.load_model(readable, compile=False, safe_mode=True)
    if not isinstance(model, keras.Model):
        raise SpecError(f"{file} holds a {type(model).__name__}; expected a model.")
    attached = vars(model).get(SLOT)
    if attached is None:
        return model, written.read(config)
    inner = config["config"].get("model")  # an attached model is saved around the original one
    return model, Spec([*attached.spec.rules, *written.read(inner).rules])


def _described(file: Path) -> tuple[str, dict[str, Any]]:
    """Return the version of Keras that wrote a file, and the config of the model."""
    with file.open("rb") as opened:
        head = opened.read(8)
    if head == _HDF5:
        version, config = _in_hdf5(file)
    elif zipfile.is_zipfile(file):
        version, config = _in_zip(file)
    else:
        raise SpecError(f"{file} is neither a .keras nor an .h5 file.")
    if not isinstance(version, str):
        raise SpecError(f"{file} does not say which Keras wrote it: keras_version is {shown(version)}.")
    if not isinstance(config, dict) or "config" not in config:
        raise SpecError(f"{file}: the config of the model is {shown(config)}; expected an object with 'config'.")
    held = {key: value for key, value in config.items() if key not in ("keras_version", "backend")}
    return version, held


def _in_zip(file: Path) -> tuple[Any, Any]:
    with zipfile.ZipFile(file) as archive:
        metadata, config = (_json(_member(archive, name)) for name in ("metadata.json", "config.json"))
    return (metadata.get("keras_version") if isinstance(metadata, dict) else None), config


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _LARGEST_JSON:
        raise SpecError(f"{name} has {archive.getinfo(name).file_size} bytes; at most {_LARGEST_JSON} are read.")
    return archive.read(name)


def _in_hdf5(file: Path) -> tuple[Any, Any]:
    import h5py

    with h5py.File(file, "r") as opened:
        held = {name: opened.attrs.get(name) for name in ("keras_version", "model_config")}
        if held["keras_version"] is None and "model_weights" in opened:
            held["keras_version"] = opened["model_weights"].attrs.get("keras_version")
    if held["model_config"] is None:
        raise SpecError(f"{file} holds weights without a model. Save the whole model.")
    return _text(held["keras_version"]), _json(held["model_config"])


def _text(given: Any) -> Any:
    return given.decode("utf-8") if isinstance(given, bytes) else given


def _json(given: str | bytes) -> Any:
    return json.loads(given)


def _parts(value: Any) -> Iterator[Mapping[str, Any]]:
    """Return every object in a config."""
    if isinstance(value, Mapping):
        yield value
        for each in value.values():
            yield from _parts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _parts(each)


def _require_plain(config: Any, who: str) -> None:
    """Refuse what would run code that came with the file, or look up a class outside of Keras."""
    for part in _parts(config):
        name, module = part.get("class_name"), part.get("module")
        if name in _RUNS_CODE or name == "__lambda__":
            raise UnsupportedError(f"{who} holds a {name}, which is code. Write it with Keras' own layers.")
        package = module.partition(".")[0] if isinstance(module, str) else _MODULES[0]
        if package == "tf_keras":
            raise UnsupportedError(f"{who} was written by tf-keras, whose .keras files Keras 3 cannot read. {_AS_HDF5}")
        if package not in _MODULES:
            raise UnsupportedError(f"{who} holds a {module}.{name}, which is not Keras' own and is not imported.")


def _require_unchanged(config: Any, who: str, version: str) -> None:
    """Refuse what Keras 3 reads without complaint and computes otherwise."""
    for part in _parts(config):
        for key, value in part.items():
            named = key == "time_major" and value is True
            changed = _CHANGED["time_major"] if named else _CHANGED.get(value) if isinstance(value, str) else None
            if changed is not None:
                layer = part.get("name", "?")
                raise UnsupportedError(f"{who}: layer {layer!r} of Keras {version} has {key}={value!r}: {changed}.")


@contextmanager
def _readable(file: Path, config: Mapping[str, Any], version: str) -> Iterator[Path]:
    """Return a file that this Keras reads: a copy without arguments it has no more, if they stood at their default."""
    gone = any(_GONE.items() & _plain_items(part) for part in _parts(config))
    if not (gone and version.startswith("2.")) or zipfile.is_zipfile(file):
        yield file
        return
    import h5py

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        shutil.copyfile(file, copy)
        with h5py.File(copy, "r+") as opened:
            opened.attrs["model_config"] = json.dumps(_without_gone(config))
        yield copy


def _plain_items(part: Mapping[str, Any]) -> set[tuple[str, Any]]:
    return {(key, value) for key, value in part.items() if isinstance(value, bool)}


def _without_gone(value: Any) -> Any:
    if isinstance(value, Mapping):
        gone = _GONE.items() & _plain_items(value)
        return {
            key: _without_gone(each)
            for key, each in value.items()
            if not (isinstance(each, bool) and (key, each) in gone)
        }
    return [_without_gone(each) for each in value] if isinstance(value, list) else value


@contextmanager
def _damage(file: Path) -> Iterator[None]:
    try:
        yield
    except (SpecError, UnsupportedError):
        raise
    except FileNotFoundError:
        raise SpecError(f"{file} is no file.") from None
    except Exception as error:  # each library has classes of its own for a damaged file
        first = (str(error).strip().splitlines() or [""])[0]
        raise SpecError(f"{file} cannot be read as a Keras model: {type(error).__name__}: {first}") from None
