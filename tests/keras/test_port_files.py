"""Model files of any Keras: their rules mean what they meant in the version that wrote them."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import arspec as ar
import arspec_keras
import keras
from arspec_keras.port import load

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a file is read in the same way on every backend of Keras"
)
LAYERS = keras.layers


def regularized() -> keras.Model:
    """Return a model inside a model, with a penalty of an activity, of a kernel and of a bias."""
    l1, l2 = keras.regularizers.L1(0.25), keras.regularizers.L2(0.5)
    x = keras.Input((3,), name="x")
    inner = keras.Model(x, LAYERS.Dense(4, activity_regularizer=l1, name="hidden")(x), name="inner")
    given = keras.Input((3,), name="given")
    y = LAYERS.Dense(2, kernel_regularizer=l2, bias_regularizer=l1, name="score")(inner(given))
    return keras.Model(given, y, name="outer")


def rewritten(file: Path, **members: Any) -> Path:
    """Replace members of a .keras file; a dict changes entries of a JSON object."""
    with zipfile.ZipFile(file) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    for name, change in members.items():
        member = f"{name}.json"
        if isinstance(change, dict):
            held[member] = json.dumps({**json.loads(held[member]), **change}).encode()
        elif change is None:
            del held[member]
        else:
            held[member] = change
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in held.items():
            archive.writestr(name, content)
    file.write_bytes(buffer.getvalue())
    return file


def saved(folder: Path, model: keras.Model | None = None, name: str = "model.keras") -> Path:
    (regularized() if model is None else model).save(folder / name)
    return folder / name


def config_of(file: Path) -> str:
    with zipfile.ZipFile(file) as archive:
        return archive.read("config.json").decode()


@pytest.mark.parametrize(
    ("version", "mean"),
    [("3.0.5", ()), ("3.12.1", ()), ("3.13.2", ()), ("3.14.0", ("batch",)), ("3.15.1", ("batch",))],
)
def test_b1_the_version_that_wrote_a_keras_file_says_what_an_activity_is_divided_by(
    tmp_path: Path, version: str, mean: tuple[str, ...]
) -> None:
    """TRAPS B1."""
    file = rewritten(saved(tmp_path), metadata={"keras_version": version})
    loaded: tuple[Any, ar.Spec] = load(file)
    model, spec = loaded
    found = {(rule.layer, rule.placement): (rule.penalty, rule.mean_over) for rule in spec.rules}
    assert found == {
        ("inner/hidden", "output"): (ar.L1(0.25), mean),
        ("score", "kernel"): (ar.L2(0.5), ()),
        ("score", "bias"): (ar.L1(0.25), ()),
    }
    x = np.ones((2, 3), np.float32)
    again: Any = keras.saving.load_model(file)
    np.testing.assert_array_equal(model(x), again(x))


def test_b1_a_file_of_today_means_what_its_model_means(tmp_path: Path) -> None:
    _, spec = load(saved(tmp_path))
    assert set(spec.rules) == set(arspec_keras.extract(regularized()).rules)


def hdf5(folder: Path, version: str | None, *, at: str = "/") -> Path:
    h5py = pytest.importorskip("h5py")
    file = folder / "model.h5"
    regularized().save(file)
    with h5py.File(file, "r+") as opened:
        del opened.attrs["keras_version"]
        if "keras_version" in opened["model_weights"].attrs:
            del opened["model_weights"].attrs["keras_version"]
        if version is not None:
            opened[at].attrs["keras_version"] = version
    return file


@pytest.mark.parametrize(("version", "mean"), [("2.3.1", ()), ("2.2.4-tf", ("batch",)), ("2.21.0", ("batch",))])
@pytest.mark.parametrize("at", ["/", "model_weights"])
def test_b1_the_version_that_wrote_an_hdf5_file(tmp_path: Path, version: str, mean: Any, at: str) -> None:
    """TRAPS B1: older files have the version beside the weights."""
    _, spec = load(hdf5(tmp_path, version, at=at))
    assert [rule.mean_over for rule in spec.rules if rule.placement == "output"] == [mean]


def test_an_hdf5_file_that_does_not_say_who_wrote_it(tmp_path: Path) -> None:
    with pytest.raises(ar.SpecError, match="does not say which Keras wrote it: keras_version is None"):
        load(hdf5(tmp_path, None))


def test_attached_rules_come_along(tmp_path: Path) -> None:
    """TRAPS C18: rules that arspec attached are in the file, and in the spec."""
    rule = ar.Rule(ar.L1(0.125), layer="score", placement="pre_activation", mean_over=())
    model = arspec_keras.attach(regularized(), ar.Spec([rule]))
    file = rewritten(saved(tmp_path, model), metadata={"keras_version": "3.13.2"})
    _, spec = load(file)
    assert rule in spec.rules
    assert [r.mean_over for r in spec.rules if r.layer == "inner/hidden"] == [()]


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path) -> None:
    x = keras.Input((3,), name="x")
    model = keras.Model(x, LAYERS.Lambda(lambda t: t * 2.0, output_shape=(3,), name="double")(x))
    with pytest.raises(ar.UnsupportedError, match="holds a Lambda, which is code"):
        load(saved(tmp_path, model))


def test_a_class_from_elsewhere_is_refused_and_not_imported(tmp_path: Path) -> None:
    file = saved(tmp_path)
    of_keras, of_python = ('"module": "keras.layers", "class_name": "Dense"', '"module": "os", "class_name": "system"')
    changed = config_of(file).replace(of_keras, of_python)
    assert "system" in changed
    with pytest.raises(ar.UnsupportedError, match=r"holds a os\.system, which is not Keras' own and is not imported"):
        load(rewritten(file, config=changed.encode()))


def test_what_changed_its_meaning_since_keras_2_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    file = hdf5(tmp_path, "2.15.0")
    with h5py.File(file, "r+") as opened:
        config = opened.attrs["model_config"]
        opened.attrs["model_config"] = config.replace('"activation": "linear"', '"activation": "hard_sigmoid"')
    with pytest.raises(ar.UnsupportedError, match=r"activation='hard_sigmoid': clip\(0\.2·x \+ 0\.5\) in Keras 2"):
        load(file)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"metadata": None}, "cannot be read as a Keras model: KeyError"),
        ({"config": None}, "cannot be read as a Keras model: KeyError"),
        ({"metadata": b"{"}, "cannot be read as a Keras model: JSONDecodeError"),
        ({"metadata": b"[1]"}, "does not say which Keras wrote it: keras_version is None"),
        ({"metadata": {"keras_version": 3}}, "keras_version is 3"),
        ({"metadata": {"keras_version": "4.0"}}, "version='4.0'; expected one of Keras 2 or 3"),
        ({"config": b"[]"}, r"the config of the model is \[\]"),
        ({"config": b'{"config": {"layers": []}}'}, "cannot be read as a Keras model"),
    ],
)
def test_a_damaged_keras_file_is_one_clear_error(tmp_path: Path, members: Any, text: str) -> None:
    with pytest.raises(ar.SpecError, match=text) as caught:
        load(rewritten(saved(tmp_path), **members))
    assert "model.keras" in str(caught.value) or "version=" in str(caught.value)


def test_cut_off_and_foreign_files_are_clear_errors(tmp_path: Path) -> None:
    whole = saved(tmp_path).read_bytes()
    for name, content, text in (
        ("cut.keras", whole[: len(whole) // 2], "neither a .keras nor an .h5 file"),
        ("text.keras", b"hello", "neither a .keras nor an .h5 file"),
        ("cut.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 50, "cannot be read as a Keras model: OSError"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ar.SpecError, match=text):
            load(tmp_path / name)
    with pytest.raises(ar.SpecError, match="is no file"):
        load(tmp_path / "nothing.keras")


def test_arguments_that_keras_3_has_no_more_are_dropped_at_their_default(tmp_path: Path) -> None:
    """tf-keras writes time_major=False into every recurrent layer, which Keras 3 refuses to read."""
    h5py = pytest.importorskip("h5py")
    file = tmp_path / "model.h5"
    x = keras.Input((3, 2), name="x")
    model: Any = keras.Model(x, LAYERS.LSTM(2, name="lstm")(x), name="words")
    model.save(file)
    for written in (False, True):
        with h5py.File(file, "r+") as opened:
            config = json.loads(opened.attrs["model_config"])
            config["config"]["layers"][1]["config"]["time_major"] = written
            opened.attrs["model_config"] = json.dumps(config)
            opened.attrs["keras_version"] = "2.15.0"
        if written:
            with pytest.raises(ar.UnsupportedError, match=r"layer 'lstm' of Keras 2\.15\.0 has time_major=True"):
                load(file)
        else:
            given = np.ones((4, 3, 2), np.float32)
            again: Any = load(file)[0]
            np.testing.assert_array_equal(again(given), model(given))


def test_a_keras_file_of_tf_keras_says_what_to_do(tmp_path: Path) -> None:
    file = saved(tmp_path)
    changed = config_of(file).replace('"module": "keras.layers"', '"module": "tf_keras.layers"')
    with pytest.raises(ar.UnsupportedError, match=r"written by tf-keras, .* Load it there, and save it as \.h5"):
        load(rewritten(file, config=changed.encode()))
